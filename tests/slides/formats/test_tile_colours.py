"""What colours the JPEGs and JPEG 2000s in a TIFF hold is told by each of them."""

import io
from collections.abc import Sequence
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from genselfdiff.slides import read_image


def jfif(pixels: np.ndarray, subsampling: int = 0) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=97, subsampling=subsampling)
    return file.getvalue()


def exif(pixels: np.ndarray) -> bytes:
    """YCbCr, of which nothing tells but Exif's own definition."""
    content = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\0\0\0\0\0"
    segment = b"\xff\xe1" + (len(content) + 2).to_bytes(2, "big") + content
    return b"\xff\xd8" + segment + silent_ycbcr(pixels)[2:]


def silent_ycbcr(pixels: np.ndarray, subsampling: int = 0) -> bytes:
    data = jfif(pixels, subsampling)
    length = int.from_bytes(data[4:6], "big")
    return data[:2] + data[4 + length :]


def adobe(pixels: np.ndarray, transform: int) -> bytes:
    content = b"Adobe\0d\0\0\0\0" + bytes([transform])
    segment = b"\xff\xee" + (len(content) + 2).to_bytes(2, "big") + content
    coded = silent_rgb(pixels) if transform == 0 else silent_ycbcr(pixels)
    return b"\xff\xd8" + segment + coded[2:]


def silent_rgb(pixels: np.ndarray) -> bytes:
    """As Aperio stores it: components 1, 2, 3 that are red, green and blue."""
    file = io.BytesIO()
    ycbcr = Image.frombytes("YCbCr", pixels.shape[1::-1], pixels.tobytes())
    ycbcr.save(file, "JPEG", quality=97, subsampling=0)
    data = file.getvalue()
    return data[:2] + data[4 + int.from_bytes(data[4:6], "big") :]


KINDS = {
    "JFIF": jfif,
    "Exif": exif,
    "Aperio": silent_rgb,
    "Adobe RGB": lambda pixels: adobe(pixels, 0),
    "Adobe YCbCr": lambda pixels: adobe(pixels, 1),
}


def write(
    path: Path,
    tiles: Sequence[bytes],
    side: int,
    compression: int,
    tag: int = 2,
    **more: object,
) -> Path:
    """A row of square tiles, whose colours the page tells by ``tag``."""
    shape = (side, side * len(tiles), 3)
    kind = "minisblack" if tag == 1 else "rgb"
    options = {"dtype": np.uint8, "tile": (side, side), "photometric": kind, "metadata": None}
    options["planarconfig"] = 1
    if tag == 6:
        options["extratags"] = [(530, "H", 2, (1, 1), True)]  # chroma of full size
    with tifffile.TiffWriter(path) as writer:
        writer.write(iter(tiles), shape=shape, compression=compression, **options, **more)
    with tifffile.TiffFile(path) as file:
        at = file.pages[0].tags["PhotometricInterpretation"].valueoffset
    data = bytearray(path.read_bytes())
    data[at] = tag  # tifffile would have RGB in JPEG tagged as YCbCr
    path.write_bytes(data)
    return path


def cut(picture: np.ndarray, count: int) -> list[np.ndarray]:
    return [np.ascontiguousarray(picture[:128, 128 * i : 128 * i + 128]) for i in range(count)]


@pytest.mark.parametrize("first", KINDS)
def test_tiles_of_all_kinds_in_one_file(tmp_path: Path, picture: np.ndarray, first: str) -> None:
    kinds = [first, *(kind for kind in KINDS if kind != first)][:4]
    pieces = cut(picture, 4)
    tiles = [KINDS[kind](piece) for kind, piece in zip(kinds, pieces, strict=True)]
    pixels = read_image(write(tmp_path / "a.tif", tiles, 128, 7))
    for index, (kind, piece) in enumerate(zip(kinds, pieces, strict=True)):
        seen = pixels[:, 128 * index : 128 * index + 128].astype(int)
        assert abs(seen - piece).mean() < 3, kind


@pytest.mark.parametrize("kind", [jfif, silent_ycbcr])
def test_smaller_chroma_is_ycbcr(tmp_path: Path, picture: np.ndarray, kind: object) -> None:
    (piece,) = cut(picture, 1)
    pixels = read_image(write(tmp_path / "a.tif", [kind(piece, 2)], 128, 7))
    assert abs(pixels.astype(int).mean(axis=(0, 1)) - piece.mean(axis=(0, 1))).max() < 2


def test_three_samples_of_jpeg_tagged_as_grey(tmp_path: Path, picture: np.ndarray) -> None:
    """So libtiff writes them: it leaves their colours alone, and tells nothing of them."""
    tiles = [silent_rgb(piece) for piece in cut(picture, 2)]
    path = write(tmp_path / "a.tif", tiles, 128, 7, tag=1, extrasamples=[0, 0])
    assert abs(read_image(path).astype(int) - picture[:128, :256]).mean() < 3


def test_the_first_tile_is_not_stored(tmp_path: Path, picture: np.ndarray) -> None:
    pieces = cut(picture, 3)
    tiles = [b"", *(jfif(piece) for piece in pieces[1:])]
    pixels = read_image(write(tmp_path / "a.tif", tiles, 128, 7))
    assert (pixels[:, :128] == 255).all()
    assert abs(pixels[:, 128:].astype(int) - picture[:128, 128:384]).mean() < 3


OME = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"></OME>'


@pytest.mark.parametrize("reversible", [True, False])
@pytest.mark.parametrize("description", ["", "Aperio x\n128x128", OME])
def test_jpeg_2000_that_tells_its_colours(
    tmp_path: Path, picture: np.ndarray, description: str, reversible: bool
) -> None:
    """Under 33003, which Bio-Formats gives to RGB with a colour transform, Aperio to YCbCr."""
    tiles = [
        imagecodecs.jpeg2k_encode(
            piece, codecformat="j2k", mct=True, level=0 if reversible else 60, reversible=reversible
        )
        for piece in cut(picture, 2)
    ]
    path = write(tmp_path / "a.tif", tiles, 128, 33003, description=description)
    assert abs(read_image(path).astype(int) - picture[:128, :256]).max() <= (0 if reversible else 9)


@pytest.mark.parametrize(
    ("description", "tag", "is_ycbcr"),
    [("Aperio x\n128x128", 2, True), (OME, 2, False), (OME, 6, True)],
)
def test_jpeg_2000_that_does_not_tell(
    tmp_path: Path, picture: np.ndarray, description: str, tag: int, is_ycbcr: bool
) -> None:
    stored = np.asarray(Image.fromarray(picture).convert("YCbCr")) if is_ycbcr else picture
    tiles = [
        imagecodecs.jpeg2k_encode(piece, codecformat="j2k", mct=False, level=0)
        for piece in cut(stored, 2)
    ]
    path = write(tmp_path / "a.ome.tif", tiles, 128, 33003, tag, description=description)
    assert abs(read_image(path).astype(int) - picture[:128, :256]).max() <= 3
