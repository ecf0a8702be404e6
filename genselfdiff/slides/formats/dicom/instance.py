"""One file of a whole slide image in DICOM: a level, or a part of its frames."""

from dataclasses import dataclass
from typing import Any

from genselfdiff.errors import InputError, one_line
from genselfdiff.slides.formats.dicom.elements import (
    EXPLICIT,
    IMPLICIT,
    Elements,
    Header,
    read_header,
)
from genselfdiff.slides.stored.stated_resolution import PixelSize
from genselfdiff.storage.places import Place
from genselfdiff.storage.stored_file import StoredFile

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
"""SOP class of VL Whole Slide Microscopy Image Storage."""

PLAIN = (IMPLICIT, EXPLICIT)
JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
JPEG_2000 = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91, 201, 202, 203))
"""Transfer syntaxes of pixels that are read; of JPEG 2000 the last three are High-Throughput."""

_NAMES = {
    "1.2.840.10008.1.2.5": "RLE",
    "1.2.840.10008.1.2.4.57": "lossless JPEG",
    "1.2.840.10008.1.2.4.70": "lossless JPEG",
    "1.2.840.10008.1.2.4.80": "JPEG-LS",
    "1.2.840.10008.1.2.4.81": "JPEG-LS",
    "1.2.840.10008.1.2.4.110": "JPEG XL",
    "1.2.840.10008.1.2.4.111": "JPEG XL",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
}

_COLOURS = {
    "RGB": 3,
    "YBR_FULL": 3,
    "YBR_FULL_422": 3,
    "YBR_ICT": 3,
    "YBR_RCT": 3,
    "MONOCHROME1": 1,
    "MONOCHROME2": 1,
}
"""Photometric interpretations that are read, and their samples."""


