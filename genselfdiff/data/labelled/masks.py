"""Reading one mask: the class, or the number of the object, that each pixel has."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageOps

from genselfdiff.errors import InputError, one_line
from genselfdiff.input_files import open_input
from genselfdiff.slides.formats import check_directories, require_one_mask
from genselfdiff.slides.stored import is_absurd, page_orientation, palette_of, turned
from genselfdiff.storage.stored_file import LocalFile
from genselfdiff.text import counted

MASK_SUFFIXES = (".png", ".tif", ".tiff")

MAX_MASK_PIXELS = 1 << 28

MAX_MASK_BYTES = 1 << 30
"""Of its pixels, decoded."""

_SPREAD = {"L;2": 85, "L;4": 17}
"""What Pillow multiplies grey levels of 2 and 4 bits by, to fill 8."""

_FLAT_SHARE = 0.25
"""Of the pixels at soft edges, at most this many lie within an area of their value."""

_FULL_SHARE = 0.1
"""Of the pixels of objects with soft edges, at least this many are wholly inside."""

Values = NDArray[np.integer]
Bool = NDArray[np.bool_]


class Mask(NamedTuple):
    """A mask, and how it was read where that is not as usual.

    Attributes:
        values: (H, W) as stored.
        oddity: how its pixels were got, for people; empty: nothing is odd.
    """

    values: Values
    oddity: str = ""


class _Stored(NamedTuple):
    """``pixels`` (H, W) or (H, W, channels); ``colours`` (n, 4) RGBA of their values, if told."""

    pixels: NDArray[Any]
    colours: NDArray[np.integer] | None = None


def read_mask(path: Path) -> Values:
    """Read an integer mask, (H, W) in its stored type, see `open_mask`."""
    return open_mask(path).values


def open_mask(path: Path, *, by_colours: bool = True) -> Mask:
    """Read an integer mask: PNG or TIFF, one channel or three equal.

    A palette image gives its indices. But where the palette has no black for 0 and black for
    another value, as that of a program that sorts colours by their frequency, the colours decide:
    if they are black and white alone, black is 0 and white 255; else nobody knows what is meant.
    TIFFs of which 0 is white are palettes of that kind. A 0 that is transparent is the background.
    Of a picture in one colour its transparency is the mask.

    Args:
        path: the file.
        by_colours: False: always the stored values.

    Raises:
        InputError: the file cannot be read, is not such a mask, or its values can mean two things.
    """
    try:
        is_tiff = path.suffix.lower() in (".tif", ".tiff")
        stored = (_read_tiff if is_tiff else _read_picture)(path)
    except InputError:
        raise
    # Decoders raise whatever a damaged file makes them stumble over.
    except Exception as error:
        raise InputError(
            f"{path}: the mask cannot be read ({one_line(error)}): replace the file"
        ) from error
    values, oddity = _one_channel(path, stored.pixels)
    if values.min() < 0:
        raise InputError(f"{path}: negative values are no class numbers: renumber them from 0")
    if stored.colours is None or not by_colours:
        return Mask(values, oddity)
    return _as_shown(path, values, stored.colours)


def has_soft_edges(values: Values, ignore_label: int | None = None) -> bool:
    """Whether what lies between 0 and the largest value of the type are but edges, anti-aliased.

    Numbers of objects lie between them too, but fill areas.
    """
    top = np.iinfo(values.dtype).max
    inside = values == top
    if ignore_label == top or not inside.any():
        return False
    between = (values > 0) & ~inside
    if ignore_label is not None:
        between &= values != ignore_label
    count, full = np.count_nonzero(between), np.count_nonzero(inside)
    flat = between[:-1, :-1].copy()
    flat &= (values[:-1, :-1] == values[1:, :-1]) & (values[:-1, :-1] == values[:-1, 1:])
    is_edge = np.count_nonzero(flat) <= _FLAT_SHARE * count
    return bool(count and is_edge and full >= _FULL_SHARE * (count + full))


def is_foreground(values: Values, ignore_label: int | None = None) -> Bool:
    """(H, W) where a mask of foreground is that: not 0; of soft edges from half the range on."""
    if has_soft_edges(values, ignore_label):
        return values > np.iinfo(values.dtype).max // 2
    return values != 0


def _read_picture(path: Path) -> _Stored:
    with open_input(path) as stream, Image.open(stream) as file:
        _require_size(path, *file.size)
        layout = str(file.tile[0][3])  # of the pixels in the file
        if layout.endswith(";16B") and not layout.startswith("I;"):  # read as 8 bits
            raise InputError(
                f"{path}: several channels of 16 bits are no mask: give one channel of integer"
                " class numbers"
            )
        ImageOps.exif_transpose(file, in_place=True)
        if layout in _SPREAD:
            return _Stored(np.asarray(file) // _SPREAD[layout])
        colours = None
        if file.mode == "P":
            file.apply_transparency()
            colours = np.array(file.getpalette("RGBA"), np.int64).reshape(-1, 4)
        return _Stored(np.asarray(file), colours)


def _read_tiff(path: Path) -> _Stored:
    with ExitStack() as opened:
        stored = opened.enter_context(LocalFile(path))
        check_directories(stored)
        file = opened.enter_context(tifffile.TiffFile(stored.stream()))
        page = file.pages.first
        width, height, samples = page.imagewidth, page.imagelength, page.samplesperpixel
        _require_size(path, width, height)
        _require_size(path, page.tilewidth, page.tilelength)
        if is_absurd(width, height, stored.size):
            raise InputError(f"{path}: claims {width} x {height} pixels, but is far too small")
        if page.nbytes > MAX_MASK_BYTES or samples > 4:
            raise InputError(f"{path}: {samples} channels of {page.dtype} are no mask: give one")
        require_one_mask(file, path)
        pixels = page.asarray()
        if samples > 1 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
            pixels = np.moveaxis(pixels, 0, -1)
        shape = (height, width) if samples == 1 else (height, width, samples)
        return _Stored(turned(pixels.reshape(shape), page_orientation(page)), _colours(page))


def _colours(page: tifffile.TiffPage) -> NDArray[np.integer] | None:
    """The opaque colours of the values from 0 on, in 8 bits; None where 0 is black."""
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
        colours = palette_of(page).astype(np.int64)
    elif page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and page.bitspersample <= 16:
        ramp = np.arange(2**page.bitspersample)[::-1] * 255 // (2**page.bitspersample - 1)
        colours = np.repeat(ramp[:, None], 3, 1)
    else:
        return None
    return np.pad(colours, ((0, 0), (0, 1)), constant_values=255)


def _one_channel(path: Path, pixels: NDArray[Any]) -> Mask:
    oddity = ""
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8)
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4) and pixels.size:
        colour, alpha = pixels[..., :-1], pixels[..., -1]
        varies = (alpha != alpha[0, 0]).any()
        if (colour == colour[0, 0]).all() and (varies or not alpha.any()):
            pixels = alpha
            if varies or colour.any():
                oddity = "is read from its transparency, as its colour is one"
        elif varies and ((alpha == 0) & (colour != 0).any(2)).any():
            raise InputError(
                f"{path}: is transparent where it is not 0: save it without transparency"
            )
        else:
            pixels = colour
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    if pixels.ndim != 2 or pixels.dtype.kind not in "ui" or pixels.size == 0:
        kind = f"{pixels.dtype} of shape {'x'.join(map(str, pixels.shape))}"
        raise InputError(
            f"{path}: {kind} is no label mask: give one channel of integer class numbers, or say"
            " with 'gsd data import folder' what its colours mean"
        )
    return Mask(pixels, oddity)


def _as_shown(path: Path, values: Values, colours: NDArray[np.integer]) -> Mask:
    used = np.unique(values)
    if used[-1] >= len(colours):
        there = counted(len(colours), "colour")
        raise InputError(f"{path}: holds {used[-1]}, but its palette has {there}")
    black, white = ((colours[:, :3] == level).all(1) for level in (0, 255))
    hidden = colours[:, 3] == 0
    if hidden[0]:
        return Mask(values)
    if hidden[used].any():
        raise InputError(
            f"{path}: its palette hides {used[hidden[used]][0]}, but shows 0: save the mask without"
            " transparency"
        )
    if black[0] or not black.any():
        return Mask(values)
    is_plain = black | white
    if is_plain.all() or (black[used].any() and is_plain[used].all()):
        shown = np.where(white, 255, 0).astype(np.uint8)
        return Mask(shown[values], "is read by its colours, black as 0, as it stores white as 0")
    if not black[used].any():
        return Mask(values)
    red, green, blue, _ = colours[0].tolist()
    raise InputError(
        f"{path}: its palette shows {used[black[used]][0]} in black, but 0 in"
        f" #{red:02x}{green:02x}{blue:02x}: say with 'gsd data import folder' what its colours mean"
    )


def _require_size(path: Path, width: int, height: int) -> None:
    if width * height > MAX_MASK_PIXELS:
        raise InputError(f"{path}: {width} x {height} pixels are too many: cut the mask into parts")
