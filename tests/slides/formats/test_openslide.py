"""What OpenSlide reads is what our own reader reads, where both can."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from genselfdiff.errors import InputError
from genselfdiff.slides import Slide, open_slide
from genselfdiff.slides.formats import openslide as openslide_format
from genselfdiff.slides.formats.openslide import open_with_openslide
from genselfdiff.slides.stored.damage import Damage

openslide = pytest.importorskip("openslide")

EXAMPLE = Path(__file__).parents[3] / "examples" / "CMU-1-Small-Region.svs"


def through_openslide(path: Path) -> Slide:
    damage = Damage(path)
    return Slide(damage, open_with_openslide(path, damage), None)


def test_an_svs_is_the_same_with_both_readers() -> None:
    with open_slide(EXAMPLE) as ours, through_openslide(EXAMPLE) as theirs:
        # No level for label, macro or thumbnail, which this file has.
        assert theirs.levels == ours.levels
        assert theirs.mpp == ours.mpp == 0.499
        for x, y, width, height in [(0, 0, 300, 200), (500, 500, 700, 600), (2119, 2866, 101, 101)]:
            pixels = [slide.read_level(x, y, width, height).astype(int) for slide in (ours, theirs)]
            # Two JPEG decoders round differently.
            assert abs(pixels[0] - pixels[1]).max() <= 3
            assert abs(pixels[0] - pixels[1]).mean() < 0.1
        views = [slide.at_mpp(2.0).read(50, 60, 300, 200).astype(int) for slide in (ours, theirs)]
        assert abs(views[0] - views[1]).max() <= 2


def test_a_generic_pyramid_is_the_same_with_both_readers(pyramid: Callable[..., Path]) -> None:
    path = pyramid(compression="zlib", resolution=(20_000, 20_000), resolutionunit=3)
    with open_slide(path) as ours, through_openslide(path) as theirs:
        assert [(level.width, level.height) for level in theirs.levels] == [
            (level.width, level.height) for level in ours.levels
        ]
        assert theirs.mpp == pytest.approx(ours.mpp) == pytest.approx(0.5)
        for level in range(3):
            width, height = ours.levels[level].width, ours.levels[level].height
            pixels = [slide.read_level(0, 0, width, height, level) for slide in (ours, theirs)]
            np.testing.assert_array_equal(*pixels)


def test_the_ending_chooses_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tmp_path / "slide.scn"
    link.symlink_to(EXAMPLE)
    with open_slide(link) as slide:
        assert isinstance(slide._stored.levels[0], openslide_format._OpenSlideLevel)
        assert (slide.width, slide.height) == (2220, 2967)
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(InputError, match=r"slide\.scn: .*pip install 'genselfdiff\[openslide\]'"):
        open_slide(link)
    with open_slide(EXAMPLE) as slide:
        assert slide.mpp == 0.499


def test_what_is_no_slide(tmp_path: Path) -> None:
    (tmp_path / "a.mrxs").write_bytes(b"no slide at all")
    with pytest.raises(InputError, match=r"a\.mrxs: OpenSlide cannot open it .*; is it whole"):
        open_slide(tmp_path / "a.mrxs")


class FakeScan:
    """Two levels of a scan that covers a part of the glass; around it nothing is stored."""

    dimensions = (4000, 3000)
    level_dimensions = ((4000, 3000), (1000, 750))
    level_downsamples = (1.0, 4.0)
    color_profile = None

    def __init__(self, properties: dict[str, str]) -> None:
        self.properties = properties

    def read_region(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> Image:
        step = int(self.level_downsamples[level])
        x = corner[0] + step * np.arange(size[0])
        y = corner[1] + step * np.arange(size[1])
        rgba = np.zeros((size[1], size[0], 4), np.uint8)
        rgba[..., 0], rgba[..., 1] = (x // 16)[None], (y // 16)[:, None]
        rgba[..., 3] = 255 * ((x >= 800)[None] & (x < 2400)[None] & (y >= 400)[:, None])
        return Image.fromarray(rgba)

    def close(self) -> None:
        pass


BOUNDS = dict(zip(("x", "y", "width", "height"), ("800", "400", "1600", "1200"), strict=True))


def empty(path: Path) -> Path:
    path.touch()
    return path


def test_the_bounds_of_the_scan_are_the_slide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    properties = {f"openslide.bounds-{name}": value for name, value in BOUNDS.items()}
    properties |= {"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.252"}
    monkeypatch.setattr(openslide, "OpenSlide", lambda _: FakeScan(properties))
    with through_openslide(empty(tmp_path / "a.mrxs")) as slide:
        sizes = [(level.width, level.height, level.downsample) for level in slide.levels]
        assert sizes == [(1600, 1200, 1.0), (400, 300, 4.0)]
        assert slide.mpp == pytest.approx(0.251, rel=1e-3)
        assert slide.read_level(0, 0, 1, 1)[0, 0].tolist() == [50, 25, 0]
        assert slide.read_level(520, 1000, 1, 1)[0, 0].tolist() == [82, 87, 0]
        assert slide.read_level(399, 0, 1, 1, 1)[0, 0].tolist() == [149, 25, 0]


@pytest.mark.parametrize("damage", [{"x": "no"}, {"width": "9000"}, {}])
def test_bounds_that_cannot_be_are_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: dict[str, str]
) -> None:
    properties = {f"openslide.bounds-{k}": v for k, v in (BOUNDS | damage).items()}
    if not damage:
        properties = {}
    monkeypatch.setattr(openslide, "OpenSlide", lambda _: FakeScan(properties))
    with through_openslide(empty(tmp_path / "a.mrxs")) as slide:
        assert (slide.width, slide.height, slide.mpp) == (4000, 3000, None)
        # Where nothing was scanned there is glass.
        assert slide.read_level(0, 0, 1, 1)[0, 0].tolist() == [255, 255, 255]


def test_a_forked_process_opens_it_anew() -> None:
    with through_openslide(EXAMPLE) as slide:
        expected = slide.read_level(900, 900, 50, 50)
        status = 1
        child = os.fork()
        try:
            right = bool((slide.read_level(900, 900, 50, 50) == expected).all())
            status = int(not right)
        finally:
            if child == 0:  # whatever happens, the child must not go on with the tests
                os._exit(status)
        assert right
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_file_that_crashes_openslide_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without memory GLib ends the process, so that there is nothing to catch."""
    crash = "import os, signal; os.kill(os.getpid(), signal.SIGTRAP)"
    monkeypatch.setattr(openslide_format, "_TRIAL", crash)
    with pytest.raises(InputError, match=r"\.svs: OpenSlide crashes on it"):
        through_openslide(EXAMPLE)
    monkeypatch.setattr(openslide_format, "_TRIAL", "import time; time.sleep(60)")
    monkeypatch.setattr(openslide_format, "_TRIAL_SECONDS", 0.5)
    with pytest.raises(InputError, match="or does not end"):
        through_openslide(EXAMPLE)


