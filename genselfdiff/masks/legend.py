"""What a picture of classes needs to be understood alone: their names, and how large things are."""

import math
from collections.abc import Sequence
from importlib.resources import as_file, files
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from genselfdiff.text import shown

_PER_LINE = 64
"""Heights of a letter that the width of a picture has."""

_SMALLEST, _LARGEST = 11, 36
"""Letters, in pixels."""

_LONGEST = 200
"""Letters of a name that are looked at."""

_WIDEST_BAR = 0.2
"""Of the width of the picture."""


class _Entry(NamedTuple):
    """A text, and the width and height of the mark before it."""

    text: str
    colour: tuple[int, int, int]
    width: int
    height: int


def with_legend(
    picture: NDArray[np.uint8],
    classes: Sequence[tuple[str, tuple[int, int, int]]],
    mpp: float | None,
) -> NDArray[np.uint8]:
    """Add a white strip below an (h, w, 3) RGB picture: a scale bar, and names with their colours.

    Nothing of the picture is covered. What does not fit into a line goes on in the next, and a name
    that is wider than the picture ends in dots.

    Args:
        picture: the picture.
        classes: name and colour of each class to explain.
        mpp: um per pixel of the picture; None: without a scale bar.
    """
    width = picture.shape[1]
    size = min(max(width // _PER_LINE, _SMALLEST), _LARGEST)
    font = _font(size)
    entries = [_Entry(shown(name), colour, size, size) for name, colour in classes]
    if mpp is not None:
        length, text = scale_bar(width * mpp * _WIDEST_BAR)
        bar = _Entry(text, (0, 0, 0), max(round(length / mpp), 1), max(size // 4, 2))
        entries.insert(0, bar)
    if not entries:
        return picture
    gap, line = size // 2, size * 2
    # Lines are drawn one by one on a strip that has room for one entry in each.
    strip = Image.new("RGB", (width, len(entries) * line), "white")
    pen = ImageDraw.Draw(strip)
    left, middle = gap, size
    for entry in entries:
        text = _shortened(entry.text[:_LONGEST], width - entry.width - 3 * gap, font)
        right = left + entry.width + gap + math.ceil(font.getlength(text))
        if left > gap and right + gap > width:
            left, middle, right = gap, middle + line, right - left + gap
        top = middle - entry.height // 2
        pen.rectangle(
            (left, top, left + entry.width - 1, top + entry.height - 1), fill=entry.colour
        )
        pen.text((left + entry.width + gap, middle), text, fill="black", font=font, anchor="lm")
        left = right + 2 * size
    return np.concatenate([picture, np.asarray(strip)[: middle + size]])


def scale_bar(longest: float) -> tuple[float, str]:
    """Length in um, 1, 2 or 5 times a power of ten up to ``longest``, and what it is called."""
    power = 10.0 ** math.floor(math.log10(longest))
    length = next(n * power for n in (5, 2, 1) if n * power <= longest * (1 + 1e-9))
    return length, f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} \u00b5m"


def _font(size: int) -> ImageFont.FreeTypeFont:
    """The font that comes with matplotlib: it has the letters of many alphabets."""
    with as_file(files("matplotlib") / "mpl-data/fonts/ttf/DejaVuSans.ttf") as path:
        return ImageFont.truetype(path, size)


def _shortened(text: str, width: float, font: ImageFont.FreeTypeFont) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
