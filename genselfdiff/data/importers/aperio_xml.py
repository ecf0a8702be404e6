"""What is drawn in XML files of Aperio ImageScope."""

from dataclasses import dataclass, field
from pathlib import Path

from genselfdiff.input_files import read_xml
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
        InputError: as by `read_xml`.
    """
    content = _Content()
    read_xml(path, content.begin, "ImageScope")
    return content.layers, content.mpp


class _Content:
    def __init__(self) -> None:
        self.layers: list[list[Shape]] = [[]]
        self.mpp = ""

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
