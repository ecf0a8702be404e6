"""A picture of a slide with its mask laid over, to look at."""

import math
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tifffile import TiffFile, TiffPage

from genselfdiff.errors import InputError, one_line
from genselfdiff.files import atomic_file
from genselfdiff.masks.legend import with_legend
from genselfdiff.masks.mask_reader import MaskReader
from genselfdiff.slides import Slide
from genselfdiff.slides.stored import MAX_PIXELS_AT_ONCE, require_upright
from genselfdiff.text import counted

Uint8 = NDArray[np.uint8]

_OPACITY = 0.35
"""Of the colour inside an object; its outline is opaque."""

_THICKER = 1024
"""Pixels of a picture's longer side from which outlines alone are drawn twice as thick."""

_LONGER_SIDE = 2048
_MAX_PICTURE = 2**26
"""Pixels; some ten bytes are taken for each."""

_ROWS_MIXED = 256
"""Rows that are mixed at once, in floating point."""


def write_overlay(
    slide: Slide,
    mask_path: str | Path,
    output_png: str | Path,
    width: int | None = None,
    *,
    outline: bool = False,
) -> None:
    """Write a thumbnail of the slide with the classes of a mask laid over in their colours.

    A strip below it has the names of the classes but the background's and, where the mask has its
    resolution, a scale bar.

    Args:
        slide, mask_path, outline: see ``draw_overlay``; colours and names are those of the mask.
        output_png: the picture to write.
        width: of the picture in pixels, at most the slide's; None: its longer side is 2048.

    Raises:
        InputError: as ``draw_overlay``; or ``width`` is out of range.
        OutputError: the picture cannot be written.
    """
    side = longer_side(slide, width)
    with MaskReader(mask_path) as mask:
        palette, names, mpp, mask_width = mask.palette, mask.class_names, mask.mpp, mask.width
    overlay = draw_overlay(slide, mask_path, palette, side, outline=outline)
    classes = [*zip(names, palette, strict=False)][1:]
    drawn_mpp = None if mpp is None else mpp * mask_width / overlay.shape[1]
    overlay = with_legend(overlay, classes, drawn_mpp)
    with atomic_file(output_png) as temporary:
        Image.fromarray(overlay).save(temporary, format="PNG")


def longer_side(slide: Slide, width: int | None) -> int:
    """Longer side in pixels of a picture of the slide that is ``width`` wide; None: the usual.

    Raises:
        InputError: ``width`` is below 1, or the picture would not fit into memory.
    """
    if width is None:
        return _LONGER_SIDE
    if width < 1:
        raise InputError(f"{width} pixels is no width of an overlay")
    width = min(width, slide.width)
    height = width * slide.height / slide.width
    if width * height > _MAX_PICTURE:
        most = math.isqrt(int(_MAX_PICTURE * slide.width / slide.height))
        raise InputError(
            f"{slide.path}: an overlay {width} pixels wide is too large: {most} are possible; the"
            " mask itself opens over the slide in QuPath"
        )
    return max(width, math.ceil(height))


def draw_overlay(
    slide: Slide,
    mask_path: str | Path,
    palette: Sequence[tuple[int, int, int]],
    max_side: int,
    *,
    outline: bool = False,
) -> Uint8:
    """Draw the classes of a mask over a thumbnail of its slide, (h, w, 3) uint8 RGB.

    Class 0, the background, is left transparent; objects are tinted and outlined.

    Args:
        slide: the slide.
        mask_path: its mask, as ``MaskWriter`` writes it; of any resolution, the same field.
        palette: (red, green, blue) of each class.
        max_side: longer side of the picture in pixels.
        outline: leave the inside of objects as it is.

    Raises:
        InputError: the mask is not readable, or does not show the same field as the slide.
    """
    picture = slide.thumbnail(max_side)
    labels = _labels(Path(mask_path), slide, picture.shape[1], picture.shape[0])
    highest = int(labels.max())
    if highest >= len(palette):
        given = counted(len(palette), "colour")
        raise InputError(f"{mask_path}: class {highest} is beyond the palette of {given}")
    return lay_over(picture, labels, palette, outline=outline)


def lay_over(
    picture: Uint8,
    labels: Uint8,
    palette: Sequence[tuple[int, int, int]],
    *,
    outline: bool = False,
) -> Uint8:
    """Outline (h, w) ``labels`` on an (h, w, 3) RGB ``picture``, and tint them unless ``outline``.

    Returns:
        A new picture.
    """
    edge = mark_edges(labels)
    if outline and max(labels.shape) >= _THICKER:
        edge |= mark_edges(edge)
    inside = np.float32(0 if outline else _OPACITY)
    mixed = np.empty_like(picture)
    for y in range(0, len(picture), _ROWS_MIXED):
        rows = slice(y, y + _ROWS_MIXED)
        colours = np.asarray(palette, np.float32)[labels[rows]]
        opacity = np.where(edge[rows], np.float32(1), inside) * (labels[rows] > 0)
        mixed[rows] = np.rint(picture[rows] + (colours - picture[rows]) * opacity[..., None])
    return mixed


def mark_edges(labels: NDArray[np.integer] | NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark pixels with a neighbour above, below, left or right of another class."""
    edge = np.zeros(labels.shape, np.bool_)
    differs = labels[1:] != labels[:-1]
    edge[1:] |= differs
    edge[:-1] |= differs
    differs = labels[:, 1:] != labels[:, :-1]
    edge[:, 1:] |= differs
    edge[:, :-1] |= differs
    return edge


def _labels(path: Path, slide: Slide, width: int, height: int) -> Uint8:
    """Read the mask at ``width`` x ``height``, from the smallest page that is as large."""
    try:
        with TiffFile(path) as tiff:
            smaller = tiff.pages[0].pages or ()  # of an OME-TIFF, in SubIFDs
            pages = [page for page in chain(tiff.pages, smaller) if isinstance(page, TiffPage)]
            require_upright(path, pages[0])
            _check_field(path, pages[0], slide)
            large = [page for page in pages if page.imagewidth >= width] or pages[:1]
            page = min(large, key=lambda page: page.imagewidth)
            if page.imagewidth * page.imagelength > MAX_PIXELS_AT_ONCE:
                raise InputError(f"{path}: has no smaller pages; write it with its pyramid")
            stored = page.asarray()
    except InputError:
        raise
    except Exception as error:  # damaged tags fail in many ways inside tifffile
        raise InputError(f"{path}: is no readable mask ({one_line(error)})") from error
    if stored.ndim != 2 or stored.dtype != np.uint8:
        raise InputError(f"{path}: is no mask of class indices")
    rows = (np.arange(height) + 0.5) * stored.shape[0] / height
    columns = (np.arange(width) + 0.5) * stored.shape[1] / width
    return stored[np.ix_(rows.astype(np.intp), columns.astype(np.intp))]


def _check_field(path: Path, page: TiffPage, slide: Slide) -> None:
    if not slide.shows_field_of(page.imagewidth, page.imagelength):
        raise InputError(
            f"{path}: {page.imagewidth} x {page.imagelength} pixels do not show the same field as"
            f" {slide.path} with {slide.width} x {slide.height}"
        )
