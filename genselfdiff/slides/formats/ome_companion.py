"""OME-TIFFs in several files: metadata in a file beside them, and the file that has the slide.

Of OME-XML that describes several files, the first plane of the largest image is read; pyramids lie
in the file of their plane (OME-TIFF specification 6, "sub-resolutions").
"""

import os
from pathlib import Path

from genselfdiff.errors import InputError
from genselfdiff.slides.formats.tiff_xml import Element, name_of, ome_images, ome_size, root_of
from genselfdiff.storage.opening import open_stored
from genselfdiff.storage.places import Place

COMPANION_SUFFIX = ".companion.ome"
"""Lower-case ending of files that hold nothing but OME-XML."""
OME_TIFF_SUFFIXES = (".ome.tif", ".ome.tiff")

_LARGEST = 2**26


def metadata_file(xml: str) -> str:
    """The name of the file that holds the OME-XML of a TIFF, if ``xml`` says so; else empty."""
    root = root_of(xml, "<OME")
    for element in root if root is not None else ():
        if name_of(element) == "BinaryOnly":
            return element.get("MetadataFile", "")
    return ""


def read_companion(place: Place, name: str) -> str | None:
    """The OME-XML in the file ``name`` beside ``place``; None: it cannot be had."""
    if not is_plain(name):
        return None
    try:
        return read_metadata(place.parent / name)
    except InputError:
        return None


def read_metadata(place: Place) -> str:
    """The text of a file of OME-XML.

    Raises:
        InputError: it is not there, or larger than that of any slide.
    """
    with open_stored(place) as file:
        if file.size > _LARGEST:
            raise InputError(f"{place}: is larger than the OME-XML of any slide")
        return file.metadata().read_at(0, file.size).decode(errors="replace")


def file_of_slide(place: Place) -> Place:
    """The TIFF that has the first plane of the largest image that a file of OME-XML describes.

    Raises:
        InputError: it describes none, or the TIFF is not beside it.
    """
    main = largest_image(read_metadata(place))
    if main is None:
        raise InputError(f"{place}: is no OME-XML that describes an image")
    names = [uuid.get("FileName", "") for data in main if _is_first(data) for uuid in data]
    if not names or not is_plain(names[0]):
        raise InputError(f"{place}: does not name the file of its image; name the TIFF itself")
    found = place.parent / names[0]
    try:
        with open_stored(found):
            return found
    except InputError as error:
        raise InputError(
            f"{place}: its image is in {names[0]}, which is not beside it; put it there"
        ) from error


def largest_image(xml: str) -> Element | None:
    """The Pixels element of the largest image that OME-XML describes; None: of none."""
    images = [pixels for _, pixels in ome_images(xml) if ome_size(pixels)]
    return max(images, key=_area, default=None)


def files_told(pixels: Element) -> set[str]:
    """The names of the files that have planes of an image, as its element tells them."""
    return {
        uuid.get("FileName", "") for data in pixels if name_of(data) == "TiffData" for uuid in data
    } - {""}


def companions_of(tiff: Path) -> list[Path]:
    """The files of OME-XML beside an OME-TIFF that name it; it may take its metadata of them."""
    if not tiff.name.lower().endswith(OME_TIFF_SUFFIXES):
        return []
    with os.scandir(tiff.parent) as entries:
        names = [each.name for each in entries if each.name.lower().endswith(COMPANION_SUFFIX)]
    return [path for name in sorted(names) if _names(path := tiff.parent / name, tiff.name)]


def _names(companion: Path, name: str) -> bool:
    try:
        return name in read_metadata(companion)
    except InputError:
        return False


def _area(pixels: Element) -> int:
    width, height = ome_size(pixels) or (0, 0)
    return width * height


def _is_first(element: Element) -> bool:
    """Whether a TiffData element tells where the first plane is."""
    firsts = (element.get(f"First{axis}", "0") for axis in "CZT")
    return name_of(element) == "TiffData" and all(first == "0" for first in firsts)


def is_plain(name: str) -> bool:
    """Whether a name is one of a file in the same folder."""
    return bool(name) and not set(name) & set("/\\\0") and name not in (".", "..")
