"""OME-TIFFs whose red, green and blue are grey images of their own, in one file or several."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tifffile import TiffFile

from genselfdiff.errors import InputError
from genselfdiff.slides.formats.ome_companion import (
    COMPANION_SUFFIX,
    is_plain,
    largest_image,
    read_metadata,
)
from genselfdiff.slides.formats.tiff_codecs import piece_size
from genselfdiff.slides.formats.tiff_directories import check_directories
from genselfdiff.slides.formats.tiff_level import TiffLevel
from genselfdiff.slides.formats.tiff_pages import (
    LevelPage,
    description_of,
    file_description,
    pages_of_plane,
)
from genselfdiff.slides.formats.tiff_xml import Element, name_of, root_of
from genselfdiff.slides.stored.damage import Damage
from genselfdiff.slides.stored.orientation import page_orientation
from genselfdiff.slides.stored.pixel_format import UnreadKind
from genselfdiff.slides.stored.stored_image import Piece, StoredLevel
from genselfdiff.storage.places import Url
from genselfdiff.storage.stored_file import LocalFile, Range, StoredFile

Uint8 = NDArray[np.uint8]

_COLOURS = ("red", "green", "blue")


class Plane(NamedTuple):
    """Where a plane is.

    Attributes:
        file: the name of its file; empty: the one that tells of it.
        uuid: of that file, empty where it is not told.
        directory: its number in the file.
    """

    file: str
    uuid: str
    directory: int


def colour_planes(xml: str) -> list[Plane]:
    """Find red, green and blue, in this order, of the largest image that OME-XML describes.

    Its three channels are these if they are called so, or by the first letters: others may be those
    of fluorescence. Returns nothing where the image has no such channels.

    Raises:
        ValueError: it has, but is not said to have a plane of each.
    """
    pixels = largest_image(xml)
    if pixels is None or [pixels.get(f"Size{axis}", "1") for axis in "CZT"] != ["3", "1", "1"]:
        return []
    channels = [each for each in pixels if name_of(each) == "Channel"]
    if any(each.get("SamplesPerPixel", "1") != "1" for each in channels):
        return []
    names = [each.get("Name", "").strip().lower() for each in channels]
    letters = [name[0] if name in (*_COLOURS, *"rgb") else "" for name in names]
    if sorted(letters) != ["b", "g", "r"]:
        return []
    told = _told_planes(pixels)
    try:
        return [told[letters.index(letter)] for letter in "rgb"]
    except KeyError:
        raise ValueError("its OME-XML does not tell where its three planes are") from None


def _told_planes(pixels: Element) -> dict[int, Plane]:
    """The plane of each channel, of an image that has no other planes."""
    exact: dict[int, Plane] = {}
    following: dict[int, Plane] = {}
    for data in pixels:
        if name_of(data) != "TiffData":
            continue
        uuid = next((each for each in data if name_of(each) == "UUID"), data)
        plane = Plane(
            uuid.get("FileName", ""), (uuid.text or "").strip(), int(data.get("IFD", "0"))
        )
        channel = int(data.get("FirstC", "0"))
        if not 0 <= channel < 3:
            continue
        exact.setdefault(channel, plane)
        count = int(data.get("PlaneCount", "1" if "IFD" in data.attrib else "3"))
        for more in range(1, min(count, 3 - channel)):
            directory = plane.directory + more
            following.setdefault(channel + more, plane._replace(directory=directory))
    return following | exact


def open_planes(
    planes: Sequence[Plane], file: StoredFile, damage: Damage, opened: ExitStack, tiffs: ExitStack
) -> list[tuple[StoredFile, list[LevelPage]]]:
    """Open the file of each plane, and find its levels.

    Args:
        planes: red, green and blue.
        file: the TIFF that was named, which is open.
        damage: of the slide.
        opened: takes the files, which are read as long as the slide.
        tiffs: takes what is needed only while it is opened.

    Raises:
        InputError: a file is not there, or is another one.
        UnreadKind: the planes are not stored alike.
        ValueError: directories are missing or damaged.
    """
    found = []
    own = _uuid_of(tiffs.enter_context(TiffFile(file.metadata().stream())))
    for colour, plane in zip(_COLOURS, planes, strict=True):
        part = file
        # Of the file's own UUID, whatever it was called once.
        if plane.file not in ("", file.place.name) and not (plane.uuid and plane.uuid == own):
            part = opened.enter_context(_open_beside(plane.file, colour, damage))
        directories = part.metadata()
        check_directories(directories)
        tiff = tiffs.enter_context(TiffFile(directories.stream()))
        if plane.uuid and _uuid_of(tiff) not in ("", plane.uuid):
            raise InputError(
                f"{damage.path}: its {colour} is in a file {plane.file} of another UUID than the"
                " one that is there: put the right one there"
            )
        found.append((part, pages_of_plane(tiff, plane.directory)))
    kinds = [[_kind(level) for level in levels] for _, levels in found]
    if kinds.count(kinds[0]) != len(kinds) or kinds[0][0][-1] != 1:
        raise UnreadKind("its red, green and blue are not three grey images stored alike")
    return found


def _uuid_of(tiff: TiffFile) -> str:
    root = root_of(description_of(tiff.pages.first.aspage()), "<OME")
    return "" if root is None else root.get("UUID", "").strip()


def _open_beside(name: str, colour: str, damage: Damage) -> StoredFile:
    if isinstance(damage.path, Url):
        raise InputError(
            f"{damage.path}: its red, green and blue lie in several files, which are read from a"
            " disk only: copy all of them"
        )
    if not is_plain(name):
        raise InputError(f"{damage.path}: does not name a file beside it for its {colour}")
    try:
        return LocalFile(damage.path.parent / name)
    except InputError as error:
        raise InputError(
            f"{damage.path}: its {colour} is in {name}, which is not beside it; put it there"
        ) from error


def _kind(level: LevelPage) -> tuple[int, ...]:
    page = level.page
    stored = page.compression, page.bitspersample, page_orientation(page)
    return level.width, level.height, *piece_size(page), *stored, page.samplesperpixel


class PlanesLevel(StoredLevel):
    """A level of three planes that are stored alike.

    Args:
        planes: red, green and blue, each a grey level.
    """

    def __init__(self, planes: Sequence[TiffLevel]) -> None:
        first = planes[0]
        size = first.width, first.height, first.piece_width, first.piece_height
        super().__init__(*size, first.damage)
        self._planes = planes

    def decode(self, column: int, row: int) -> Uint8:
        """Decode a tile of each; beyond the edge one that is made of a finer level may be short."""
        pixels = np.full((self.piece_height, self.piece_width, 3), 255, np.uint8)
        for sample, plane in enumerate(self._planes):
            grey = plane.decode(column, row)[..., 0]
            pixels[: grey.shape[0], : grey.shape[1], sample] = grey
        return pixels

    def expect(self, pieces: Iterable[Piece]) -> None:
        """Have the file fetch them ahead; of several there are only some on a disk."""
        self._planes[0].file.expect(self._ranges(pieces))

    def want(self, pieces: Iterable[Piece]) -> None:
        """Have the file fetch them."""
        self._planes[0].file.want(self._ranges(pieces))

    def _ranges(self, pieces: Iterable[Piece]) -> Iterator[Range]:
        return (part for piece in pieces for plane in self._planes for part in plane.ranges(*piece))

    def forget(self) -> None:
        """Drop what tiles were made of, too."""
        super().forget()
        for plane in self._planes:
            plane.forget()


def files_of_planes(path: Path) -> list[Path]:
    """The files that have planes of an OME-TIFF, or of what a file of OME-XML describes."""
    try:
        if path.name.lower().endswith(COMPANION_SUFFIX):
            xml = read_metadata(path)
        else:
            with LocalFile(path) as file, TiffFile(file.stream()) as tiff:
                xml = file_description(tiff, path)
        names = {plane.file for plane in colour_planes(xml)}
    except Exception:  # told when it is opened
        return []
    return [path.parent / name for name in sorted(names) if is_plain(name)]