@dataclass(frozen=True)
class Instance:
    """What a file says of itself.

    Attributes:
        file: it, which stays open.
        directory: the same, for reading what is small.
        header: its elements, and where its pixels are.
        flavor: "VOLUME" of the slide; "LABEL", "OVERVIEW", "THUMBNAIL" and others of pictures.
        width, height: of the whole level in pixels.
        tile: width and height of its frames.
        number: of its frames.
    """

    file: StoredFile
    directory: StoredFile
    header: Header
    flavor: str
    width: int
    height: int
    tile: tuple[int, int]
    number: int

    @classmethod
    def read(cls, file: StoredFile) -> "Instance | None":
        """Read what an open file tells; None if it is DICOM, but no whole slide image.

        Raises:
            InputError: it cannot be read, or is damaged.
        """
        try:
            directory = file.metadata()
            header = read_header(directory)
            told = header.elements
            if told.get("SOPClassUID") != (WHOLE_SLIDE,):
                return None
            kind = told.get("ImageType", ())
            tile = _one(told, "Columns"), _one(told, "Rows")
            return cls(
                file,
                directory,
                header,
                kind[2].upper() if len(kind) > 2 else "",
                _one(told, "TotalPixelMatrixColumns", tile[0]),
                _one(told, "TotalPixelMatrixRows", tile[1]),
                tile,
                _one(told, "NumberOfFrames", 1),
            )
        except InputError:
            raise
        except Exception as error:  # whatever damaged elements lead to
            raise InputError(
                f"{file.place}: is no readable DICOM file ({one_line(error)}); is it whole?"
            ) from error

    @property
    def path(self) -> Place:
        """Where the file is."""
        return self.file.place

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the level in pixels."""
        return self.width, self.height

    @property
    def syntax(self) -> str:
        """The transfer syntax: how pixels are stored."""
        return self._text("TransferSyntaxUID")

    @property
    def colours(self) -> str:
        """The photometric interpretation."""
        return self._text("PhotometricInterpretation")

    @property
    def samples(self) -> int:
        """Of a pixel."""
        return _one(self.header.elements, "SamplesPerPixel")

    @property
    def has_planes(self) -> bool:
        """Whether each sample is stored by itself."""
        return self.samples > 1 and _one(self.header.elements, "PlanarConfiguration", 0) == 1

    @property
    def pyramid(self) -> str:
        """What the levels of one image have in common; empty: it is not told."""
        return self._text("PyramidUID")

    @property
    def concatenation(self) -> str:
        """What the files that share a level's frames have in common; empty: it has all of them."""
        return self._text("ConcatenationUID")

    @property
    def part(self) -> int:
        """The number of this file in its concatenation, from 1."""
        return _one(self.header.elements, "InConcatenationNumber", 1)

    @property
    def parts(self) -> int:
        """Files of the concatenation; 0: it is not told."""
        return _one(self.header.elements, "InConcatenationTotalNumber", 0)

    @property
    def first_frame(self) -> int:
        """The number of its first frame among those of the level, from 0."""
        return _one(self.header.elements, "ConcatenationFrameOffsetNumber", 0)

    @property
    def frame_items(self) -> list[Elements]:
        """What is told of each frame by itself; nothing where they lie in rows without gaps."""
        items: list[Elements] = self.header.elements.get("PerFrameFunctionalGroupsSequence", [])
        return items

    @property
    def optical_paths(self) -> int:
        """Of light through the slide: as many images are stored."""
        return _one(self.header.elements, "NumberOfOpticalPaths", len(self._paths) or 1)

    @property
    def focal_planes(self) -> int:
        """Depths of the slide: as many images are stored."""
        return _one(self.header.elements, "TotalPixelMatrixFocalPlanes", 1)

    @property
    def icc(self) -> bytes:
        """The ICC profile of the first optical path, empty without."""
        profile: bytes = self._paths[0].get("ICCProfile", b"") if self._paths else b""
        return profile

    @property
    def first_path(self) -> str:
        """The identifier of the first optical path."""
        return _first_of(self._paths[0], "OpticalPathIdentifier") if self._paths else ""

    def pixel_size(self) -> PixelSize | None:
        """What it says of the size of its pixels, told in millimetres."""
        told = self.header.elements
        for group in told.get("SharedFunctionalGroupsSequence", []):
            for measures in group.get("PixelMeasuresSequence", []):
                spacing = measures.get("PixelSpacing", ())
                if len(spacing) == 2:
                    return PixelSize(1000 * spacing[1], 1000 * spacing[0], "PixelSpacing")
        width, height = (
            1000 * length / pixels
            for name, pixels in (("Width", self.width), ("Height", self.height))
            for length in told.get(f"ImagedVolume{name}", (0.0,))
        )
        return PixelSize(width, height, "ImagedVolumeWidth") if width and height else None

    def refuse_unread(self) -> None:
        """Raise InputError for pixels of a kind that is not read."""
        told = self.header.elements
        if self.syntax not in (*PLAIN, *JPEG, *JPEG_2000):
            name = _NAMES.get(self.syntax, f"transfer syntax {self.syntax}")
            raise InputError(
                f"{self.path}: its pixels are compressed as {name}, which is not read; JPEG of 8"
                " bits, JPEG 2000 and none are"
            )
        if (bits := _one(told, "BitsAllocated")) != 8:
            raise InputError(f"{self.path}: its pixels have {bits} bits; 8 are expected")
        if _COLOURS.get(self.colours) != self.samples:
            raise InputError(
                f"{self.path}: its {self.samples} sample(s) of {self.colours} are neither grey nor"
                " RGB"
            )
        if self.samples == 1 and self.optical_paths > 1:
            raise InputError(
                f"{self.path}: its {self.optical_paths} optical paths are separate grey images, not"
                " one in RGB"
            )
        if self.syntax in PLAIN and self.colours == "YBR_FULL_422":
            raise InputError(f"{self.path}: its YBR_FULL_422 without compression is not read")

    def _text(self, keyword: str) -> str:
        return _first_of(self.header.elements, keyword)

    @property
    def _paths(self) -> list[Elements]:
        paths: list[Elements] = self.header.elements.get("OpticalPathSequence", [])
        return paths


def _first_of(told: Elements, keyword: str) -> str:
    values = told.get(keyword, ())
    return str(values[0]) if values else ""


def _one(told: Elements, keyword: str, default: int | None = None) -> int:
    values: Any = told.get(keyword, ())
    if values:
        return int(values[0])
    if default is None:
        raise ValueError(f"it does not tell its {keyword}")
    return default
