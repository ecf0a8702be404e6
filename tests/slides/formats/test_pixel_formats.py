"""Colours, bits and alpha that TIFFs and PNGs tell in unusual ways: right, refused or told."""

import logging
import struct
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from genselfdiff.errors import InputError
from genselfdiff.masks import MaskReader
from genselfdiff.slides import TissueMap, open_slide, read_image

FOUR = [(255, 255, 255), (90, 60, 140), (0, 0, 0), (40, 160, 80)]


def rgba(picture: np.ndarray, *samples: int) -> np.ndarray:
    """The picture with further samples of these values."""
    more = [np.full((*picture.shape[:2], 1), value, picture.dtype) for value in samples]
    return np.concatenate([picture, *more], axis=-1)


def set_tag(path: Path, code: int, value: int) -> None:
    """Change the first value of a SHORT tag of the first page."""
    with tifffile.TiffFile(path) as file:
        at = file.pages[0].tags[code].valueoffset
    data = bytearray(path.read_bytes())
    struct.pack_into("<H", data, at, value)
    path.write_bytes(data)


@pytest.mark.parametrize("step", [1, 257], ids=["8 bits", "16 bits"])
@pytest.mark.parametrize("layout", [{"tile": (64, 64)}, {"rowsperstrip": 9}])
def test_colour_maps_of_8_and_16_bits(
    tiff: Callable[..., Path], step: int, layout: dict[str, object]
) -> None:
    colours = np.zeros((3, 256), np.uint16)
    colours[:, :4] = np.transpose(FOUR)
    labels = np.arange(70 * 90, dtype=np.uint8).reshape(70, 90) // 7 % 4
    path = tiff(labels, photometric="palette", colormap=colours * step, metadata=None, **layout)
    np.testing.assert_array_equal(read_image(path), np.array(FOUR, np.uint8)[labels])
    with MaskReader(path) as reader:
        assert reader.palette[:4] == FOUR


def test_a_palette_of_two_entries(tiff: Callable[..., Path]) -> None:
    bits = np.arange(70 * 90).reshape(70, 90) % 7 < 3
    colours = np.array([[255, 9], [255, 8], [0, 7]]) * 257
    tags = [(320, "H", 6, tuple(colours.ravel().tolist()), True)]
    path = tiff(bits, photometric="minisblack", metadata=None, extratags=tags)
    set_tag(path, 262, 3)
    expected = np.where(bits[..., None], (9, 8, 7), (255, 255, 0))
    np.testing.assert_array_equal(read_image(path), expected)


