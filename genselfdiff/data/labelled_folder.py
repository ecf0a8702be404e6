"""A folder of labelled images as ``gsd train finetune`` and ``gsd evaluate`` take it.

``images/`` and ``masks/`` hold files of the same names, masks with indices of classes; in
``instances/`` are numbers of objects where they are known. In both, 255 is what nobody has
labelled. ``classes.csv`` names the classes, and ``fields.csv`` tells of each image its resolution,
its objects and where it is from.
"""

import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from genselfdiff.choices import DEFAULT_MODEL
from genselfdiff.data.folder_parts import replacing
from genselfdiff.data.naming import name_some
from genselfdiff.errors import InputError, OutputError
from genselfdiff.files import atomic_file, refuse_inputs, write_csv, writing
from genselfdiff.input_files import is_regular_file, open_input, read_csv_rows
from genselfdiff.progress import progress_bar
from genselfdiff.slides import IMAGE_SUFFIXES, open_slide, read_image
from genselfdiff.slides.resolution import agree
from genselfdiff.text import counted, shell_command, shown, spreadsheet_cell

logger = logging.getLogger("genselfdiff")

IGNORED = 255
"""In a mask: nobody has said what this pixel is."""

TABLE_NAME = "fields.csv"
PARTS = ("images", "masks", "instances", "classes.csv", TABLE_NAME)
"""Of a folder; the last is put there last."""


@dataclass(frozen=True)
class LabelledField:
    """A labelled image.

    Attributes:
        name: that its files get, without suffix.
        image: the file to copy, or its (H, W, 3) uint8 pixels.
        classes: (H, W) uint8 indices of classes.
        instances: (H, W) numbers of objects, 0 where none is; None: not known.
        mpp: micrometres per pixel, or None.
        source: the file with the labels.
    """

    name: str
    image: Path | NDArray[np.uint8]
    classes: NDArray[np.uint8]
    instances: NDArray[np.int32] | None
    mpp: float | None
    source: Path


@dataclass(frozen=True)
class Written:
    """What was written.

    ``fields`` is the number of images, ``pixels`` their pixels by class and ``ignored`` those of
    none, ``objects`` how many there are where that is known, ``numbered`` whether it is known of
    all images, one of which has several, ``mpps`` the resolutions that are, which the images tell.
    """

    folder: Path
    fields: int
    pixels: dict[str, int]
    ignored: int
    objects: int
    numbered: bool
    mpps: tuple[float, ...]

    def summary(self) -> str:
        """Lines for people, the last of which is the command that comes next, to be pasted."""
        total = max(sum(self.pixels.values()) + self.ignored, 1)
        objects = f", {counted(self.objects, 'object')}" if self.objects else ""
        lines = [f"{self.folder}: {counted(self.fields, 'labelled image')}{objects}"]
        lines += [
            f"  {index} {shown(name)}: {100 * count / total:.2f} % of the pixels"
            for index, (name, count) in enumerate(self.pixels.items())
        ]
        if self.ignored:
            lines.append(
                f"  {IGNORED} not labelled: {100 * self.ignored / total:.2f} % of the pixels"
            )
        if self.fields < 2:
            lines.append("training takes two images at least, of which one validates")
        command: list[str | Path] = ["gsd", "train", "finetune", self.folder]
        command += ["--init", DEFAULT_MODEL]
        if self.numbered and len(self.pixels) == 2:
            command.append("--instances")
        if not self.mpps:
            lines.append("no image tells its resolution: add --mpp, in um/px")
        elif len(self.mpps) < self.fields:
            command += ["--mpp", f"{np.median(self.mpps):.3g}"]
        lines.append(f"next: {shell_command([*command, '--out', _new_run(self.folder)])}")
        return "\n".join(lines)


def _new_run(folder: Path) -> Path:
    """A folder for a run, beside ``folder``, that is not there yet."""
    begin = folder.with_name(f"{folder.name}-run") if folder.name else folder / "run"
    further = (begin.with_name(f"{begin.name}{number}") for number in count(2))
    return next(path for path in chain([begin], further) if not os.path.lexists(path))


def write_fields(
    folder: Path,
    class_names: Sequence[str],
    fields: Iterable[LabelledField],
    *,
    total: int | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
) -> Written:
    """Write labelled images into ``folder``, which gets all of them or stays as it was.

    Images whose files do not tell their resolution, but whose labels do, become TIFFs that tell it.

    Args:
        folder: made if it is not there.
        class_names: of index 0, the background, and so on.
        fields: the images.
        total: how many there are, for the progress bar.
        overwrite: replace all that an earlier call has written into the folder.
        progress: show a bar; None: on a terminal only.

    Raises:
        InputError: as iterating over ``fields``, or two have the same name.
        OutputError: the folder is not empty, holds what is read, or cannot be written.
    """
    bar = progress_bar(fields, total=total, desc=folder.name, progress=progress)
    with replacing(folder, PARTS) as begun:
        _require_replaceable(folder, begun, overwrite)
        written = _write_fields(begun, class_names, _apart_from(folder, bar))
    return replace(written, folder=folder)


def _apart_from(folder: Path, fields: Iterable[LabelledField]) -> Iterator[LabelledField]:
    """The fields; raises OutputError where one is read from what would be replaced."""
    for field in fields:
        image = [field.image] if isinstance(field.image, Path) else []
        refuse_inputs([folder / part for part in PARTS], [field.source, *image])
        yield field


