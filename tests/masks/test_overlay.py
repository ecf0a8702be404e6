from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from genselfdiff.errors import InputError, OutputError
from genselfdiff.masks import MaskWriter, PyramidShape, draw_overlay, write_overlay
from genselfdiff.masks.legend import scale_bar, with_legend
from genselfdiff.slides import Slide, open_slide

PALETTE = [(0, 0, 0), (255, 0, 0), (0, 0, 255)]
GLASS = 240


@pytest.fixture
def slide(tmp_path: Path) -> Iterator[Slide]:
    """A grey slide of 300 x 200 pixels."""
    Image.new("RGB", (300, 200), (GLASS,) * 3).save(tmp_path / "slide.png")
    with open_slide(tmp_path / "slide.png") as slide:
        yield slide


def write_mask(
    path: Path, labels: np.ndarray, names: Sequence[str] = "abc", mpp: float | None = None
) -> Path:
    height, width = labels.shape
    with MaskWriter(
        path,
        PyramidShape(width, height, mpp, tile=64),
        palette=PALETTE[: len(names)],
        class_names=names,
    ) as writer:
        writer.write_rows(labels)
    return path


def blocks(scale: int = 1) -> np.ndarray:
    """Class 1 in a block of 100 x 100, class 2 to its right."""
    labels = np.zeros((200, 300), np.uint8)
    labels[50:150, 40:140] = 1
    labels[50:150, 140:240] = 2
    return labels[::scale, ::scale]


@pytest.mark.parametrize("scale", [1, 2])
def test_objects_are_tinted_and_outlined(tmp_path: Path, slide: Slide, scale: int) -> None:
    mask = write_mask(tmp_path / "m.tif", blocks(scale))
    write_overlay(slide, mask, tmp_path / "o.png")
    overlay = np.asarray(Image.open(tmp_path / "o.png"))[:200].astype(int)
    assert overlay.shape == (200, 300, 3)
    assert (overlay[:50] == GLASS).all() and (overlay[150:] == GLASS).all()
    assert overlay[50, 45:130].tolist() == [[255, 0, 0]] * 85
    assert overlay[60:140, 139].tolist() == [[255, 0, 0]] * 80
    assert overlay[60:140, 140].tolist() == [[0, 0, 255]] * 80
    inside = overlay[100, 90]
    assert GLASS < inside[0] <= 255 and 100 < inside[1] < GLASS


def test_outlines_leave_the_inside_as_it_is(tmp_path: Path, slide: Slide) -> None:
    mask = write_mask(tmp_path / "m.tif", blocks())
    write_overlay(slide, mask, tmp_path / "o.png", outline=True)
    overlay = np.asarray(Image.open(tmp_path / "o.png"))
    assert overlay[50, 45:130].tolist() == [[255, 0, 0]] * 85
    assert (overlay[52:148, 42:138] == GLASS).all()
    assert (overlay[52:148, 142:238] == GLASS).all()


def test_below_is_what_colours_and_lengths_mean(tmp_path: Path, slide: Slide) -> None:
    names = ["background", "nucleus", "\u044f\u0434\u0440\u043e"]
    mask = write_mask(tmp_path / "m.tif", blocks(), names, mpp=2.0)
    write_overlay(slide, mask, tmp_path / "o.png")
    overlay = np.asarray(Image.open(tmp_path / "o.png")).astype(int)
    strip = overlay[200:]
    assert overlay.shape[1] == 300 and 0 < len(strip) < 100
    for colour in PALETTE[1:]:
        assert (strip == colour).all(axis=-1).sum() == 11 * 11, "a square of the class"
    # A fifth of 300 pixels of 2 um is 120 um: the bar says 100.
    bar = (strip == 0).all(axis=-1).sum(axis=1).max()
    assert bar >= 50
    assert scale_bar(120) == (100, "100 \u00b5m")
    assert scale_bar(2600) == (2000, "2 mm")
    assert scale_bar(0.7) == (0.5, "0.5 \u00b5m")


