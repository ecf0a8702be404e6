"""Labels as other programs and data sets store them, to folders of labelled images.

Each importer gives an `Import`: the names of the classes, and the images one after the other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from genselfdiff.data.importers.left_out import LeftOut
from genselfdiff.data.labelled_folder import LabelledField


@dataclass(frozen=True)
class Import:
    """What an importer has found.

    Attributes:
        class_names: of index 0, the background, and so on.
        count: how many images there are at most.
        fields: the images, read as they are iterated over.
        left_out: what is not among them; complete when all are read.
    """

    class_names: Sequence[str]
    count: int
    fields: Iterator[LabelledField]
    left_out: LeftOut
