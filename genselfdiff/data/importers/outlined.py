"""Images of a folder with what one file says is drawn on them."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from genselfdiff.data.importers import Import
from genselfdiff.data.importers.classes import choose_all
from genselfdiff.data.importers.files import picture
from genselfdiff.data.importers.left_out import LeftOut
from genselfdiff.data.labelled_folder import LabelledField
from genselfdiff.data.naming import stem_of
from genselfdiff.data.polygons import Points, Region, draw, warn_of_outside
from genselfdiff.errors import InputError

Polygons = tuple[tuple[Points, ...], ...]
"""The parts of an object, as a `Region` has them."""


@dataclass(frozen=True)
class Outlined:
    """What is drawn on an image.

    Attributes:
        objects: class and polygons of each, in the order in which they lie on each other.
        size: width and height that the file tells, of whatever type; None where it tells none.
    """

    objects: Sequence[tuple[str, Polygons]]
    size: tuple[Any, Any]


class NamedImages:
    """Images of a folder, by the names that a file gives them.

    Args:
        files: by name without suffix, see `images_below`.
    """

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._by_stem = files
        self._by_name = {path.name: path for path in files.values()}

    def find(self, name: str) -> Path | None:
        """The image called ``name``, in whatever folder, suffix aside where there is none such."""
        # Names may tell folders, also those of Windows; they choose among the images there are.
        file_name = re.split(r"[/\\]", name)[-1]
        return self._by_name.get(file_name) or self._by_stem.get(stem_of(Path(file_name)))


def import_outlined(
    outlined: Mapping[Path, Outlined],
    classes: Sequence[str] | None,
    source: Path,
    left_out: LeftOut,
) -> Import:
    """Draw what is on each image; ``source`` is the file that tells it.

    Raises:
        InputError: no object has one of the ``classes``, or they are not all there are; on
            iterating: no image can be read.
    """
    found = Counter(kind for each in outlined.values() for kind, _ in each.objects)
    names = choose_all(found, classes, source)
    readers = [partial(_draw, path, outlined[path], names, source) for path in outlined]
    return Import(names, len(readers), left_out.each(readers), left_out)


def _draw(path: Path, outlined: Outlined, names: Sequence[str], source: Path) -> LabelledField:
    pixels, (height, width) = picture(path)
    if None not in outlined.size and outlined.size not in ((width, height), (height, width)):
        raise InputError(
            f"{path}: has {width} x {height} pixels, but what was labelled in {source}"
            f" {outlined.size[0]} x {outlined.size[1]}"
        )
    regions = [Region(names.index(kind), polygons) for kind, polygons in outlined.objects]
    warn_of_outside(regions, height, width, path)
    classes, instances = draw(regions, height, width)
    return LabelledField(stem_of(path), pixels, classes, instances, None, source)
