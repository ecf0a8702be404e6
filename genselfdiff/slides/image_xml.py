"""What the XML in the description of a TIFF says about its images: OME-XML and that of Philips."""

import math
import re
from collections.abc import Iterator
from xml.etree import ElementTree

from genselfdiff.slides.lengths import micrometres, number

Element = ElementTree.Element

_LONGEST = 2**24
"""Characters of XML that are parsed: its elements take up to 30 times as many bytes."""

_OTHER_IMAGES = re.compile(r"\b(label|macro|thumbnail|overview)\b", re.I)


def ome_images(xml: str) -> list[tuple[str, Element]]:
    """Return (name, Pixels element) of each image of an OME-XML description; none if it is none."""
    root = _root(xml, "<OME")
    return [
        (image.get("Name", ""), pixels)
        for image in (root.iter() if root is not None else ())
        if _name(image) == "Image"
        for pixels in image
        if _name(pixels) == "Pixels"
    ]


def ome_other_sizes(xml: str) -> set[tuple[int, int]]:
    """Return the sizes in pixels that only photographs of label and glass have, by their names."""
    sizes: dict[bool, set[tuple[int, int]]] = {True: set(), False: set()}
    for name, pixels in ome_images(xml):
        try:
            size = int(pixels.get("SizeX", "")), int(pixels.get("SizeY", ""))
        except ValueError:
            continue
        sizes[bool(_OTHER_IMAGES.search(name))].add(size)
    return sizes[True] - sizes[False]


def ome_pixel_size(xml: str, width: int, height: int) -> tuple[float, float] | None:
    """Return micrometres across and down of the pixels of the image of ``width`` x ``height``."""
    for _, pixels in ome_images(xml):
        if (pixels.get("SizeX"), pixels.get("SizeY")) == (str(width), str(height)):
            x, y = (_ome_length(pixels, axis) for axis in "XY")
            return (x, y) if math.isfinite(x) and math.isfinite(y) else None
    return None


def is_philips(xml: str) -> bool:
    """Tell whether a description is that of a Philips TIFF."""
    return "<DataObject" in xml and 'ObjectType="DPUfsImport"' in xml


def philips_pixel_size(xml: str) -> tuple[float, float] | None:
    """Return micrometres across and down of the pixels of a Philips TIFF's largest level.

    Levels tell theirs as well as the scan: the smallest is that of level 0.
    """
    root = _root(xml, "DPUfsImport")
    sizes = []
    for scan in root.iter("DataObject") if root is not None else ():
        if scan.get("ObjectType") == "DPScannedImage" and "WSI" in _values(
            scan, "PIM_DP_IMAGE_TYPE"
        ):
            sizes += [_philips_spacing(text) for text in _values(scan, "DICOM_PIXEL_SPACING")]
    return min((size for size in sizes if size is not None), default=None)


def _root(xml: str, mark: str) -> Element | None:
    if mark not in xml or "<!ENTITY" in xml:  # entities could expand without bound
        return None
    if len(xml) > _LONGEST:
        raise ValueError(f"its XML has {len(xml):,} characters, more than that of any slide")
    try:
        return ElementTree.fromstring(xml)  # it is decoded, whatever encoding it says it has
    except (ElementTree.ParseError, ValueError):
        return None


def _name(element: Element) -> str:
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
