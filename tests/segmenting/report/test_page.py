import base64
import io
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from genselfdiff.masks import MaskWriter, PyramidShape
from genselfdiff.segmenting.output_files import OutputFiles
from genselfdiff.segmenting.report.page import Report, write_report
from genselfdiff.segmenting.report.size_histogram import bars_of, diameter, histogram_svg, middle
from genselfdiff.segmenting.result import SegmentResult
from genselfdiff.segmenting.sidecar_record import ObjectSettings
from genselfdiff.slides import open_slide

EVIL = '<script>alert("1")</script>&'
PALETTE = [(255, 255, 255), (200, 30, 31)]
MADE_WITH = ObjectSettings(mask="00", instances=None, seed_distance=None, min_area=0.0)


class Page(HTMLParser):
    """Tags, texts and addresses of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


@pytest.fixture
def report(
    tmp_path: Path, make_result: Callable[..., SegmentResult]
) -> Callable[..., tuple[str, Page]]:
    Image.new("RGB", (400, 300), (225, 160, 200)).save(tmp_path / "slide.png")
    labels = np.zeros((300, 400), np.uint8)
    labels[100:200, 100:300] = 1
    with MaskWriter(
        tmp_path / "mask.tif",
        PyramidShape(400, 300, 0.5),
        palette=PALETTE,
        class_names=["background", "x"],
    ) as writer:
        writer.write_rows(labels)

    def make(
        changes: dict[str, object],
        sizes: dict[str, Counter[int]] | None = None,
        settings: dict[str, str] | None = None,
    ) -> tuple[str, Page]:
        files = {
            "slide": tmp_path / EVIL.replace("/", ":"),
            "files": OutputFiles(tmp_path / "mask.tif"),
        }
        result = make_result(**(files | changes))
        with open_slide(tmp_path / "slide.png") as slide:
            content = Report(result, PALETTE, sizes or {}, settings or {}, MADE_WITH)
            write_report(tmp_path / "r.html", slide, content)
        text = (tmp_path / "r.html").read_text(encoding="utf-8")
        return text, Page(text)

    return make


def test_it_needs_nothing_else_and_escapes(report: Callable[..., tuple[str, Page]]) -> None:
    pixels = {"background": 90, EVIL: 10}
    sizes = {EVIL: Counter({100: 3, 200: 1})}
    text, page = report({"pixels": pixels}, sizes=sizes, settings={EVIL: EVIL})
    assert "script" not in page.tags and "link" not in page.tags
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert not re.search(r"https?:|@import|url\(", text)
    assert page.texts.count(EVIL) == 3  # the class, the setting and its value
    assert f"Sizes of {EVIL}" in page.texts
    assert "{{" not in text and "{%" not in text


def test_the_mask_lies_over_the_slide(report: Callable[..., tuple[str, Page]]) -> None:
    _, page = report({})
    slide, overlay = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))).astype(int)
        for source in page.sources
    )
    assert slide.shape == overlay.shape == (300, 400, 3)
    changed = abs(slide - overlay).max(axis=2) > 20
    assert changed[110:190, 110:290].all()
    assert not changed[:90].any() and not changed[:, :90].any() and not changed[:, 310:].any()


def test_numbers(report: Callable[..., tuple[str, Page]]) -> None:
    sizes = {"nucleus": Counter({314: 1000, 315: 200})}
    _, page = report({"seconds": 4000.0}, sizes=sizes, settings={"overlap": "0.25"})
    for told in ("25.00 %", "0.75", "1,200", "10", "overlap", "0.25", "1 h 6 min, 0.003 Mpx/s"):
        assert told in page.texts
    assert "4,000 x 3,000 pixels of 0.5 \u00b5m: 2 x 1.5 mm" in page.texts
    _, page = report({"mpp": None, "objects": None})
    assert "4,000 x 3,000 pixels; resolution unknown" in page.texts
    assert "3,000,000" in page.texts
    assert "svg" not in page.tags


def test_specks_are_told(report: Callable[..., tuple[str, Page]]) -> None:
    told = "smaller than 10 \u00b5m\u00b2: specks rather than cells"
    # Of 0.5 um/px, 40 pixels are 10 um2.
    few = {"nucleus": Counter({39: 5, 40: 5})}
    most = {"nucleus": Counter({39: 6, 40: 4})}
    assert told not in report({}, sizes=few)[0]
    assert "Of the 10 objects of nucleus, 6 (60%)" in report({}, sizes=most)[0]
    assert told in report({}, sizes=most)[0]
    assert told not in report({"mpp": None}, sizes=most)[0]


def test_histograms_count_every_object_once() -> None:
    rng = np.random.default_rng(0)
    for areas in (
        rng.lognormal(5, 0.5, 1000).astype(int) + 1,
        np.array([1]),
        np.array([7, 7, 10**9]),
        np.arange(1, 300),
    ):
        sizes = Counter(areas.tolist())
        for mpp in (None, 0.25):
            step, bars = bars_of(sizes, mpp)
            assert sum(bars) == len(areas) and len(bars) <= 31
            inside = [diameter(a, mpp) < step for a in areas.tolist()]
            assert bars[0] == sum(inside) or len(bars) == 1
            svg = ElementTree.fromstring(histogram_svg(sizes, mpp, "#aabbcc", "\u00b5m"))
            heights = [float(rect.get("height", "")) for rect in svg.iter("rect")]
            np.testing.assert_allclose(heights, np.array(bars) * max(heights) / max(bars), atol=0.1)
        assert middle(sizes) == np.quantile(areas, 0.5, method="inverted_cdf")
