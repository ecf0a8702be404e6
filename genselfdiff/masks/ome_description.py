"""The OME-XML that a mask carries as an OME-TIFF, and what we tell of a mask in it."""

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from genselfdiff.slides.formats.tiff_xml import root_of

OME_SUFFIXES = (".ome.tif", ".ome.tiff")

_SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
_OURS = "genselfdiff/mask"
"""Namespace of the annotation that holds our own description."""
_LONGEST = 2**21
"""Characters of JSON that are parsed; no mask of ours has as many."""
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that file names can have: control characters, and bytes that are not UTF-8."""


def is_ome(path: Path) -> bool:
    """Whether a file of that name is an OME-TIFF."""
    return path.name.lower().endswith(OME_SUFFIXES)


def ome_description(
    name: str,
    width: int,
    height: int,
    told: dict[str, Any],
    *,
    pixel: str = "uint8",
    channel: str = "class",
) -> str:
    """OME-XML in ASCII of a plane of class indices, or of other numbers.

    Args:
        name: of the image.
        width, height: in pixels.
        told: what the description of another mask would be, with "mpp".
        pixel: type of a pixel.
        channel: what the numbers are.
    """
    root = ElementTree.Element("OME", xmlns=_SCHEMA)
    image = ElementTree.SubElement(root, "Image", ID="Image:0", Name=_NOT_IN_XML.sub("?", name))
    mpp = told["mpp"]
    layout = {"ID": "Pixels:0", "DimensionOrder": "XYCZT", "Type": pixel}
    size = {"SizeX": str(width), "SizeY": str(height), "SizeC": "1", "SizeZ": "1", "SizeT": "1"}
    scale = {} if mpp is None else {"PhysicalSizeX": repr(mpp), "PhysicalSizeY": repr(mpp)}
    pixels = ElementTree.SubElement(image, "Pixels", layout | size | scale)
    ElementTree.SubElement(pixels, "Channel", ID="Channel:0:0", Name=channel, SamplesPerPixel="1")
    ElementTree.SubElement(pixels, "TiffData", IFD="0", PlaneCount="1")
    ElementTree.SubElement(image, "AnnotationRef", ID="Annotation:0")
    annotations = ElementTree.SubElement(root, "StructuredAnnotations")
    comment = ElementTree.SubElement(
        annotations, "CommentAnnotation", ID="Annotation:0", Namespace=_OURS
    )
    ElementTree.SubElement(comment, "Value").text = json.dumps(told, sort_keys=True)
    return '<?xml version="1.0" encoding="UTF-8"?>' + ElementTree.tostring(root).decode("ascii")


def told_in(description: str) -> dict[str, Any]:
    """What a mask tells of itself in its ImageDescription, as JSON or in OME-XML; else nothing."""
    try:
        if description.startswith("<?xml"):
            path = f".//{{{_SCHEMA}}}CommentAnnotation[@Namespace='{_OURS}']/{{{_SCHEMA}}}Value"
            root = root_of(description, _OURS)
            description = "" if root is None else root.findtext(path) or ""
        told = json.loads(description[:_LONGEST])
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}
