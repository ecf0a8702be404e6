"""Micrometres per pixel (mpp) from what files say about themselves.

A resolution is believed only where it has a unit and lies within what microscopes deliver. Many
programs write 72, 96 or 300 dots per inch for the screen or printer; those are 85 um/px and more.
"""

import math
import re
from dataclasses import dataclass, replace

from genselfdiff.slides.stored.lengths import micrometres, number

PLAUSIBLE_MPP = (0.05, 20.0)
"""Range of um/px outside which a stored resolution is taken for a printer's setting."""

_MAX_ANISOTROPY = 0.05
"""Relative difference of horizontal and vertical resolution up to which pixels pass as square."""

_TIFF_UNITS = {2: "in", 3: "cm"}
"""The TIFF resolution units; 1 means without unit."""


@dataclass(frozen=True)
class PixelSize:
    """What a file says of the size of its pixels.

    ``x`` and ``y`` are micrometres across and down, ``source`` tells where in the file.
    """

    x: float
    y: float
    source: str


def believed(*stated: PixelSize | None) -> tuple[float | None, str]:
    """Choose from what a file says in several places, the most trustworthy first.

    A size that no microscope has is a printer's or nobody's, and passed over. Pixels that are not
    square are the file's last word: another place that calls them square would be wrong.

    Returns:
        The micrometres per pixel, or None; and if None, what was not believed and why, or "".
    """
    low, high = PLAUSIBLE_MPP
    doubt = ""
    for size in stated:
        if size is None:
            continue
        told = f"tells pixels of {size.x:g} x {size.y:g} um by its {size.source}"
        if not (low <= size.x <= high and low <= size.y <= high):  # false for NaN
            doubt = doubt or f"{told}, which no microscope has"
        elif abs(size.x - size.y) > _MAX_ANISOTROPY * min(size.x, size.y):
            return None, f"{told}, which are not square: resample it first"
        else:
            return math.sqrt(size.x * size.y), ""
    return None, doubt


def aperio_size(description: str) -> PixelSize | None:
    """Read ``MPP = 0.499`` of an Aperio ImageDescription."""
    if not description.startswith("Aperio"):
        return None
    match = re.search(r"\|\s*MPP\s*=\s*([0-9.,eE+-]+)", description)
    if match is None:
        return None
    value = number(match[1])
    return PixelSize(value, value, "Aperio description")


def imagej_size(description: str, x: float, y: float) -> PixelSize | None:
    """Convert XResolution and YResolution by ``unit=micron`` of an ImageJ description.

    ImageJ counts by that unit, whatever ResolutionUnit says, which has none of microscopes.
    """
    if not description.startswith("ImageJ=") or not (x > 0 and y > 0):
        return None
    units = dict(re.findall(r"^(unit|yunit)=(.*)$", description, re.MULTILINE))
    across = micrometres(units.get("unit"))
    down = micrometres(units.get("yunit", units.get("unit")))
    if across is None or down is None:
        return None
    return PixelSize(across / x, down / y, "ImageJ description")


def tags_size(x: float, y: float, unit: int) -> PixelSize | None:
    """Convert XResolution and YResolution (pixels per ``unit``; 2: inch, 3: cm)."""
    length = micrometres(_TIFF_UNITS.get(unit))
    if length is None or not (x > 0 and y > 0):
        return None
    return PixelSize(length / x, length / y, "resolution tags")


def dpi_size(x: float, y: float) -> PixelSize | None:
    """Convert dots per inch, as Pillow reports PNG's pHYs and JPEG's density."""
    size = tags_size(x, y, 2)
    return size and replace(size, source="dots per inch")
