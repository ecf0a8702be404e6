"""The objects of many masks: which files they go to, and masks that fail and stop no other."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from genselfdiff.errors import GsdError, InputError, OutputError, one_line
from genselfdiff.files import refuse_inputs
from genselfdiff.masks import is_own_class_mask
from genselfdiff.objects.mask_objects import ObjectCounts, write_objects

GEOJSON_ENDING, TABLE_ENDING, LABELS_ENDING = ".geojson", "_objects.csv", "_instances.tif"
"""Of the names of files with the objects of a mask, after the mask's own."""


class ObjectFiles(NamedTuple):
    """A mask, and the files that its objects go to."""

    mask: Path
    geojson: Path | None
    table: Path | None
    labels: Path | None

    def outputs(self) -> list[Path]:
        """Those that are written."""
        return [path for path in self[1:] if path is not None]

    def absolute(self) -> "ObjectFiles":
        """The same for processes that work in other folders."""
        return ObjectFiles(self.mask.absolute(), *(path and path.absolute() for path in self[1:]))


Work = Callable[[ObjectFiles], ObjectCounts | GsdError]
"""Writes the objects of a mask, or says why not."""


def stem_of(mask: Path) -> str:
    """The name of a mask without its suffix, to which the names of other files are added."""
    return mask.stem.removesuffix(".ome")


def plan_objects(
    masks: Sequence[Path], geojson: Path | None, table: Path | None, labels: Path | None
) -> list[ObjectFiles]:
    """Say to which files the objects of masks go.

    Args:
        masks: a mask; or several, or folders, in which all are taken.
        geojson, table, labels: the files of the one mask; of several folders, made if need be, in
            which they are named as ``gsd segment`` names them.

    Raises:
        InputError: a folder holds no mask, or two have one name.
        OutputError: a folder cannot be made, or an output is a mask.
    """
    if len(masks) == 1 and not masks[0].is_dir():
        return [ObjectFiles(masks[0], geojson, table, labels)]
    found = dict.fromkeys(mask for path in masks for mask in _masks_in(path))
    twice = [stem for stem, count in Counter(map(stem_of, found)).items() if count > 1]
    if twice:
        raise InputError(f"several masks are called {twice[0]}: do those of each folder by itself")
    for folder in (geojson, table, labels):
        if folder is not None:
            try:
                folder.mkdir(exist_ok=True)
            except OSError as error:
                raise OutputError(
                    f"{folder}: cannot be made, as a folder for several masks: {one_line(error)}"
                ) from error
    plan = [
        ObjectFiles(
            mask,
            geojson and geojson / f"{stem_of(mask)}{GEOJSON_ENDING}",
            table and table / f"{stem_of(mask)}{TABLE_ENDING}",
            labels and labels / f"{stem_of(mask)}{LABELS_ENDING}",
        )
        for mask in found
    ]
    refuse_inputs([path for files in plan for path in files.outputs()], found)
    return plan


def write_each(
    plan: Sequence[ObjectFiles],
    mapping: Callable[[Work, Iterable[ObjectFiles]], Iterator[ObjectCounts | GsdError]] = map,
    **settings: Any,
) -> Iterator[tuple[ObjectFiles, ObjectCounts | GsdError]]:
    """Write the objects of each mask, or give the error that was in the way.

    Args:
        plan: see ``plan_objects``.
        mapping: does what ``map`` does, perhaps in other processes, for which paths are absolute.
        **settings: those of ``write_objects``.
    """
    yield from zip(plan, mapping(partial(_written, settings), plan), strict=True)


def _written(settings: dict[str, Any], files: ObjectFiles) -> ObjectCounts | GsdError:
    mask, geojson, table, labels = files
    try:
        return write_objects(mask, geojson=geojson, table=table, labels=labels, **settings)
    except GsdError as error:
        return error


def _masks_in(path: Path) -> list[Path]:
    """A mask that is named; of a folder all that are of ours, in the order of their names."""
    if not path.is_dir():
        return [path]
    found = [
        file
        for file in sorted(path.iterdir())
        if not file.name.startswith(".") and is_own_class_mask(file)
    ]
    if not found:
        raise InputError(f"{path}: no masks of gsd segment in this folder")
    return found
