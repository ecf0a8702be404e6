"""Masks as OpenSlide, tifffile and ome-types see them."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from genselfdiff.masks import MaskReader, MaskWriter, PyramidShape
from genselfdiff.masks.mask_writer import halve_labels
from genselfdiff.slides import open_slide

PALETTE = [(255, 255, 255), (200, 30, 30), (30, 30, 200)]
NAMES = ["background", "nucleus", "str\u00f6ma <&>"]


@pytest.fixture
def labels():
    y, x = np.mgrid[:700, :900]
    return np.digitize(np.sin(x / 40) + np.sin(y / 60), [0.4, 1.2]).astype(np.uint8)


@pytest.fixture
def write(tmp_path, labels):
    def make(name, mpp=0.25, **options):
        options = {"palette": PALETTE, "class_names": NAMES} | options
        with MaskWriter(
            tmp_path / name, PyramidShape(900, 700, mpp, tile=128), **options
        ) as writer:
            writer.write_rows(labels)
        return tmp_path / name

    return make


def test_openslide_shows_every_level_in_colour(write, labels):
    openslide = pytest.importorskip("openslide")
    with openslide.OpenSlide(write("m.tif")) as slide:
        assert slide.level_count == 4
        assert slide.level_downsamples == pytest.approx((1, 2, 4, 8), rel=0.02)
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.25)
        for level in range(4):
            seen = np.asarray(slide.read_region((0, 0), level, slide.level_dimensions[level]))
            np.testing.assert_array_equal(seen[..., :3], np.array(PALETTE, np.uint8)[labels])
            labels = halve_labels(labels)


@pytest.mark.parametrize("mpp", [0.25, None])
def test_ome_tiff(write, labels, mpp):
    path = write("m.ome.tif", mpp, description={"job": {"model": "a"}})
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome
        assert len(tiff.pages) == 1
        (series,) = tiff.series
        assert len(series.levels) == 4
        for level in series.levels:
            np.testing.assert_array_equal(level.asarray(), labels)
            labels = halve_labels(labels)
        document = tiff.ome_metadata
    ome_types = pytest.importorskip("ome_types")
    described = ome_types.from_xml(document, validate=True)
    (image,) = described.images
    pixels = image.pixels
    assert (pixels.size_x, pixels.size_y, pixels.type.value) == (900, 700, "uint8")
    assert pixels.physical_size_x == mpp
    assert pixels.physical_size_x_unit.value == "\u00b5m"
    with MaskReader(path) as reader:
        assert reader.class_names == NAMES
        assert reader.mpp == mpp
        assert reader.description["job"] == {"model": "a"}
        assert reader.palette[:3] == PALETTE
    with open_slide(path) as slide:
        assert slide.mpp == mpp
        assert len(slide.levels) == 4


def test_an_ome_tiff_of_one_tile(tmp_path):
    with MaskWriter(
        tmp_path / "m.ome.tiff", PyramidShape(60, 50, 0.5), palette=PALETTE, class_names=NAMES
    ) as writer:
        writer.write_rows(np.ones((50, 60), np.uint8))
    with tifffile.TiffFile(tmp_path / "m.ome.tiff") as tiff:
        assert tiff.is_ome
        assert tiff.pages[0].subifds is None
        assert tiff.asarray().all()


@pytest.mark.parametrize(
    ("description", "mpp"),
    [
        ('{"mpp": 0.5}', 0.5),
        ('{"mpp": ' + "9" * 400 + "}", None),
        ('{"mpp": ' + "9" * 5000 + "}", None),
        ("[" * 100_000, None),
        ('{"mpp": 0.5, "more": [' + "[]," * 10**6 + "[]]}", None),
        ("<?xml version='1.0'?><OME>genselfdiff/mask" + "<a/>" * 2**19 + "</OME>", None),
    ],
)
def test_descriptions_that_no_mask_of_ours_has(
    tmp_path: Path, description: str, mpp: float | None
) -> None:
    path = tmp_path / "mask.tif"
    labels = np.zeros((64, 64), np.uint8)
    tifffile.imwrite(path, labels, tile=(64, 64), description=description, metadata=None)
    with MaskReader(path) as mask:
        assert mask.mpp == mpp
        np.testing.assert_array_equal(np.concatenate(list(mask.bands())), labels)


@pytest.mark.parametrize("name", ["m.tif", "m.ome.tif"])
def test_windows_of_every_level(write, labels, name):
    path = write(name)
    with MaskReader(path) as mask:
        count = mask.levels
    assert count == 4
    for level in range(count):
        with MaskReader(path, level=level) as mask:
            np.testing.assert_array_equal(mask.read(0, 0, mask.width, mask.height), labels)
            corner = mask.width - 50, mask.height - 40
            np.testing.assert_array_equal(mask.read(*corner, 50, 40), labels[-40:, -50:])
            with pytest.raises(ValueError, match="is not inside"):
                mask.read(*corner, 51, 40)
        labels = halve_labels(labels)


def test_windows_of_every_nth_pixel(write, labels):
    with MaskReader(write("m.tif")) as mask:
        assert mask.read(0, 0, 129, 100, step=7).shape == (100, 129)
        np.testing.assert_array_equal(mask.read(9, 5, 20, 30, step=7), labels[38:248:7, 66:206:7])
