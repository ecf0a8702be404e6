"""Micrometres per pixel (mpp) from what files say about themselves.

A resolution is believed only where it has a unit and lies within what microscopes deliver. Many
programs write 72, 96 or 300 dots per inch for the screen or printer; those are 85 um/px and more.
"""

import math
import re
from xml.etree import ElementTree

from genselfdiff.errors import InputError

PLAUSIBLE_MPP = (0.05, 20.0)
"""Range of um/px outside which a stored resolution is taken for a printer's setting."""

MPP_RANGE = (0.01, 100.0)
"""Range of um/px outside which a resolution that a user gives is taken for a mistake."""

MPP_TOLERANCE = 0.1
"""Relative difference up to which two statements of one resolution agree."""

SAME_SCALE = 0.02
"""Relative difference up to which two resolutions are the same: nothing is resampled."""

MAX_ENLARGEMENT = 8.0
"""Images are enlarged at most so much to reach a resolution: beyond it one of both is a mistake."""

BLURRED_ENLARGEMENT = 1.5
"""Enlarging more than this is worth a warning."""

_MAX_ANISOTROPY = 0.05
"""Relative difference of horizontal and vertical resolution up to which pixels pass as square."""

_MICROMETRES = {
    "m": 1e6, "cm": 1e4, "mm": 1e3, "\u00b5m": 1.0, "\u03bcm": 1.0, "um": 1.0, "nm": 1e-3,
    "pm": 1e-6, "in": 25400.0,
}  # fmt: skip

_TIFF_UNITS = {2: 25400.0, 3: 10000.0}
"""Micrometres in the TIFF resolution units inch and centimetre; 1 means without unit."""


def check_mpp(mpp: float, name: str = "mpp") -> None:
    """Raise InputError, with the setting's ``name``, unless ``mpp`` lies in ``MPP_RANGE``."""
    low, high = MPP_RANGE
    if not low <= mpp <= high:  # false for NaN
        raise InputError(f"{name} {mpp:g} must be between {low:g} and {high:g} um/px")


def agree(a: float, b: float, tolerance: float = MPP_TOLERANCE) -> bool:
    """Whether two resolutions in um/px differ by at most ``tolerance``, relative to ``b``."""
    return abs(a / b - 1) <= tolerance


def mpp_from_aperio(description: str) -> float | None:
    """Read ``MPP = 0.499`` of an Aperio ImageDescription."""
    if not description.startswith("Aperio"):
        return None
    match = re.search(r"\|\s*MPP\s*=\s*([0-9.eE+-]+)", description)
    if match is None:
        return None
    try:
        value = float(match[1])
    except ValueError:
        return None
    return mpp_from_micrometres(value, value)


def mpp_from_ome(xml: str, width: int, height: int) -> float | None:
    """Read PhysicalSizeX and PhysicalSizeY of the OME-XML image of ``width`` x ``height``."""
    for pixels in ome_pixels(xml):
        if (pixels.get("SizeX"), pixels.get("SizeY")) == (str(width), str(height)):
            sizes = [_ome_length(pixels, axis) for axis in "XY"]
            return mpp_from_micrometres(sizes[0], sizes[1])
    return None


def ome_pixels(xml: str) -> list[ElementTree.Element]:
    """Return the Pixels elements of an OME-XML description; none if it is no OME-XML."""
    if "<OME" not in xml or "<!ENTITY" in xml:  # entities could expand without bound
        return []
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return []
    return [element for element in root.iter() if element.tag.rpartition("}")[2] == "Pixels"]


def mpp_from_tiff_tags(x: float, y: float, unit: int) -> float | None:
    """Convert XResolution and YResolution (pixels per ``unit``; 2: inch, 3: cm)."""
    if unit not in _TIFF_UNITS or not (x > 0 and y > 0):
        return None
    return mpp_from_micrometres(_TIFF_UNITS[unit] / x, _TIFF_UNITS[unit] / y)


def mpp_from_dpi(x: float, y: float) -> float | None:
    """Convert dots per inch, as Pillow reports PNG's pHYs and JPEG's density."""
    return mpp_from_tiff_tags(x, y, 2)


def _ome_length(pixels: ElementTree.Element, axis: str) -> float:
    unit = pixels.get(f"PhysicalSize{axis}Unit", "\u00b5m")
    try:
        return float(pixels.get(f"PhysicalSize{axis}", "nan")) * _MICROMETRES[unit]
    except (ValueError, KeyError):
        return math.nan


def mpp_from_micrometres(x: float, y: float) -> float | None:
    """Believe micrometres per pixel across and down if a microscope may have them."""
    low, high = PLAUSIBLE_MPP
    if not (low <= x <= high and low <= y <= high):  # false for NaN
        return None
    if abs(x - y) > _MAX_ANISOTROPY * min(x, y):
        return None
    return math.sqrt(x * y)
