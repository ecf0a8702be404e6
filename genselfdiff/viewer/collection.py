"""What the page shows: slides, and the masks that belong to each."""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genselfdiff.data.naming import name_some
from genselfdiff.errors import InputError
from genselfdiff.input_files import read_csv_rows
from genselfdiff.masks import MaskReader, is_own_mask
from genselfdiff.resumable_file import unfinished
from genselfdiff.slides import find_slides, is_folder_of_slides
from genselfdiff.slides.discovery import files_below
from genselfdiff.storage.places import Place, Url, place_of
from genselfdiff.viewer.layers import planes_of

logger = logging.getLogger("genselfdiff")

_SUMMARY_NAME = "summary.csv"
"""The table that ``gsd segment`` leaves in a folder of masks."""

_OVERLAY, _JOURNAL = "_overlay.png", ".journal"


@dataclass
class Entry:
    """A slide and what is shown over it.

    Attributes:
        slide: its file.
        layers: masks and probabilities, in the order in which they were found.
        added: masks that were made since.
        areas: of each class but the first of the first mask, as far as the mask tells.
        unit: of these, mm2 or pixels.
        state: "segmented", "unfinished", "failed" or "no mask".
        error: why it has failed, else empty.
    """

    slide: Place
    layers: list[Path] = field(default_factory=list)
    added: list[Path] = field(default_factory=list)
    areas: dict[str, float] = field(default_factory=dict)
    unit: str = "mm\u00b2"
    state: str = "no mask"
    error: str = ""


def collect(paths: Sequence[str | Place]) -> list[Entry]:
    """Sort out which of ``paths`` are slides, and which masks belong to them.

    A mask of gsd belongs to the slide whose name it tells, another to the slide named before it. A
    slide that is not named is looked for where the folder's summary says, and beside the mask.
    What corrections have cut out is shown where its own folder is named only, see `find_slides`.

    Args:
        paths: slides, masks, files of probabilities, and folders of them; slides, or folders of
            slides alone, may be URLs.

    Raises:
        InputError: a path is not there, holds nothing to show, or is a mask without its slide.
    """
    entries = _Entries()
    masks: list[tuple[Path, Place | None]] = []
    begun: list[str] = []
    last: Place | None = None
    further: list[str] = []
    for path in map(place_of, paths):
        in_folder = is_folder_of_slides(path)
        if in_folder and isinstance(path, Path):
            _add_summaries(path, entries)
            journals = sorted(path.rglob(f".*{_JOURNAL}"))
            begun += [_slide_told_by(unfinished(_target(journal))) for journal in journals]
        for file in find_slides([path]):
            if isinstance(file, Url):
                entries.of(file)
                last = None if in_folder else file
                continue
            if in_folder and (_is_overlay(file) or (is_own_mask(file) and not planes_of(file))):
                continue  # pictures of masks, and numbers of objects
            is_own = is_own_mask(file)
            if is_own or (last is not None and not in_folder and planes_of(file) == 1):
                masks.append((file, None if in_folder else last))
                if not is_own:
                    logger.info("%s: taken for a mask of %s", file, last)
            else:
                entries.of(file)
                further += [] if in_folder or last is None else [str(file)]
                last = None if in_folder else file
    if further:
        logger.info(
            "%s: taken for %s: a mask is a TIFF of gsd, or of one grey plane",
            name_some(further),
            "a slide of its own" if len(further) == 1 else "slides of their own",
        )
    for mask, before in masks:
        _lay_over(mask, before, entries)
    for entry in entries:
        if entry.state == "no mask" and entry.slide.name in begun:
            entry.state = "unfinished"
    return list(entries)


class _Entries:
    """Entries by their slides, each once, whatever path leads there."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def of(self, slide: Place) -> Entry:
        key = slide.address if isinstance(slide, Url) else os.path.realpath(slide)
        return self._entries.setdefault(key, Entry(slide))


def _target(journal: Path) -> Path:
    return journal.with_name(journal.name[1 : -len(_JOURNAL)])


def _is_overlay(path: Path) -> bool:
    """Whether a picture is what gsd leaves beside a mask."""
    stem, found, _ = path.name.rpartition(_OVERLAY)
    return bool(found) and path.with_name(f"{stem}.tif").exists()


def _add_summaries(folder: Path, entries: _Entries) -> None:
    """Add slides that ``gsd segment`` has tried, with what became of them."""
    for summary in files_below(folder, {".csv"}):
        if summary.name != _SUMMARY_NAME:
            continue
        columns, rows = read_csv_rows(summary)
        if not {"slide", "mask", "error"} <= set(columns):
            continue
        for row in rows:
            slide = place_of(row["slide"])  # as named where the run was started
            if row["slide"] and isinstance(slide, Path) and os.path.exists(slide):
                entry = entries.of(slide)
                if row["error"]:
                    entry.state, entry.error = "failed", row["error"]


def _lay_over(mask: Path, before: Place | None, entries: _Entries) -> None:
    """Give a mask to its slide, with what it tells of its classes' areas."""
    planes = planes_of(mask) or 1
    with MaskReader(mask, planes) as reader:
        name = _slide_told_by(reader.description.get("job"))
        slide = _slide_of(mask, name, before, entries)
        entry = entries.of(slide)
        entry.layers.append(mask)
        if planes == 1:
            take_areas(reader, entry)


def take_areas(mask: MaskReader, entry: Entry) -> None:
    """Tell of a slide what its first mask tells of its classes' areas."""
    if entry.state == "segmented":
        return
    entry.state, entry.error = "segmented", ""
    pixels = mask.description.get("pixels")
    if isinstance(pixels, list) and all(isinstance(count, int) for count in pixels):
        one = 1.0 if mask.mpp is None else mask.mpp**2 / 1e6
        entry.unit = "px" if mask.mpp is None else entry.unit
        named = zip(mask.class_names, pixels, strict=False)
        entry.areas = {name: count * one for name, count in list(named)[1:]}


def _slide_of(mask: Path, name: str, before: Place | None, entries: _Entries) -> Place:
    """The slide that a mask was made of.

    Args:
        mask: the mask.
        name: of its slide, as it tells; empty: it does not.
        before: the slide that was named before it on the command line.
        entries: the slides that are known.
    """
    if before is not None and (not name or before.name == name):
        return before
    known = [entry.slide for entry in entries if entry.slide.name == name]
    if len(known) > 1:
        raise InputError(
            f"{mask}: its slide is one of {len(known)} that are called {name}: name one of them"
            " before the mask"
        )
    beside = mask.parent / name
    if known or (name and beside.exists()):
        return known[0] if known else beside
    if before is not None:
        return before  # renamed since
    told = f"its slide {name} is not beside it" if name else "does not tell its slide"
    raise InputError(f"{mask}: {told}: name the slide before it, as in 'gsd view SLIDE MASK'")


def _slide_told_by(job: Any) -> str:
    """Name of the slide's file in what a mask or a journal tells of its making, else empty."""
    slide = job.get("slide") if isinstance(job, dict) else None
    # Behind the name stands what tells the slide from others of that name.
    name = slide.rpartition(" ")[0] if isinstance(slide, str) else ""
    return name if Path(name).name == name else ""