@pytest.mark.parametrize("width", [20, 60, 400])
def test_names_that_do_not_fit(width: int) -> None:
    picture = np.full((10, width, 3), 200, np.uint8)
    classes = [("tumour" * 50, (1, 2, 3)), ("\u202e", (4, 5, 6)), ("stroma", (7, 8, 9))]
    drawn = with_legend(picture, classes, None)
    assert drawn.shape[1] == width
    assert (drawn[:10] == 200).all()
    assert len(drawn) <= 10 + 22 * len(classes)
    for _, colour in classes:
        assert (drawn[10:] == colour).all(axis=-1).any()
    assert with_legend(picture, [], None) is picture


def test_large_slides_are_made_smaller(tmp_path: Path, slide: Slide) -> None:
    mask = write_mask(tmp_path / "m.tif", blocks())
    write_overlay(slide, mask, tmp_path / "o.png", width=75)
    overlay = np.asarray(Image.open(tmp_path / "o.png"))[:50]
    assert overlay.shape == (50, 75, 3)
    coloured = (overlay != GLASS).any(axis=-1)
    assert coloured[13:37, 11:59].all()
    assert not coloured[:12].any() and not coloured[:, :9].any() and not coloured[:, 61:].any()


@pytest.mark.parametrize("name", ["m.tif", "m.ome.tif"])
def test_of_a_huge_mask_a_smaller_page_is_read(
    tmp_path: Path, slide: Slide, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    mask = write_mask(tmp_path / name, blocks())
    write_overlay(slide, mask, tmp_path / "small.png", 150)
    monkeypatch.setattr("genselfdiff.masks.overlay.MAX_PIXELS_AT_ONCE", 150 * 100)
    write_overlay(slide, mask, tmp_path / "again.png", 150)
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "small.png").read_bytes()
    with pytest.raises(InputError, match="has no smaller pages"):
        write_overlay(slide, mask, tmp_path / "whole.png", 300)


def test_the_width_of_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (120, 300), (GLASS,) * 3).save(tmp_path / "high.png")
    with open_slide(tmp_path / "high.png") as high:
        mask = write_mask(tmp_path / "m.tif", np.zeros((300, 120), np.uint8), ["no legend"])
        for width, expected in ((60, (60, 150)), (7, (7, 18)), (1000, (120, 300))):
            write_overlay(high, mask, tmp_path / "o.png", width=width)
            with Image.open(tmp_path / "o.png") as overlay:
                assert overlay.size == expected
        with pytest.raises(InputError, match="0 pixels is no width"):
            write_overlay(high, mask, tmp_path / "o.png", width=0)
        monkeypatch.setattr("genselfdiff.masks.overlay._MAX_PICTURE", 1000)
        with pytest.raises(
            InputError, match=r"high\.png: an overlay 60 .* too large: 20 are possible"
        ):
            write_overlay(high, mask, tmp_path / "o.png", width=60)
        write_overlay(high, mask, tmp_path / "o.png", width=20)


def test_classes_beyond_the_palette(tmp_path: Path, slide: Slide) -> None:
    mask = write_mask(tmp_path / "m.tif", blocks())
    with pytest.raises(InputError, match=r"m\.tif: class 2 is beyond the palette of 2 colours"):
        draw_overlay(slide, mask, PALETTE[:2], 300)


def test_what_is_no_mask(tmp_path: Path, slide: Slide) -> None:
    with pytest.raises(InputError, match="no readable mask"):
        write_overlay(slide, tmp_path / "slide.png", tmp_path / "o.png")
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((20, 30, 3), np.uint8), photometric="rgb")
    with pytest.raises(InputError, match="no mask of class indices"):
        write_overlay(slide, tmp_path / "rgb.tif", tmp_path / "o.png")


def test_a_mask_of_another_field(tmp_path: Path, slide: Slide) -> None:
    mask = write_mask(tmp_path / "m.tif", np.zeros((300, 200), np.uint8))
    with pytest.raises(InputError, match="do not show the same field"):
        write_overlay(slide, mask, tmp_path / "o.png")


def test_a_missing_folder(tmp_path: Path, slide: Slide) -> None:
    mask = write_mask(tmp_path / "m.tif", blocks())
    with pytest.raises(OutputError, match="cannot be written"):
        write_overlay(slide, mask, tmp_path / "nowhere" / "o.png")