def test_a_tile_larger_than_its_file_is_refused_before_openslide_sees_it(
    pyramid: Callable[..., Path],
) -> None:
    path = pyramid("a.svslide", compression="zlib")
    with tifffile.TiffFile(path) as opened:
        place = opened.pages[1].tags["TileByteCounts"].valueoffset
    data = bytearray(path.read_bytes())
    data[place + 8 : place + 12] = b"\xff\xff\xff\x7f"
    path.write_bytes(data)
    with pytest.raises(InputError, match="stored pieces of it are larger than all of it"):
        open_slide(path)


OVERLAPS = "Background Color=0;Objective Power=20;JPEG Quality=85;OverlapsXY= 64 64;"
SCN = '<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"></scn>'
XMP = b'<EncodeInfo Ver="2"><SlideInfo><iScan Magnification="20" ScanRes="0.46"/></SlideInfo>'


@pytest.mark.parametrize(
    "marks",
    [
        {"software": "MedScan", "description": OVERLAPS},
        {"description": SCN},
        {"description": "level=0 mag=20", "extratags": [(700, "B", len(XMP), XMP, True)]},
        {"extratags": [(65420, "I", 1, 1, True)]},
    ],
    ids=["Trestle", "Leica", "Ventana", "Hamamatsu"],
)
@pytest.mark.parametrize("page", [0, 1])
def test_makers_are_known_under_the_name_of_a_tiff(
    tmp_path: Path,
    picture: np.ndarray,
    marks: dict[str, object],
    page: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their tiles lap over each other, or are several areas: not to be read as they look."""
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for index in range(2):
            more = marks if index == page else {}
            writer.write(picture, photometric="rgb", tile=(64, 64), metadata=None, **more)
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(InputError, match=r"a\.tif: .*pip install 'genselfdiff\[openslide\]'"):
        open_slide(path)


def test_overlaps_are_removed(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    options = {"photometric": "rgb", "compression": "jpeg", "tile": (128, 128), "metadata": None}
    pixels = np.tile(picture, (2, 1, 1))[:512, :512]
    tifffile.imwrite(path, pixels, software="MedScan", description=OVERLAPS, **options)
    with open_slide(path) as slide, openslide.OpenSlide(path) as theirs:
        assert theirs.properties["openslide.vendor"] == "trestle"
        assert (slide.width, slide.height) == theirs.dimensions == (320, 320)
        seen = np.asarray(theirs.read_region((0, 0), 0, (320, 320)).convert("RGB"))
        np.testing.assert_array_equal(slide.read_level(0, 0, 320, 320), seen)
