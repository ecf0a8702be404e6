"""TIFFs as scanners' makers write them: levels, and pictures that are none."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from genselfdiff.errors import InputError
from genselfdiff.slides import open_slide, read_image

PHILIPS = (
    '<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">'
    '<Attribute Name="PIM_DP_SCANNED_IMAGES"><Array>{images}</Array></Attribute></DataObject>'
)
SCAN = (
    '<DataObject ObjectType="DPScannedImage"><Attribute Name="PIM_DP_IMAGE_TYPE">{kind}'
    "</Attribute>{spacings}</DataObject>"
)
SPACING = '<Attribute Name="DICOM_PIXEL_SPACING" PMSVR="IDoubleArray">"{0}" "{0}"</Attribute>'


def philips_xml(*spacings: float) -> str:
    wsi = SCAN.format(kind="WSI", spacings="".join(SPACING.format(s / 1000) for s in spacings))
    label = SCAN.format(kind="LABELIMAGE", spacings=SPACING.format(0.0001))
    return PHILIPS.format(images=label + wsi)


def write_philips(path: Path, picture: np.ndarray) -> np.ndarray:
    """Three levels, each filled up to tiles of 64, a sparse tile, macro and label; returns level 0.

    416 x 602 is 7 x 10 tiles; half of 448 x 640 is 3.5 x 5, a quarter 1.75 x 2.5.
    """
    full = np.pad(picture, ((0, -413 % 64), (0, -602 % 64), (0, 0)), mode="edge")
    options = {"photometric": "rgb", "compression": "zlib", "metadata": None}
    with tifffile.TiffWriter(path) as writer:
        for step in (1, 2, 4):
            level = full[::step, ::step]
            padded = np.pad(
                level,
                ((0, -level.shape[0] % 64), (0, -level.shape[1] % 64), (0, 0)),
                constant_values=255,
            )
            text = philips_xml(0.25, 0.5, 1.0) if step == 1 else f"level={step // 2} mag=20"
            writer.write(
                padded, tile=(64, 64), software="Philips DP v1.0", description=text, **options
            )
        macro = np.zeros((1500, 1400, 3), np.uint8)
        writer.write(macro, description="Macro", **options)
        writer.write(macro[:300, :200], description="Label", **options)
    return full


def test_philips(tmp_path: Path, picture: np.ndarray) -> None:
    full = write_philips(tmp_path / "a.tiff", picture)
    with open_slide(tmp_path / "a.tiff") as slide:
        sizes = [(level.width, level.height, level.downsample) for level in slide.levels]
        assert sizes == [(640, 448, 1.0), (320, 224, 2.0), (160, 112, 4.0)]
        assert slide.mpp == pytest.approx(0.25)
        for index, step in enumerate((1, 2, 4)):
            level = slide.levels[index]
            window = slide.read_level(0, 0, level.width, level.height, index)
            np.testing.assert_array_equal(window, full[::step, ::step])


@pytest.mark.parametrize("damage", ["</DataObject>", "WSI", '" "'])
def test_broken_philips_xml_tells_no_resolution(
    tiff: Callable[..., Path], picture: np.ndarray, damage: str
) -> None:
    text = philips_xml(0.25).replace(damage, "")
    path = tiff(picture, tile=(64, 64), description=text, metadata=None)
    with open_slide(path) as slide:
        assert slide.mpp is None


def test_pictures_of_an_ome_tiff_that_are_no_slide(tmp_path: Path, picture: np.ndarray) -> None:
    """Bio-Formats keeps label and macro as images of their own, here larger than the slide."""
    path = tmp_path / "a.ome.tif"
    big = np.zeros((900, 1400, 3), np.uint8)
    options = {"photometric": "rgb", "tile": (64, 64)}
    size = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "axes": "YXS"}
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(big, metadata={"axes": "YXS", "Name": "macro image"}, **options)
        writer.write(picture, metadata={**size, "Name": "scan 1"}, **options)
        writer.write(big[:300, :400], metadata={"axes": "YXS", "Name": "Label"}, **options)
    with open_slide(path) as slide:
        assert (slide.width, slide.height, slide.mpp) == (602, 413, 0.5)
        assert len(slide.levels) == 1
        np.testing.assert_array_equal(slide.read_level(0, 0, 602, 413), picture)


@pytest.mark.parametrize("name", ["Macro", "label image", " Thumbnail", "macro 1400x900"])
def test_pictures_of_a_plain_tiff_that_are_no_slide(
    tmp_path: Path, picture: np.ndarray, name: str
) -> None:
    path = tmp_path / "a.tif"
    options = {"photometric": "rgb", "tile": (64, 64), "metadata": None}
    with tifffile.TiffWriter(path) as writer:
        big = np.zeros((900, 1400, 3), np.uint8)
        writer.write(big, description=name, **options)
        writer.write(picture, description="a labelled scan", **options)
        writer.write(big[:450, :700], description=name, subfiletype=1, **options)
    np.testing.assert_array_equal(read_image(path), picture)


def test_a_label_alone_is_what_there_is(
    tiff: Callable[..., Path], picture: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    path = tiff(picture, description="label", metadata=None)
    np.testing.assert_array_equal(read_image(path), picture)
    assert f"{path}: holds nothing but what calls itself a label" in caplog.text


ANISOTROPIC = {"resolution": (40_000, 20_000), "resolutionunit": "CENTIMETER"}
SCREEN = {"resolution": (72, 72), "resolutionunit": "INCH"}


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({}, "does not state its resolution; give it with --mpp"),
        (ANISOTROPIC, r"tells pixels of 0\.25 x 0\.5 um by its resolution tags, which are not squ"),
        (SCREEN, r"tells pixels of 352\.778 x .* um by its resolution tags, which no microscope"),
        (
            {"description": "Aperio \n10x10|MPP = 0.0001", "metadata": None},
            r"tells pixels of 0\.0001 x 0\.0001 um by its Aperio description, which no microscope",
        ),
    ],
)
def test_a_missing_or_impossible_resolution_explains_itself(
    tiff: Callable[..., Path], picture: np.ndarray, tags: dict[str, object], message: str
) -> None:
    path = tiff(picture, **tags)
    with open_slide(path) as slide:
        assert slide.mpp is None
        with pytest.raises(InputError, match=message) as caught:
            slide.at_mpp(0.5)
        assert "--mpp" in str(caught.value)
    with open_slide(path, mpp=0.25) as slide:
        assert slide.at_mpp(0.5).scale == 2


def test_pixels_that_are_not_square_are_not_made_so_by_another_tag(
    tiff: Callable[..., Path], picture: np.ndarray
) -> None:
    size = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5, "axes": "YXS"}
    square = {"resolution": (40_000, 40_000), "resolutionunit": "CENTIMETER"}
    with open_slide(tiff(picture, "a.ome.tif", metadata=size, **square)) as slide:
        assert slide.mpp is None


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jpg"])
def test_a_colour_profile_is_noted(
    tmp_path: Path, picture: np.ndarray, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    if name == "a.tif":
        tifffile.imwrite(tmp_path / name, picture, photometric="rgb", iccprofile=profile)
    else:
        Image.fromarray(picture).save(tmp_path / name, icc_profile=profile)
    with caplog.at_level(logging.DEBUG, "genselfdiff"), open_slide(tmp_path / name):
        pass
    assert f"has an ICC profile of {len(profile)} bytes; it is not applied" in caplog.text


@pytest.mark.parametrize("compression", ["lzw", "zlib", "zstd", "packbits", "webp", "jpeg2000"])
@pytest.mark.parametrize("layout", [{"tile": (64, 64)}, {"rowsperstrip": 16}])
def test_compressions(
    tiff: Callable[..., Path], picture: np.ndarray, compression: str, layout: dict[str, object]
) -> None:
    lossy = {"webp": {"lossless": True}, "jpeg2000": {"level": 0, "reversible": True}}
    arguments = {"compressionargs": lossy[compression]} if compression in lossy else {}
    path = tiff(picture, compression=compression, bigtiff=True, **layout, **arguments)
    np.testing.assert_array_equal(read_image(path), picture)