def _require_replaceable(folder: Path, begun: Path, overwrite: bool) -> None:
    """Raise OutputError where anything but ``begun`` is there that would be lost."""
    with writing(folder):
        others = [path.name for path in folder.iterdir() if path != begun]
    if not others:
        return
    if not overwrite:
        raise OutputError(f"{folder}: is there already: name another folder, or use --overwrite")
    there = [folder / part for part in PARTS if part in others]
    if there and not is_regular_file(folder / TABLE_NAME):
        raise OutputError(
            f"{folder}: the {there[0].name} there are of no import (no {TABLE_NAME}): name another"
            " folder"
        )
    with writing(folder):
        foreign = [path for part in there for path in _foreign_in(part)]
    if foreign:
        raise OutputError(
            f"{name_some(foreign)}: not written by the import that would be replaced: move"
            f" {'it' if len(foreign) == 1 else 'them'} away, or name another folder"
        )


def _foreign_in(part: Path) -> Iterator[Path]:
    """What of a part of an earlier import is not of it."""
    if part.suffix:
        if part.is_symlink() or not part.is_file():
            yield part
        return
    if part.is_symlink() or not part.is_dir():
        yield part
        return
    rows = read_csv_rows(part.parent / TABLE_NAME)[1]
    names = {row.get("name") for row in rows}
    for path in sorted(part.iterdir()):
        is_named = spreadsheet_cell(path.stem) in names and path.suffix in IMAGE_SUFFIXES
        if not is_named or path.is_symlink() or not path.is_file():
            yield path


def _write_fields(
    folder: Path, class_names: Sequence[str], fields: Iterable[LabelledField]
) -> Written:
    pixels = np.zeros(256, np.int64)
    rows: list[tuple[str, str, str, str]] = []
    counts: list[int | None] = []
    mpps = []
    for part in ("images", "masks"):
        (folder / part).mkdir()
    for field in fields:
        mask = folder / "masks" / f"{field.name}.png"
        if os.path.lexists(mask):  # also by a name that this file system takes for the same
            raise InputError(f"{field.source}: two images would be called {field.name}: rename one")
        told = _write_image(folder / "images", field)
        _write_mask(mask, field.classes)
        found = None
        if field.instances is not None:
            found = _write_numbers(folder / "instances" / field.name, field)
        counts.append(found)
        if told is not None:
            mpps.append(told)
        pixels += np.bincount(field.classes.ravel(), minlength=256)
        mpp = "" if told is None else f"{told:.6g}"
        objects = "" if found is None else str(found)
        rows.append((field.name, mpp, objects, str(field.source)))
    named = [(str(index), name) for index, name in enumerate(class_names)]
    write_csv(folder / "classes.csv", ("value", "class"), named)
    write_csv(folder / TABLE_NAME, ("name", "mpp", "objects", "source"), rows)
    known = [found for found in counts if found is not None]
    return Written(
        folder,
        fields=len(rows),
        pixels={name: int(pixels[index]) for index, name in enumerate(class_names)},
        ignored=int(pixels[IGNORED]),
        objects=sum(known),
        numbered=len(known) == len(counts) and max(known, default=0) > 1,
        mpps=tuple(mpps),
    )


def require_names(names: Sequence[str], where: Path | str) -> None:
    """Raise InputError, with ``where`` they are from, unless these can be the names of classes."""
    if len(set(names)) != len(names) or not all(name.strip() for name in names):
        raise InputError(f"{where}: classes {', '.join(names)}: each needs a name of its own")
    if len(names) < 2:
        raise InputError(f"{where}: nothing has a class but the background")
    if len(names) > IGNORED:
        raise InputError(f"{where}: {len(names)} classes: at most {IGNORED} can be numbered")


def _write_image(folder: Path, field: LabelledField) -> float | None:
    """Write the image; return the resolution that it tells."""
    pixels = field.image
    if isinstance(pixels, Path):
        with open_slide(pixels) as slide:
            own = slide.mpp
        if own is not None and field.mpp is not None and not agree(field.mpp, own):
            logger.warning(
                "%s: %g um/px, but %s tells %g, which stays", field.source, field.mpp, pixels, own
            )
        if own is not None or field.mpp is None:
            _copy(pixels, folder / f"{field.name}{pixels.suffix.lower()}")
            return own
        pixels = read_image(pixels)
    with atomic_file(folder / f"{field.name}.tif") as temporary:
        resolution = None if field.mpp is None else (1e4 / field.mpp, 1e4 / field.mpp)
        tifffile.imwrite(
            temporary,
            pixels,
            photometric="rgb",
            compression="zlib",
            predictor=True,
            resolution=resolution,
            resolutionunit=None if resolution is None else "CENTIMETER",
        )
    return field.mpp


def _copy(image: Path, target: Path) -> None:
    with (
        open_input(image) as source,
        atomic_file(target) as temporary,
        temporary.open("wb") as copy,
    ):
        shutil.copyfileobj(source, copy)


def _write_mask(target: Path, mask: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    with atomic_file(target) as temporary:
        Image.fromarray(mask).save(temporary)


def _write_numbers(target: Path, field: LabelledField) -> int:
    """Write numbers of objects to ``target`` with a suffix; return how many objects there are.

    As a PNG of 16 bits, counted anew where they are too high for it, or a TIFF of 32 bits. No
    object has the number `IGNORED`, which says what it says in masks.
    """
    assert field.instances is not None
    target.parent.mkdir(exist_ok=True)
    found = np.union1d(0, field.instances)
    count = len(found) - 1
    numbers = field.instances.astype(np.int64)
    if int(found[-1]) + 1 >= 2**16 > count + 1:
        numbers = np.searchsorted(found, field.instances)
    numbers += numbers >= IGNORED
    numbers[field.classes == IGNORED] = IGNORED
    if count + 1 < 2**16:
        _write_mask(target.with_name(f"{target.name}.png"), numbers.astype(np.uint16))
    else:
        with atomic_file(target.with_name(f"{target.name}.tif")) as temporary:
            tifffile.imwrite(temporary, numbers.astype(np.uint32), compression="zlib")
    return count
