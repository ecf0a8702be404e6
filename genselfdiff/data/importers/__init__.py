"""Labels as other programs and data sets store them, to folders of labelled images.

Each importer gives an `Import`: the names of the classes, and the images one after the other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from genselfdiff.data.labelled_folder import LabelledField


@dataclass(frozen=True)
class Import:
    """What an importer has found: ``fields`` are read as they are iterated over."""

    class_names: Sequence[str]
    count: int
    fields: Iterator[LabelledField]
