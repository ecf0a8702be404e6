"""Slides of Leica, Hamamatsu, 3DHISTECH and Ventana, generated, through the real OpenSlide."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scanner_files import decoded, write_bif, write_mrxs, write_ndpi, write_scn

from genselfdiff.errors import InputError
from genselfdiff.slides import find_slides, open_slide
from genselfdiff.slides.fingerprint import fingerprint

openslide = pytest.importorskip("openslide")

Uint8 = NDArray[np.uint8]


@pytest.fixture(scope="module")
def picture() -> Uint8:
    """(512, 768, 3), smooth, so that JPEG hardly changes it; no two rows or columns alike."""
    y, x = np.mgrid[:512, :768]
    waves = [128 + 60 * np.sin(x / 19 + k) + 60 * np.cos(y / (17 + k) + x / 51) for k in range(3)]
    return np.clip(np.stack(waves, axis=-1), 0, 255).astype(np.uint8)


@pytest.fixture
def write(tmp_path: Path, picture: Uint8) -> Callable[[str], Path]:
    """Write the picture as a slide of that ending."""
    half = np.ascontiguousarray(picture[::2, ::2])

    def written(ending: str) -> Path:
        path = tmp_path / f"slide.{ending}"
        if ending == "scn":
            write_scn(path, [picture, half])
        elif ending == "ndpi":
            glass = np.full((64, 96, 3), 200, np.uint8)
            write_ndpi(path, {20.0: picture, 10.0: half, -1.0: glass})
        elif ending == "mrxs":
            write_mrxs(path, picture)
        else:
            write_bif(path, picture[:464, :688])
        return path

    return written


def whole(path: Path, level: int = 0) -> NDArray[np.int64]:
    with open_slide(path) as slide:
        size = slide.levels[level].width, slide.levels[level].height
        return slide.read_level(0, 0, *size, level).astype(int)


@pytest.mark.parametrize(
    ("ending", "vendor", "size", "mpp"),
    [
        ("scn", "leica", (768, 512), 0.5),
        ("ndpi", "hamamatsu", (768, 512), 0.5),
        ("mrxs", "mirax", (768, 512), 0.25),
        ("bif", "ventana", (688, 464), 0.25),
    ],
)
def test_what_is_read_is_what_was_written(
    write: Callable[[str], Path],
    picture: Uint8,
    ending: str,
    vendor: str,
    size: tuple[int, int],
    mpp: float,
) -> None:
    path = write(ending)
    assert openslide.OpenSlide.detect_format(path) == vendor
    with open_slide(path) as slide:
        assert (slide.width, slide.height, slide.mpp) == (*size, pytest.approx(mpp, rel=1e-4))
        assert [level.downsample for level in slide.levels][:2] == [1.0, 2.0]
        part = slide.read_level(250, 100, 300, 200)
    pixels = whole(path)
    np.testing.assert_array_equal(part, pixels[100:300, 250:550])
    assert abs(pixels - picture[: size[1], : size[0]]).mean() < 1
    assert abs(pixels - picture[: size[1], : size[0]]).max() < 20
    half = whole(path, 1)
    assert abs(half - picture[: size[1] : 2, : size[0] : 2]).mean() < 6


def test_tiles_of_mirax_are_those_in_its_files(tmp_path: Path, picture: Uint8) -> None:
    rows = write_mrxs(tmp_path / "a.mrxs", picture)
    expected = np.concatenate([np.concatenate([*map(decoded, row)], axis=1) for row in rows])
    np.testing.assert_array_equal(whole(tmp_path / "a.mrxs"), expected)


@pytest.mark.parametrize("ending", ["scn", "ndpi"])
def test_tifffile_sees_the_same(write: Callable[[str], Path], ending: str) -> None:
    path = write(ending)
    with tifffile.TiffFile(path) as opened:
        assert opened.is_scn if ending == "scn" else opened.is_ndpi
        page = opened.pages[int(ending == "scn")]
        theirs = page.asarray().astype(int)
    difference = abs(whole(path) - theirs)
    # At the edges of the pieces that OpenSlide reads, colours of half the width have no neighbour.
    assert difference.mean() < 0.3
    assert np.median(difference) == 0


@pytest.mark.parametrize("ending", ["scn", "ndpi", "bif"])
def test_the_name_does_not_matter(write: Callable[[str], Path], ending: str) -> None:
    path = write(ending)
    pixels = whole(path)
    renamed = path.rename(path.with_suffix(".tif"))
    np.testing.assert_array_equal(whole(renamed), pixels)


def test_a_mirax_is_all_its_files(write: Callable[[str], Path], tmp_path: Path) -> None:
    path = write("mrxs")
    assert find_slides([tmp_path]) == [path]
    data = path.with_suffix("") / "Data0000.dat"
    before, content = fingerprint(path), data.read_bytes()
    data.write_bytes(content[:-1] + b"\0")
    assert fingerprint(path) != before
    data.write_bytes(content[:30000] + bytes(len(content) - 30000))
    with pytest.raises(InputError, match=r"slide\.mrxs: area at .* of level 0 cannot be decoded"):
        whole(path)
    (path.with_suffix("") / "Index.dat").unlink()
    with pytest.raises(
        InputError, match=r"slide\.mrxs: OpenSlide cannot open it .*files that belong"
    ):
        whole(path)


@pytest.mark.parametrize("ending", ["scn", "ndpi", "bif"])
def test_a_slide_that_was_cut_off(write: Callable[[str], Path], ending: str) -> None:
    path = write(ending)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3])
    with pytest.raises(InputError, match=rf"slide\.{ending}: .*is it whole"):
        whole(path)