@pytest.mark.parametrize("samples", [(), (255,)], ids=["three", "with alpha"])
@pytest.mark.parametrize("layout", [{"tile": (64, 64)}, {}])
def test_three_samples_tagged_as_grey(
    tiff: Callable[..., Path],
    picture: np.ndarray,
    samples: tuple[int, ...],
    layout: dict[str, object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    pixels = rgba(picture, *samples)
    extra = [0, 0, *(2 for _ in samples)]
    path = tiff(pixels, photometric="minisblack", planarconfig=1, extrasamples=extra, **layout)
    np.testing.assert_array_equal(read_image(path), picture)
    assert "three samples are tagged as grey; they are taken for red" in caplog.text


@pytest.mark.parametrize(
    ("count", "photometric", "extra"),
    [
        (2, "minisblack", [0]),
        (4, "minisblack", [0, 0, 0]),
        (3, "miniswhite", [0, 0]),
        (3, "minisblack", [2, 0]),
        (5, "minisblack", [0, 0, 0, 2]),
    ],
)
def test_samples_that_nobody_names_are_refused(
    tiff: Callable[..., Path], count: int, photometric: str, extra: list[int]
) -> None:
    pixels = np.zeros((20, 30, count), np.uint8)
    path = tiff(pixels, photometric=photometric, planarconfig=1, extrasamples=extra)
    with pytest.raises(InputError, match=rf"cannot be read: its {count} samples are tagged as gr"):
        open_slide(path)


@pytest.mark.parametrize("kind", ["assocalpha", "unassalpha"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_with_alpha(
    tiff: Callable[..., Path], picture: np.ndarray, kind: str, dtype: type[np.unsignedinteger]
) -> None:
    full = np.iinfo(dtype).max
    pixels = np.zeros((20, 30, 2), dtype)
    pixels[:10] = full // 5, full  # opaque; below it everything is transparent
    path = tiff(pixels, photometric="minisblack", planarconfig=1, extrasamples=[kind])
    assert (read_image(path)[:10] == 51).all()
    assert (read_image(path)[10:] == 255).all()


@pytest.mark.parametrize("layout", [{"planarconfig": 1}, {"planarconfig": 2, "tile": (64, 64)}])
def test_alpha_behind_another_sample(
    tiff: Callable[..., Path], picture: np.ndarray, layout: dict[str, object]
) -> None:
    pixels = rgba(picture, 7, 255)
    pixels[100:, :, 4] = 0
    if layout["planarconfig"] == 2:
        pixels = np.moveaxis(pixels, -1, 0)
    path = tiff(np.ascontiguousarray(pixels), extrasamples=[0, 2], **layout)
    np.testing.assert_array_equal(read_image(path)[:100], picture[:100])
    assert (read_image(path)[100:] == 255).all()


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_fewer_bits_in_16_that_are_told(
    tiff: Callable[..., Path], picture: np.ndarray, bits: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "genselfdiff")
    white = 2**bits - 1
    pixels = np.rint(picture / 255 * white).astype(np.uint16)
    tags = [(281, "H", 3, (white,) * 3, True)]
    files = [
        tiff(pixels, "a.tif", extratags=tags, metadata=None, tile=(64, 64)),
        tiff(pixels, "b.tif", extratags=tags, metadata=None, byteorder=">"),
        tiff(pixels, "c.ome.tif", metadata={"axes": "YXS", "SignificantBits": bits}),
    ]
    for path in files:
        np.testing.assert_array_equal(read_image(path), picture)
        assert f"{path}: 16-bit pixels are read in 8 bits, 0 to {white} as 0 to 255" in caplog.text


def test_the_brightest_pixel_is_no_number_of_bits(
    tiff: Callable[..., Path], picture: np.ndarray
) -> None:
    tags = [(281, "H", 1, 60_000, True)]
    path = tiff(picture.astype(np.uint16) * 257, extratags=tags, metadata=None)
    np.testing.assert_array_equal(read_image(path), picture)


@pytest.mark.parametrize("layout", [{"tile": (64, 64)}, {}])
def test_more_than_is_told_is_refused(
    tiff: Callable[..., Path], picture: np.ndarray, layout: dict[str, object]
) -> None:
    tags = [(281, "H", 1, 4095, True)]
    path = tiff(picture.astype(np.uint16) * 257, extratags=tags, metadata=None, **layout)
    with pytest.raises(InputError, match=r"it holds \d+, and its tags tell at most 4095"):
        read_image(path)


@pytest.mark.parametrize("name", ["a.tif", "a.png", "colour.png"])
@pytest.mark.parametrize("bits", [12, 16])
def test_16_bits_are_told(
    tmp_path: Path, picture: np.ndarray, name: str, bits: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "genselfdiff")
    pixels = picture.astype(np.uint16) << (bits - 8)
    path = tmp_path / name
    if name == "a.tif":
        tifffile.imwrite(path, pixels, photometric="rgb")
    elif name == "a.png":
        Image.fromarray(pixels[..., 0]).save(path)
    else:
        path.write_bytes(imagecodecs.png_encode(pixels))
    read_image(path)
    (told,) = caplog.messages
    if bits == 16:
        assert told == f"{path}: 16-bit pixels are read in 8 bits, 0 to 65535 as 0 to 255"
    else:
        assert "its 16-bit pixels reach about 38" in told
        assert caplog.records[0].levelno == logging.WARNING


def test_luma_of_ycbcr(tiff: Callable[..., Path], picture: np.ndarray) -> None:
    """By Rec. 709, as YCbCrCoefficients can tell."""
    red, green, blue = np.moveaxis(picture.astype(float), -1, 0)
    y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    cb, cr = (blue - y) / (2 - 2 * 0.0722) + 128, (red - y) / (2 - 2 * 0.2126) + 128
    stored = np.rint(np.stack([y, cb, cr], axis=-1)).clip(0, 255).astype(np.uint8)
    luma = (2126, 10_000, 7152, 10_000, 722, 10_000)
    tags = [(529, "2I", 3, luma, True)]
    path = tiff(stored, photometric="ycbcr", extratags=tags, metadata=None, tile=(64, 64))
    assert abs(read_image(path).astype(int) - picture).max() <= 2
    video = [*tags, (532, "2I", 6, (16, 1, 235, 1, 128, 1, 240, 1, 128, 1, 240, 1), True)]
    path = tiff(stored, photometric="ycbcr", extratags=video, metadata=None)
    with pytest.raises(InputError, match="cannot be read: its YCbCr has a ReferenceBlackWhite"):
        open_slide(path)


def test_ycbcr_in_planes_of_jpeg(tmp_path: Path, picture: np.ndarray) -> None:
    """Each plane is a grey JPEG of its own: nobody but the tag knows that it is YCbCr."""
    stored = np.asarray(Image.fromarray(picture).convert("YCbCr"))
    planes = np.ascontiguousarray(np.moveaxis(stored, -1, 0))
    path = tmp_path / "a.tif"
    options = {"planarconfig": 2, "compression": "jpeg", "compressionargs": {"level": 99}}
    tifffile.imwrite(path, planes, photometric="rgb", tile=(64, 64), **options)
    set_tag(path, 262, 6)
    assert abs(read_image(path).astype(int) - picture).mean() < 2


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.float16, np.float32, np.uint32])
def test_other_types_are_refused(tiff: Callable[..., Path], dtype: type[np.number]) -> None:
    path = tiff(np.zeros((20, 30, 3), dtype), photometric="rgb")
    with pytest.raises(InputError, match=rf"pixels are of type {np.dtype(dtype)}, \d+ bits; unsi"):
        open_slide(path)


def test_samples_of_different_sizes_are_refused(
    tiff: Callable[..., Path], picture: np.ndarray
) -> None:
    path = tiff(picture, tile=(64, 64))
    set_tag(path, 258, 16)
    with pytest.raises(InputError, match=r"a\.tif|slide\.tif"):
        open_slide(path)


def test_cmyk_is_refused(tiff: Callable[..., Path], picture: np.ndarray) -> None:
    path = tiff(rgba(picture, 0), photometric="separated")
    with pytest.raises(
        InputError, match=r"cannot be read: its 4 sample.* are neither grey nor RGB"
    ):
        open_slide(path)


def test_a_codestream_of_16_bits_in_a_page_of_8(tmp_path: Path, picture: np.ndarray) -> None:
    tile = imagecodecs.jpeg2k_encode(picture[:64, :64].astype(np.uint16) * 257, level=0)
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        options = {"photometric": "rgb", "tile": (64, 64), "compression": 34712}
        writer.write(iter([tile]), shape=(64, 64, 3), dtype=np.uint8, **options)
    with pytest.raises(InputError, match=r"cannot be decoded .*uint16"):
        read_image(path)


def write_mask(path: Path, colours: np.ndarray, alpha: np.ndarray) -> Path:
    pixels = np.dstack([colours, colours, colours, alpha]).astype(np.uint8)
    if path.suffix == ".png":
        Image.fromarray(pixels).save(path)
    else:
        tifffile.imwrite(path, pixels, photometric="rgb", extrasamples=[2], tile=(16, 16))
    return path


@pytest.mark.parametrize("name", ["m.png", "m.tif"])
def test_alpha_of_a_tissue_mask(tmp_path: Path, tiff: Callable[..., Path], name: str) -> None:
    slide = tiff(np.full((40, 40, 3), 255, np.uint8))
    inside = np.zeros((40, 40), np.uint8)
    inside[:, :16] = 255
    same = [(inside, np.full_like(inside, 255)), (inside, inside)]
    for colours, alpha in same:
        with open_slide(slide) as opened:
            path = write_mask(tmp_path / name, colours, alpha)
            tissue = TissueMap(opened, mask_file=path).mask
            np.testing.assert_array_equal(tissue, inside > 0)
    other = [(np.zeros_like(inside), inside), (np.full_like(inside, 255), inside)]
    for colours, alpha in other:
        with open_slide(slide) as opened:
            path = write_mask(tmp_path / name, colours, alpha)
            with pytest.raises(InputError, match="its alpha channel shows another mask than its"):
                TissueMap(opened, mask_file=path)


def test_masks_of_which_0_is_white_are_refused(tmp_path: Path, tiff: Callable[..., Path]) -> None:
    slide, mask = tiff(np.zeros((40, 40, 3), np.uint8)), tmp_path / "m.tif"
    tifffile.imwrite(mask, np.zeros((40, 40), np.uint8), photometric="miniswhite")
    with open_slide(slide) as opened, pytest.raises(InputError, match="0 is white in it"):
        TissueMap(opened, mask_file=mask)
    with pytest.raises(InputError, match="0 is white in it"):
        MaskReader(mask)
