"""What training has to be told of labelled images, read from the folder that they lie in."""

from pathlib import Path
from typing import Any

from genselfdiff.data.labelled_folder import IGNORED, require_names
from genselfdiff.errors import InputError
from genselfdiff.input_files import is_regular_file, read_csv_rows
from genselfdiff.text import spreadsheet_cell


def folder_settings(folder: Path, *, instances: bool = False) -> dict[str, Any]:
    """Settings of `FinetuneConfig` for a folder as `labelled_folder` describes it.

    Args:
        folder: with ``images/`` and ``masks/``, and ``classes.csv`` if the classes have names.
        instances: take the numbers of objects in ``instances/`` in place of the masks.

    Returns:
        images, masks, classes, ignore_label and, with ``instances``, foreground, by their names.

    Raises:
        InputError: one of these is not there, or cannot be used.
    """
    masks = folder / ("instances" if instances else "masks")
    for part in (folder / "images", masks):
        if not part.is_dir():
            raise InputError(
                f"{part}: no such folder: 'gsd data import' and 'gsd data corrections' make it, or"
                " name --images and --masks"
            )
    settings = {"images": str(folder / "images"), "masks": str(masks), "ignore_label": IGNORED}
    if instances:
        settings["foreground"] = True
    names = _names(folder / "classes.csv") if is_regular_file(folder / "classes.csv") else ()
    if instances and len(names) > 2:
        raise InputError(
            f"{folder}: has {len(names)} classes, but --instances is for objects of one: leave it"
            " out"
        )
    return settings | {"classes": names}


def _names(table: Path) -> tuple[str, ...]:
    """The classes in the order of their indices."""
    columns, rows = read_csv_rows(table)
    values = [row.get("value", "") for row in rows]
    if not {"value", "class"} <= set(columns) or values != [str(i) for i in range(len(rows))]:
        raise InputError(f"{table}: give the columns value, from 0 on, and class")
    names = [_as_written(row["class"]) for row in rows]
    require_names(names, table)
    return tuple(names)


def _as_written(cell: str) -> str:
    """The text that `spreadsheet_cell` was given."""
    text = cell[1:]
    return text if cell.startswith("'") and spreadsheet_cell(text) == cell else cell
