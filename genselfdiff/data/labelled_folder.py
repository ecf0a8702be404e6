"""A folder of labelled images as ``gsd train finetune`` and ``gsd evaluate`` take it.

``images/`` and ``masks/`` hold files of the same names, masks with indices of classes; in
``instances/`` are numbers of objects where they are known. ``classes.csv`` names the classes, and
``fields.csv`` tells of each image its resolution, its objects and where it is from.
"""

import logging
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from genselfdiff.data.folder_parts import replacing, was_begun
from genselfdiff.errors import InputError, OutputError
from genselfdiff.files import atomic_file, write_csv
from genselfdiff.progress import progress_bar
from genselfdiff.slides import open_slide, read_image
from genselfdiff.slides.resolution import agree

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
    none, ``objects`` how many there are where that is known, ``mpps`` the resolutions that are,
    which the images tell.
    """

    folder: Path
    fields: int
    pixels: dict[str, int]
    ignored: int
    objects: int
    mpps: tuple[float, ...]

    def summary(self) -> str:
        """Lines for people, with the command that comes next."""
        total = max(sum(self.pixels.values()) + self.ignored, 1)
        objects = f", {self.objects} objects" if self.objects else ""
        lines = [f"{self.folder}: {self.fields} labelled images{objects}"]
        lines += [
            f"  {index} {name}: {100 * count / total:.2f} % of the pixels"
            for index, (name, count) in enumerate(self.pixels.items())
        ]
        if self.ignored:
            lines.append(
                f"  {IGNORED} not labelled: {100 * self.ignored / total:.2f} % of the pixels"
            )
        names = ",".join(self.pixels)
        mpp = f" --mpp {np.median(self.mpps):.3g}" if self.mpps else " --mpp ..."
        if len(self.mpps) == self.fields:
            mpp = ""
        ignore = f" --ignore-label {IGNORED}" if self.ignored else ""
        lines.append(
            f"next: gsd train finetune --images {self.folder / 'images'} --masks"
            f" {self.folder / 'masks'} --classes '{names}'{mpp}{ignore}"
            " --init ... --out ..."
        )
        return "\n".join(lines)


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
        OutputError: the folder is not empty or cannot be written.
    """
    _require_free(folder, overwrite)
    bar = progress_bar(fields, total=total, desc=folder.name, progress=progress)
    with replacing(folder, PARTS) as begun:
        written = _write_fields(begun, class_names, bar)
    return replace(written, folder=folder)


def _require_free(folder: Path, overwrite: bool) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not overwrite or not folder.is_dir():
        raise OutputError(f"{folder}: is there already: name another folder, or use --overwrite")
    there = [part for part in PARTS if (folder / part).exists()]
    if there and TABLE_NAME not in there and not was_begun(folder):
        raise OutputError(
            f"{folder}: the {there[0]} there are of no import (no {TABLE_NAME}): name another"
            " folder"
        )


def _write_fields(
    folder: Path, class_names: Sequence[str], fields: Iterable[LabelledField]
) -> Written:
    pixels = np.zeros(256, np.int64)
    rows: list[tuple[str, str, str, str]] = []
    objects, mpps = 0, []
    for part in ("images", "masks"):
        (folder / part).mkdir()
    for field in fields:
        if any(field.name == name for name, *_ in rows):
            raise InputError(f"{field.source}: two images would be called {field.name}: rename one")
        told = _write_image(folder / "images", field)
        _write_mask(folder / "masks" / f"{field.name}.png", field.classes)
        count = ""
        if field.instances is not None:
            (folder / "instances").mkdir(exist_ok=True)
            _write_mask(folder / "instances" / f"{field.name}.png", _renumbered(field.instances))
            found = len(np.unique(field.instances[field.instances > 0]))
            objects, count = objects + found, str(found)
        if told is not None:
            mpps.append(told)
        pixels += np.bincount(field.classes.ravel(), minlength=256)
        mpp = "" if told is None else f"{told:.6g}"
        rows.append((field.name, mpp, count, str(field.source)))
    write_csv(folder / TABLE_NAME, ("name", "mpp", "objects", "source"), rows)
    named = [(str(index), name) for index, name in enumerate(class_names)]
    write_csv(folder / "classes.csv", ("value", "class"), named)
    counted = {name: int(pixels[index]) for index, name in enumerate(class_names)}
    return Written(folder, len(rows), counted, int(pixels[IGNORED]), objects, tuple(mpps))


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
    with atomic_file(target) as temporary:
        try:
            shutil.copyfile(image, temporary)
        except OSError as error:
            raise InputError(f"{image}: cannot be read: {error.strerror}") from error


def _write_mask(target: Path, mask: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    with atomic_file(target) as temporary:
        Image.fromarray(mask).save(temporary)


def _renumbered(instances: NDArray[np.int32]) -> NDArray[np.uint16]:
    """Fit for a PNG of 16 bits; numbers that are too high for it are counted anew."""
    if instances.max(initial=0) >= 2**16:
        numbers = np.unique(instances, return_inverse=True)[1]
        return numbers.reshape(instances.shape).astype(np.uint16)
    return instances.astype(np.uint16)
