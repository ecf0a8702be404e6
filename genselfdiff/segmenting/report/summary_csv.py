"""``summary.csv``: one row for each slide that went into a folder of masks, over all runs."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from genselfdiff.errors import InputError, one_line
from genselfdiff.files import write_csv, writing
from genselfdiff.input_files import read_csv_rows
from genselfdiff.segmenting.result import SegmentResult
from genselfdiff.storage.places import Place, Url
from genselfdiff.storage.uploading import worked_on_here
from genselfdiff.text import spreadsheet_cell
from genselfdiff.working_files import alone_at

SUMMARY_NAME = "summary.csv"

_FIRST = ("slide", "mask", "width", "height", "mpp", "tiles", "seconds")
_LAST = ("error",)


class SummaryTable:
    """The table of a folder; rows of slides that do not come again are kept.

    Columns: slide, mask, width and height in pixels, mpp, tiles, seconds, for each class
    ``<class> pixels``, ``<class> mm2`` and, where objects were counted, ``<class> objects``, and
    the error, empty where there was none. Read again before each row is added, and written whole,
    so that a run that is stopped leaves the rows of the slides before, and several runs can share
    a folder.

    Args:
        folder: where masks go; ``summary.csv`` is read and written there.
        elsewhere: where it is fetched from for that, and sent to; None: it stays there.

    Raises:
        InputError: the table that is there is none of ours, or cannot be read.
        OutputError: ``elsewhere``, the folder here cannot be made.
    """

    def __init__(self, folder: Path, elsewhere: Url | None = None) -> None:
        self.path, self._elsewhere = folder / SUMMARY_NAME, elsewhere
        with self._here():
            self._read()

    def add(self, slide: Place, result: SegmentResult | None, error: Exception | None) -> None:
        """Put in the row of a slide, as `add_all` does."""
        self.add_all([(slide, result, error)])

    def add_all(
        self, slides: Iterable[tuple[Place, SegmentResult | None, Exception | None]]
    ) -> None:
        """Put in the rows of slides, in place of earlier ones of the same slides.

        Raises:
            InputError: somebody else has put another file there.
            OutputError: the table cannot be written.
        """
        with self._here():
            rows = self._read()
            for slide, result, error in slides:
                cells = _row(slide, result, error)
                # As they will be read again: the column of slides tells which are of the same one.
                row = {spreadsheet_cell(key): spreadsheet_cell(text) for key, text in cells.items()}
                mask = None if result is None else row["mask"]
                same = [key for key, old in rows.items() if _is_same_slide(old, row, mask)]
                earlier = [rows[key] for key in same if not rows[key]["error"]]
                if result is not None and result.finished_before and earlier:
                    row = _as_made(row, earlier[-1])
                place = row["slide"]  # where its row was
                rows = {key: old for key, old in rows.items() if key == place or key not in same}
                rows[place] = row
            columns = _columns(rows)
            write_csv(
                self.path,
                columns,
                [[row.get(column, "") for column in columns] for row in rows.values()],
            )

    @contextmanager
    def _here(self) -> Iterator[None]:
        """Keep others from the table, and have it where it can be read and written."""
        folder, elsewhere = self.path.parent, self._elsewhere
        with ExitStack() as stack:
            if elsewhere is not None:
                with writing(folder):
                    folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(alone_at(self.path))
            if elsewhere is not None:
                stack.enter_context(worked_on_here(elsewhere, [self.path], fetch=True))
            yield

    def _read(self) -> dict[str, Mapping[str, str]]:
        """The rows that are there, by slide, in their order."""
        if not os.path.lexists(self.path):
            return {}
        try:
            columns, rows = read_csv_rows(self.path)
        except InputError as error:
            raise InputError(f"{error}; or move it elsewhere, if it is not of gsd") from error
        is_ours = {*_FIRST, *_LAST} <= set(columns) and all(row["slide"] for row in rows)
        if not is_ours:
            raise InputError(f"{self.path}: is no summary that gsd has written: move it elsewhere")
        return {row["slide"]: row for row in rows}


def _is_same_slide(old: Mapping[str, str], new: Mapping[str, str], mask: str | None) -> bool:
    """Whether two rows are of one slide, also where its path was written otherwise.

    Then it has the same name, and the same ``mask``; an error has none, but the end of the path.
    """
    if old["slide"] == new["slide"]:
        return True
    paths = [row["slide"].rstrip("/").removeprefix("./").split("/") for row in (old, new)]
    if paths[0][-1] != paths[1][-1]:
        return False
    if mask is not None and old.get("mask") == mask:
        return True
    shorter, longer = sorted(paths, key=len)
    return bool(old["error"]) and longer[-len(shorter) :] == shorter


def _as_made(row: Mapping[str, str], earlier: Mapping[str, str]) -> dict[str, str]:
    """The row of a mask that an earlier run has made, with that one's time and objects."""
    kept = {key: cell for key, cell in earlier.items() if key in row or key.endswith(" objects")}
    return {**kept, **row, "seconds": earlier["seconds"]}


def _row(slide: Place, result: SegmentResult | None, error: Exception | None) -> dict[str, str]:
    row = {"slide": str(slide), "error": "" if error is None else one_line(error)}
    if result is None:
        return row
    row |= {
        "mask": result.files.mask.name,
        "width": str(result.width),
        "height": str(result.height),
        "mpp": "" if result.mpp is None else f"{result.mpp:.6g}",
        "tiles": str(result.tiles),
        "seconds": f"{result.seconds:.1f}",
    }
    for name, count in result.pixels.items():
        row[f"{name} pixels"] = str(count)
        row[f"{name} mm2"] = "" if result.areas is None else f"{result.areas[name]:.6f}"
        if result.objects is not None and name in result.objects:
            row[f"{name} objects"] = str(result.objects[name])
    return row


def _columns(rows: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Those of all rows: runs may have had models of other classes."""
    classes = dict.fromkeys(
        column for row in rows.values() for column in row if column not in (*_FIRST, *_LAST)
    )
    return [*_FIRST, *classes, *_LAST]
