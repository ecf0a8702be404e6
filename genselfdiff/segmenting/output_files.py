"""The files that segmenting a slide leaves, by their names."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from genselfdiff.errors import InputError, OutputError
from genselfdiff.files import refuse_existing, require_folder
from genselfdiff.objects import TABLE_SUFFIXES, check_table
from genselfdiff.objects.many_masks import (
    GEOJSON_ENDING,
    LABELS_ENDING,
    TABLE_ENDING,
    stem_of,
)
from genselfdiff.segmenting.options import Options
from genselfdiff.slides.discovery import PROBABILITIES_ZARR
from genselfdiff.storage.places import Url

MASK_SUFFIXES = (".tif", ".tiff")
OVERLAY_SUFFIXES = (".png",)

PROBABILITIES_ENDING = "_probabilities.tif"


class OutputFiles(NamedTuple):
    """The mask, and what is wanted beside it."""

    mask: Path
    overlay: Path | None = None
    geojson: Path | None = None
    probabilities: Path | None = None
    table: Path | None = None
    report: Path | None = None
    labels: Path | None = None

    @classmethod
    def of(cls, mask: Path, options: Options) -> "OutputFiles":
        """Name the files that go with ``mask``."""
        overlay, stem = options.overlay, stem_of(mask)
        if overlay is True:
            overlay = mask.with_name(f"{stem}_overlay.png")
        unseen = options.instances and not (options.geojson or options.labels)
        table = options.table or unseen
        if table is True:
            table = mask.with_name(stem + TABLE_ENDING)
        return cls(
            mask,
            Path(overlay) if overlay else None,
            mask.with_name(stem + GEOJSON_ENDING) if options.geojson else None,
            mask.with_name(stem + PROBABILITIES_ENDING) if options.probabilities else None,
            Path(table) if table else None,
            mask.with_name(f"{stem}.html") if options.report else None,
            mask.with_name(stem + LABELS_ENDING) if options.labels else None,
        )

    def all(self) -> list[Path]:
        """Those that are written."""
        return [path for path in self if path is not None]

    def check(self) -> None:
        """Raise OutputError unless files of these names can be written."""
        _check_target(self.mask, MASK_SUFFIXES)
        if self.overlay is not None:
            _check_target(self.overlay, OVERLAY_SUFFIXES)
        if self.table is not None:
            _check_target(self.table, TABLE_SUFFIXES)
            check_table(self.table)

    def refuse_existing(self, *, overwrite: bool = False, but_probabilities: bool = False) -> None:
        """Raise OutputError if one of them is there that is not to be replaced.

        Args:
            overwrite: replace files.
            but_probabilities: the probabilities may be there.
        """
        for path in self.all():
            refuse_existing(path, overwrite or (but_probabilities and path == self.probabilities))


def zarr_of(mask: Path) -> Path:
    """The folder beside ``mask`` with its probabilities as OME-Zarr."""
    return mask.with_name(stem_of(mask) + PROBABILITIES_ZARR)


def refuse_sent_zarr(elsewhere: Url, options: Options) -> None:
    """Raise InputError where a folder would have to be sent with a mask."""
    if options.zarr:
        raise InputError(
            f"{elsewhere}: an OME-Zarr is written on this machine only: leave out --zarr"
        )


def every_file(mask: Path) -> list[Path]:
    """All files that could lie beside ``mask``."""
    every = Options(
        overlay=True, geojson=True, probabilities=True, table=True, report=True, labels=True
    )
    return OutputFiles.of(mask, every).all()


def _check_target(target: Path, suffixes: Sequence[str]) -> None:
    require_folder(target)
    if target.suffix.lower() not in suffixes:
        raise OutputError(f"{target}: must end in {' or '.join(suffixes)}: name it so")
