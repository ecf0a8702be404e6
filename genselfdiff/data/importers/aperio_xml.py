"""What is drawn in XML files of Aperio ImageScope."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from xml.parsers import expat

from genselfdiff.errors import InputError, one_line
from genselfdiff.input_files import open_input
from genselfdiff.slides.stored import number

_BOX_TYPES = frozenset("234")
"""Type of ellipses, arrows and rulers, which have the corners of a box, or ends, as vertices."""


@dataclass
class Shape:
    """A Region.

    Attributes:
        kind: its Type.
        is_negative: it takes away from others (NegativeROA).
        vertices: X and Y each; NaN where they are no numbers.
    """

    kind: str
    is_negative: bool
    vertices: list[tuple[float, float]] = field(default_factory=list)

    @property
    def is_box(self) -> bool:
        """Whether the vertices are not an outline, but what a shape is made of."""
        return self.kind in _BOX_TYPES and len(self.vertices) <= 4


def read_shapes(path: Path) -> tuple[list[list[Shape]], str]:
    """Read the Regions of each Annotation, and what the file says is MicronsPerPixel.

    Raises:
        InputError: the file cannot be read, is no XML, or declares a document type or entities:
            these could name other files, or expand without bound.
    """
    content = _Content(path)
    parser = expat.ParserCreate()
    parser.StartElementHandler = content.begin
    parser.StartDoctypeDeclHandler = content.refuse
    with open_input(path) as file:
        try:
            parser.ParseFile(file)
        except InputError:
            raise
        except (OSError, expat.ExpatError, LookupError, ValueError) as error:
            raise InputError(f"{path}: is no XML file of ImageScope: {one_line(error)}") from error
    return content.layers, content.mpp


class _Content:
    def __init__(self, path: Path) -> None:
        self.layers: list[list[Shape]] = [[]]
        self.mpp = ""
        self._path = path

    def begin(self, name: str, attributes: dict[str, str]) -> None:
        if name == "Annotations":
            self.mpp = attributes.get("MicronsPerPixel", "")
        elif name == "Annotation":
            self.layers.append([])
        elif name == "Region":
            is_negative = attributes.get("NegativeROA", "").strip().lower() in ("1", "true")
            self.layers[-1].append(Shape(attributes.get("Type", ""), is_negative))
        elif name == "Vertex" and self.layers[-1]:
            x, y = (number(attributes.get(axis, "")) for axis in "XY")
            self.layers[-1][-1].vertices.append((x, y))

    def refuse(self, *_: object) -> NoReturn:
        raise InputError(
            f"{self._path}: declares a document type, as no file of ImageScope does: take it out"
        )
