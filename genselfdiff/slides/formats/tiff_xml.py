"""What the XML in the description of a TIFF says about its images: OME-XML and that of Philips."""

import math
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from xml.etree import ElementTree

from genselfdiff.slides.stored.lengths import micrometres, number
from genselfdiff.slides.stored.stated_resolution import PixelSize

Element = ElementTree.Element

_LONGEST, _MOST_MARKS = 2**24, 2**19
"""Characters, and "<" and "=" among them, of XML that is parsed: each tag takes memory and time."""

_OTHER_IMAGE = (
    r"(?<![a-z])(slide_?)?(label|macro|thumbnail|overview|barcode|preview)_?(image|picture|photo)?"
    r"(?![a-z])"
)
_OTHER_IMAGES = re.compile(_OTHER_IMAGE, re.I)
_BEGINS_AS_OTHER = re.compile(r"\s*" + _OTHER_IMAGE, re.I)
"""What names of images and descriptions of pages say that show the slide's label or all glass."""

_COARSER = 4
"""Times that the pixels of such a picture are larger than the scan's, at the least."""


def ome_images(xml: str) -> list[tuple[str, Element]]:
    """Return (name, Pixels element) of each image of an OME-XML description; none if it is none."""
    root = root_of(xml, "<OME")
    return [
        (image.get("Name", ""), pixels)
        for image in (root.iter() if root is not None else ())
        if name_of(image) == "Image"
        for pixels in image
        if name_of(pixels) == "Pixels"
    ]


def begins_as_other_image(description: str) -> bool:
    """Tell whether the description of a page is that of a photograph of label or glass."""
    return bool(_BEGINS_AS_OTHER.match(description))


def ome_size(pixels: Element) -> tuple[int, int] | None:
    """Return width and height of an image in pixels, if its element tells them."""
    try:
        return int(pixels.get("SizeX", "")), int(pixels.get("SizeY", ""))
    except ValueError:
        return None


def ome_other_sizes(images: Sequence[tuple[str, Element]]) -> set[tuple[int, int]]:
    """Return the sizes in pixels that only photographs of label and glass have.

    These are told by their names, or by pixels far larger than those of another image.
    """
    lengths = [_ome_length(pixels, "X") for _, pixels in images]
    finest = min((length for length in lengths if length > 0), default=math.inf)
    sizes: dict[bool, set[tuple[int, int]]] = {True: set(), False: set()}
    for (name, pixels), length in zip(images, lengths, strict=True):
        if size := ome_size(pixels):
            is_other = bool(_OTHER_IMAGES.search(name)) or length > _COARSER * finest
            sizes[is_other].add(size)
    return sizes[True] - sizes[False]


def ome_pixel_size(xml: str, width: int, height: int) -> PixelSize | None:
    """Read PhysicalSizeX and PhysicalSizeY of the OME-XML image of ``width`` x ``height``."""
    for _, pixels in ome_images(xml):
        if (pixels.get("SizeX"), pixels.get("SizeY")) == (str(width), str(height)):
            x, y = (_ome_length(pixels, axis) for axis in "XY")
            told = math.isfinite(x) and math.isfinite(y)
            return PixelSize(x, y, "OME-XML") if told else None
    return None


def ome_significant_bits(xml: str, width: int, height: int) -> int | None:
    """Return how many bits the pixels of the image of ``width`` x ``height`` use, if it is told."""
    for _, pixels in ome_images(xml):
        bits = pixels.get("SignificantBits", "")
        if ome_size(pixels) == (width, height) and bits.isdecimal() and len(bits) < 3:
            return int(bits)
    return None


def is_philips(xml: str) -> bool:
    """Tell whether a description is that of a Philips TIFF."""
    return "<DataObject" in xml and 'ObjectType="DPUfsImport"' in xml


def philips_pixel_size(xml: str) -> PixelSize | None:
    """Read DICOM_PIXEL_SPACING of a Philips TIFF's largest level.

    Levels tell theirs as well as the scan: the smallest is that of level 0.
    """
    root = root_of(xml, "DPUfsImport")
    sizes = []
    for scan in root.iter("DataObject") if root is not None else ():
        if scan.get("ObjectType") == "DPScannedImage" and "WSI" in _values(
            scan, "PIM_DP_IMAGE_TYPE"
        ):
            sizes += [_philips_spacing(text) for text in _values(scan, "DICOM_PIXEL_SPACING")]
    told = [size for size in sizes if size is not None]
    return PixelSize(*min(told), "Philips XML") if told else None


def root_of(xml: str, mark: str) -> Element | None:
    """Return the root of XML that has ``mark`` in it; None if it is none, or another's.

    Raises:
        ValueError: it is larger than any slide's.
    """
    if mark not in xml or "<!ENTITY" in xml:  # entities could expand without bound
        return None
    if len(xml) > _LONGEST or xml.count("<") + xml.count("=") > _MOST_MARKS:
        raise ValueError(f"its XML of {len(xml):,} characters is more than that of any slide")
    return _parsed(xml)


@lru_cache(maxsize=1)
def _parsed(xml: str) -> Element | None:
    """Parse what is asked for several times while a slide is opened."""
    try:
        return ElementTree.fromstring(xml)  # it is decoded, whatever encoding it says it has
    except (ElementTree.ParseError, ValueError):
        return None


def name_of(element: Element) -> str:
    """Return the name of an element without its namespace."""
    return str(element.tag).rpartition("}")[2]


def _ome_length(pixels: Element, axis: str) -> float:
    unit = micrometres(pixels.get(f"PhysicalSize{axis}Unit", "um"))
    return math.nan if unit is None else number(pixels.get(f"PhysicalSize{axis}", "")) * unit


def _values(scan: Element, name: str) -> Iterator[str]:
    return (
        (attribute.text or "").strip()
        for attribute in scan.iter("Attribute")
        if attribute.get("Name") == name
    )


def _philips_spacing(text: str) -> tuple[float, float] | None:
    """Read ``"0.000226" "0.000226"``: millimetres down and across."""
    sizes = [number(size.strip('"')) * 1000 for size in text.split()]
    return (sizes[1], sizes[0]) if len(sizes) == 2 and all(map(math.isfinite, sizes)) else None
