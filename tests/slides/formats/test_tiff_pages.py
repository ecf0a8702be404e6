"""TIFFs of several images: which one is read, and what is told of the others."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile

from genselfdiff.errors import InputError
from genselfdiff.masks import MaskReader
from genselfdiff.slides import open_slide, read_image

OPTIONS = {"photometric": "rgb", "tile": (64, 64), "metadata": None}


def ome(*images: tuple[str, tuple[int, int], float]) -> str:
    """OME-XML of RGB images: name, width and height, um/px."""
    described = "".join(
        f'<Image ID="Image:{i}" Name="{name}"><Pixels ID="Pixels:{i}" DimensionOrder="XYCZT"'
        f' Type="uint8" SizeX="{width}" SizeY="{height}" SizeC="3" SizeZ="1" SizeT="1"'
        f' PhysicalSizeX="{mpp}" PhysicalSizeY="{mpp}"><Channel ID="Channel:{i}:0"'
        f' SamplesPerPixel="3"/><TiffData IFD="{i}" PlaneCount="1"/></Pixels></Image>'
        for i, (name, (width, height), mpp) in enumerate(images)
    )
    return f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">{described}</OME>'


def write(path: Path, pages: Sequence[np.ndarray], description: str = "") -> Path:
    with tifffile.TiffWriter(path) as writer:
        for index, pixels in enumerate(pages):
            writer.write(pixels, description=description if index == 0 else "", **OPTIONS)
    return path


def test_another_image_of_an_ome_tiff_is_no_level(
    tmp_path: Path, picture: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    other = np.zeros((207, 301, 3), np.uint8)
    xml = ome(("region 1", (602, 413), 0.25), ("region 2", (301, 207), 0.25))
    path = write(tmp_path / "a.ome.tif", [picture, other], xml)
    with open_slide(path) as slide:
        assert len(slide.levels) == 1
    told = f"{path}: the image of 602 x 413 pixels is read, others in the file are not: 301 x 207"
    assert caplog.messages == [told]


def test_levels_of_an_ome_tiff_beside_another_image(tmp_path: Path, picture: np.ndarray) -> None:
    """SubIFDs are the main image's own, though the other image has the size of one."""
    path = tmp_path / "a.ome.tif"
    xml = ome(("region 1", (602, 413), 0.25), ("region 2", (301, 207), 0.25))
    with tifffile.TiffWriter(path) as writer:
        writer.write(picture, subifds=1, description=xml, **OPTIONS)
        writer.write(picture[::2, ::2], subfiletype=1, **OPTIONS)
        writer.write(np.zeros((207, 301, 3), np.uint8), **OPTIONS)
    with open_slide(path) as slide:
        level = slide.read_level(0, 0, 301, 207, 1)
    np.testing.assert_array_equal(level, picture[::2, ::2])


def test_pages_that_ome_xml_does_not_name_are_levels(tmp_path: Path, picture: np.ndarray) -> None:
    """So does libvips write pyramids."""
    pages = [picture, picture[::2, ::2]]
    path = write(tmp_path / "a.ome.tif", pages, ome(("Image", (602, 413), 0.25)))
    with open_slide(path) as slide:
        assert [level.width for level in slide.levels] == [602, 301]


@pytest.mark.parametrize(
    ("name", "mpp"),
    [("macro_image", 0.25), ("LabelImage", 0.25), ("Slide Label", 0.25), ("Image 2", 16.0)],
)
def test_photographs_by_their_name_or_scale(
    tmp_path: Path, picture: np.ndarray, name: str, mpp: float
) -> None:
    big = np.zeros((900, 1400, 3), np.uint8)
    xml = ome((name, (1400, 900), mpp), ("Image 1", (602, 413), 0.25))
    path = write(tmp_path / "a.ome.tif", [big, picture], xml)
    np.testing.assert_array_equal(read_image(path), picture)


def test_a_larger_page_in_strips_beside_tiles_is_a_photograph(
    tmp_path: Path, picture: np.ndarray
) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(picture, **OPTIONS)
        writer.write(np.zeros((900, 1400, 3), np.uint8), photometric="rgb", metadata=None)
    np.testing.assert_array_equal(read_image(path), picture)


def test_strips_with_their_own_level_in_tiles(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(picture, photometric="rgb", metadata=None)
        writer.write(picture[::2, ::2], **OPTIONS)
    np.testing.assert_array_equal(read_image(path), picture)


@pytest.mark.parametrize("shape", [(3, 40, 50), (2, 3, 40, 50), (3, 2, 40, 50), (5, 40, 50)])
@pytest.mark.parametrize("truncated", [False, True])
def test_grey_pages_that_may_be_colours_are_refused(
    tmp_path: Path, shape: tuple[int, ...], truncated: bool
) -> None:
    """Arrays of channels, as tifffile writes them, with a directory for each plane or for one."""
    path = tmp_path / "a.tif"
    stack = np.zeros(shape, np.uint8)
    tifffile.imwrite(path, stack, photometric="minisblack", truncate=truncated)
    count = stack.size // 2000
    with pytest.raises(
        InputError, match=rf"cannot be read: it holds {count} grey images of one si"
    ):
        open_slide(path)


def test_channels_of_imagej_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((3, 40, 50), np.uint8), imagej=True, metadata={"axes": "CYX"})
    with pytest.raises(InputError, match="it holds 3 grey images of one size"):
        open_slide(path)


@pytest.mark.parametrize("kind", ["ImageJ", "OME", "RGB", "ImageJ without directories"])
def test_the_first_plane_of_a_stack_is_read_and_told(
    tmp_path: Path, picture: np.ndarray, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / ("a.ome.tif" if kind == "OME" else "a.tif")
    if kind == "RGB":
        write(path, [picture, 255 - picture, picture])
    else:
        stack = np.stack([picture[..., 0], 255 - picture[..., 0], picture[..., 0]])
        truncate = {"truncate": True} if kind.endswith("directories") else {}
        tifffile.imwrite(path, stack, imagej=kind != "OME", metadata={"axes": "ZYX"}, **truncate)
    seen = read_image(path)
    np.testing.assert_array_equal(seen[..., 0], picture[..., 0])
    assert "holds 3 images of 602 x 413 pixels, as a stack does; only the first" in caplog.text


def test_a_stack_is_no_mask(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "m.tif", np.zeros((2, 40, 50), np.uint8), photometric="minisblack")
    with pytest.raises(InputError, match="holds several images of 50 x 40 pixels; save the one th"):
        MaskReader(tmp_path / "m.tif")


def test_one_image_is_no_stack(
    tmp_path: Path, picture: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", picture[..., 0])
    planes = np.moveaxis(picture, -1, 0)
    tifffile.imwrite(tmp_path / "b.tif", planes, photometric="rgb", planarconfig="separate")
    tifffile.imwrite(tmp_path / "c.tif", picture[..., 0], imagej=True)
    description = json.dumps({"shape": [0, 0], "other": 1})
    tifffile.imwrite(tmp_path / "d.tif", picture[..., 0], description=description, metadata=None)
    for name in "abcd":
        read_image(tmp_path / f"{name}.tif")
    assert not caplog.records
