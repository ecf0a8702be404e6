"""Colours by the ICC profile: in every format, and in all that reads slides."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import tifffile
from icc_profiles import expected, scanner_profile
from numpy.typing import NDArray
from PIL import Image

from genselfdiff.data.cutting import CutSettings, cut_tiles
from genselfdiff.data.labelled.images import LabelledImages
from genselfdiff.data.labelled.pairs import Pair
from genselfdiff.data.tiles import UnlabelledTiles, open_sources
from genselfdiff.errors import InputError, OutputError
from genselfdiff.masks import MaskReader
from genselfdiff.models.model_info import ModelInfo
from genselfdiff.segmenting.one_slide import segment
from genselfdiff.segmenting.options import Options
from genselfdiff.slides import open_slide, read_image
from genselfdiff.slides.slide import Slide

Uint8 = NDArray[np.uint8]
PROFILE = scanner_profile(1.8)


@pytest.fixture(scope="module")
def picture(picture: Uint8) -> Uint8:
    """(207, 301, 3), with white and black in it."""
    cut = np.ascontiguousarray(picture[:207, :301])
    cut[:9, :9], cut[:9, 9:18] = 255, 0
    return cut


def tagged(path: Path, pixels: Uint8, profile: bytes = PROFILE, **options: object) -> Path:
    """A TIFF with a profile."""
    options = {"photometric": "rgb", "tile": (64, 64), "compression": "zlib", **options}
    tifffile.imwrite(path, pixels, iccprofile=profile, **options)
    return path


def read(path: Path, **options: object) -> NDArray[np.int64]:
    with open_slide(path, **options) as slide:
        return slide.read_level(0, 0, slide.width, slide.height).astype(int)


def test_colours_are_those_of_the_formulas(tmp_path: Path, picture: Uint8) -> None:
    path = tagged(tmp_path / "a.tif", picture)
    seen = read(path, icc=True)
    assert abs(seen - expected(picture, 1.8)).max() < 1.6
    assert abs(seen - picture).mean() > 10
    assert (seen[:9, :9] == 255).all() and (seen[:9, 9:18] == 0).all()
    np.testing.assert_array_equal(read(path), picture)


@pytest.mark.parametrize("kind", ["turned.tif", "strips.tif", "grey.tif", "a.png", "a.jpg"])
def test_formats(tmp_path: Path, picture: Uint8, kind: str) -> None:
    path = tmp_path / kind
    if kind == "turned.tif":
        tagged(path, picture, extratags=[(274, 3, 1, 6, True)])
    elif kind == "strips.tif":
        tagged(path, picture, tile=None, rowsperstrip=16, compression=None)
    elif kind == "grey.tif":
        tagged(path, picture[..., 0], photometric="minisblack")
    else:
        Image.fromarray(picture).save(path, icc_profile=PROFILE)
    stored = read(path).astype(np.uint8)
    assert abs(read(path, icc=True) - expected(stored, 1.8)).max() < 1.6


def test_openslide(tmp_path: Path, picture: Uint8) -> None:
    openslide = pytest.importorskip("openslide")
    path = tagged(tmp_path / "a.svslide", picture, description="Aperio |MPP = 0.5", metadata=None)
    with openslide.OpenSlide(path) as slide:
        assert slide.color_profile is not None
    assert abs(read(path, icc=True) - expected(picture, 1.8)).max() < 1.6


def test_dicom(tmp_path: Path, picture: Uint8) -> None:
    pytest.importorskip("pydicom")
    from dicom_files import dataset, instance, uid

    paths = [dataset(OpticalPathIdentifier="1", ICCProfile=PROFILE)]
    lossless = {"syntax": uid.JPEG2000Lossless, "colours": "YBR_RCT"}
    made = instance(picture, OpticalPathSequence=paths, **lossless)
    made.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert abs(read(tmp_path / "a.dcm", icc=True) - expected(picture, 1.8)).max() < 1.6


def test_a_tile_that_is_made_of_the_finer_level_is_converted_once(
    tmp_path: Path, picture: Uint8
) -> None:
    path = tmp_path / "a.tif"
    options = {"photometric": "rgb", "tile": (64, 64), "compression": "zlib", "iccprofile": PROFILE}
    with tifffile.TiffWriter(path) as writer:
        writer.write(picture, **options)
        writer.write(picture[::2, ::2], subfiletype=1, metadata=None, **options)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as opened:
        counts = opened.pages[1].tags["TileByteCounts"]
        width = counts.valuebytecount // counts.count
    data[counts.valueoffset : counts.valueoffset + width] = bytes(width)
    path.write_bytes(data)
    with open_slide(path) as stored, open_slide(path, icc=True) as seen:
        before, after = (slide.read_level(0, 0, 64, 64, 1) for slide in (stored, seen))
    assert abs(after - expected(before, 1.8)).max() < 1.6


def test_threads_see_the_same(tmp_path: Path, picture: Uint8) -> None:
    path = tagged(tmp_path / "a.tif", np.tile(picture, (3, 3, 1)))
    whole = read(path, icc=True)

    def row(slide: Slide, y: int) -> NDArray[np.uint8]:
        return slide.read_level(0, y, slide.width, 20)

    with ThreadPoolExecutor(8) as pool, open_slide(path, icc=True) as slide:
        rows = list(pool.map(lambda y: row(slide, y), range(0, 600, 20)))
    np.testing.assert_array_equal(np.concatenate(rows), whole[:600])


def test_without_a_profile(
    tmp_path: Path, picture: Uint8, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(read(path, icc=True), picture)
    assert f"{path}: has no ICC profile to apply" in caplog.text


@pytest.mark.parametrize(
    ("profile", "why"),
    [(scanner_profile(1.8, space=b"GRAY"), "it is one of GRAY, not of RGB"), (PROFILE[:200], "")],
)
def test_a_profile_that_cannot_be_applied(
    tmp_path: Path, picture: Uint8, profile: bytes, why: str
) -> None:
    path = tagged(tmp_path / "a.tif", picture, profile)
    with pytest.raises(InputError, match=rf"a\.tif: its ICC profile cannot be applied \(.*{why}"):
        open_slide(path, icc=True)
    np.testing.assert_array_equal(read(path), picture)


def test_training_reads_so(tmp_path: Path, picture: Uint8) -> None:
    path = tagged(tmp_path / "a.tif", picture // 2, resolution=(20000, 20000), resolutionunit=3)
    tiles = [
        UnlabelledTiles(
            open_sources([path], mpp=0.5, icc=icc), mpp=0.5, tile_size=64, seed=1, length=1
        ).read(0)
        for icc in (False, True)
    ]
    assert abs(tiles[1] - expected(tiles[0], 1.8)).max() < 1.6
    mask = tmp_path / "mask.png"
    Image.fromarray(picture[..., 0] // 255).save(mask)
    (seen,) = LabelledImages([Pair("a", path, mask)], icc=True).images
    assert abs(seen - expected(picture // 2, 1.8)).max() < 1.6
    np.testing.assert_array_equal(read_image(path), picture // 2)


def test_tiles_are_cut_so(tmp_path: Path, picture: Uint8) -> None:
    path = tagged(tmp_path / "a.tif", picture // 2, resolution=(20000, 20000), resolutionunit=3)
    for icc in (False, True):
        settings = CutSettings(0.5, 64, 0.0, icc=icc)
        assert cut_tiles([path], tmp_path / f"{icc}", settings)[path]
    names = [tile.relative_to(tmp_path / "True") for tile in (tmp_path / "True").rglob("*.png")]
    assert names
    for name in names:
        stored, seen = (np.asarray(Image.open(tmp_path / f"{icc}" / name)) for icc in (False, True))
        assert abs(seen - expected(stored, 1.8)).max() < 1.6


def test_a_mask_knows_it(tmp_path: Path, picture: Uint8, darkness_model: Path) -> None:
    """It is another mask than that of the stored colours, in shards and beside it, too."""
    slide = tagged(tmp_path / "a.tif", picture, resolution=(20000, 20000), resolutionunit=3)
    plain, seen = tmp_path / "plain.tif", tmp_path / "seen.tif"
    segment(slide, plain, darkness_model, tissue=False)
    result = segment(slide, seen, darkness_model, tissue=False, icc=True, report=True)
    masks = [tifffile.imread(path) for path in (plain, seen)]
    assert (masks[0] != masks[1]).mean() > 0.02
    green = [read(slide, icc=icc)[..., 1] for icc in (False, True)]
    for mask, values in zip(masks, green, strict=True):
        assert abs(values[mask == 1].max() - values[mask == 0].min()) < 12
    with MaskReader(seen) as reader:
        assert reader.description["job"]["icc"] is True
    assert "Colours by the slide's ICC profile" in unescape(result.files.report.read_text())
    with pytest.raises(OutputError, match="was made with icc True instead of False"):
        segment(slide, seen, darkness_model, tissue=False)


@pytest.mark.parametrize("trained", [None, False, True])
@pytest.mark.parametrize("icc", [False, True])
def test_a_model_that_was_trained_otherwise_is_warned_of(
    info: Callable[..., ModelInfo],
    caplog: pytest.LogCaptureFixture,
    trained: bool | None,
    icc: bool,
) -> None:
    training = {} if trained is None else {"settings": {"icc": trained}}
    Options(icc=icc).for_model(replace(info(), training=training))
    is_told = "the model was trained" in caplog.text
    assert is_told is (trained is not None and trained is not icc)
    if is_told:
        words = "with --icc, and slides are read without it"
        assert (words in caplog.text) is trained
