"""Pairs of image and mask: finding them, reading them, and what their masks hold."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from genselfdiff.data.labelled.masks import (
    MASK_SUFFIXES,
    Mask,
    has_soft_edges,
    is_foreground,
    open_mask,
    read_mask,
)
from genselfdiff.data.naming import name_some, stem_of
from genselfdiff.errors import InputError, one_line
from genselfdiff.input_files import is_regular_file
from genselfdiff.slides import IMAGE_SUFFIXES, open_slide, read_image
from genselfdiff.text import counted

logger = logging.getLogger("genselfdiff")

MAX_COUNTED_CLASSES = 32
"""More classes than this are taken for instance numbers, unless the user says how many."""


@dataclass(frozen=True)
class Pair:
    """An image and its mask; ``stem`` is the file name that both share, without its suffix."""

    stem: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class MaskSummary:
    """What a set of masks holds.

    Attributes:
        num_classes: classes to train on, the background among them.
        foreground: every non-zero value has to be read as class 1.
        numbered: of these values there are several, as where each object has its number.
    """

    num_classes: int
    foreground: bool
    numbered: bool


def find_pairs(images_dir: str | Path, masks_dir: str | Path) -> list[Pair]:
    """Pair the images in one folder with the masks in another by file stem; sorted by stem.

    Raises:
        InputError: a folder is missing or empty, two files share a stem, or an image has no mask
            or a mask no image.
    """
    images = by_stem(Path(images_dir), tuple(IMAGE_SUFFIXES), "image")
    masks = by_stem(Path(masks_dir), MASK_SUFFIXES, "mask")
    without_mask = sorted(images.keys() - masks.keys())
    without_image = sorted(masks.keys() - images.keys())
    problems = []
    if without_mask:
        alone = counted(len(without_mask), "image")
        problems.append(f"{alone} without a mask ({name_some(without_mask)})")
    if without_image:
        alone = counted(len(without_image), "mask")
        problems.append(f"{alone} without an image ({name_some(without_image)})")
    if problems:
        raise InputError(
            f"{images_dir} and {masks_dir}: {' and '.join(problems)}: "
            "an image and its mask must have the same file name, suffix aside"
        )
    return [Pair(stem, images[stem], masks[stem]) for stem in sorted(images)]


def inspect_masks(
    pairs: Sequence[Pair],
    foreground: bool = False,
    *,
    num_classes: int | None = None,
    ignore_label: int | None = None,
) -> MaskSummary:
    """Look at every mask and say what they hold; all label errors surface here, before training.

    Of the images only the sizes are looked at.

    Without ``num_classes`` the classes are counted: the largest value (``ignore_label`` aside)
    plus one. Masks that hold 0 and 255 only, sharp or with soft edges, are recognised as foreground
    masks, with a note, unless more than two classes are asked for.

    Raises:
        InputError: a mask cannot be read, has not the size of its image, holds more classes than
            can be meant, or values beyond ``num_classes``; nothing is labelled where the classes
            have to be counted; some masks have numbers of objects and others soft edges; or
            ``ignore_label`` is out of range.
    """
    if ignore_label is not None and not 0 <= ignore_label <= 255:
        raise InputError(f"--ignore-label {ignore_label}: must be from 0 to 255")
    looks = [_look_at(pair, ignore_label) for pair in pairs]
    _tell_oddities(looks)
    labels = frozenset[int]().union(*(look.labels for look in looks))
    two_valued = ignore_label != 255 and num_classes in (None, 2) and 255 in labels
    two_valued = two_valued and all(look.is_soft or look.labels <= {255} for look in looks)
    if two_valued and not foreground:
        logger.info("the masks hold only 0 and 255: 255 is read as class 1 (as by --foreground)")
    foreground = foreground or two_valued
    numbered = [look for look in looks if len(look.labels) > 1 and not look.is_soft]
    if foreground:
        _check_foreground(looks, numbered, ignore_label)
    else:
        limit = MAX_COUNTED_CLASSES if num_classes is None else num_classes
        _require_classes(looks, limit, counted=num_classes is None)
    if num_classes is None:
        if not labels:
            raise InputError(
                f"{pairs[0].mask.parent}: nothing is labelled, every mask is 0 throughout: "
                "give masks that hold class numbers"
            )
        num_classes = 2 if foreground else max(labels) + 1
    return MaskSummary(num_classes, foreground, foreground and bool(numbered))


def load_pair(
    pair: Pair,
    *,
    num_classes: int | None = None,
    foreground: bool = False,
    ignore_label: int | None = None,
    icc: bool = False,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read an image, uint8 (H, W, 3), as `open_slide` with ``icc``, and its labels, uint8 (H, W).

    With ``foreground`` every non-zero value but ``ignore_label`` becomes class 1, of masks with
    soft edges those from half of the largest on; else values must be below ``num_classes`` (256
    where it is None) or equal to ``ignore_label``.

    Raises:
        InputError: a file cannot be read, the sizes differ, or a value is beyond the classes.
    """
    image, values = _read_pair(pair, icc)
    if foreground:
        return image, _foreground_labels(values, ignore_label)
    if values.max() >= (num_classes or 0):
        _require_classes([_Look.of(pair.mask, Mask(values), ignore_label)], num_classes or 256)
    return image, values.astype(np.uint8)


def load_numbered_pair(
    pair: Pair, *, ignore_label: int | None = None, icc: bool = False
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int32]]:
    """Read an image and its labels as `load_pair` does with ``foreground``, and objects' numbers.

    Returns:
        The image, uint8 (H, W, 3), its labels, uint8 (H, W), and the number of the object of each
        pixel, int32 (H, W), 0 where the label is not 1.

    Raises:
        InputError: as `load_pair`.
    """
    image, values = _read_pair(pair, icc)
    labels = _foreground_labels(values, ignore_label)
    return image, labels, np.where(labels == 1, values.astype(np.int32), 0)


def by_stem(folder: Path, suffixes: Sequence[str], kind: str) -> dict[str, Path]:
    """The files of ``kind`` in a folder, by their names without suffix; links count as files.

    What is left out though it looks like a picture, or is a folder, is told.

    Raises:
        InputError: the folder is missing, empty or cannot be read, or two files have the same name.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder: give the folder of the {kind}s")
    found: dict[str, Path] = {}
    left_out: list[str] = []
    for path in _entries(folder):
        suffix = path.suffix.lower()
        if suffix not in suffixes or not is_regular_file(path):
            if suffix in (*suffixes, *Image.registered_extensions()) or path.is_dir():
                left_out.append(path.name)
            continue
        stem = stem_of(path)
        if stem in found:
            raise InputError(
                f"{folder}: {found[stem].name} and {path.name} have the same name, suffix aside: "
                f"leave one {kind} of the two"
            )
        found[stem] = path
    expected = f"files in {', '.join(sorted(suffixes))}"
    if not found:
        raise InputError(f"{folder}: no {kind} in this folder ({expected})")
    if left_out:
        logger.warning(
            "%s: left out: %s (%s): expected as %ss are %s",
            folder,
            counted(len(left_out), "other name"),
            name_some(left_out),
            kind,
            expected,
        )
    return found


def _read_pair(pair: Pair, icc: bool) -> tuple[NDArray[np.uint8], NDArray[np.integer]]:
    """An image and the stored values of its mask, of the same size."""
    image, values = read_image(pair.image, icc=icc), read_mask(pair.mask)
    _require_size(pair, values, *image.shape[:2])
    return image, values


def _foreground_labels(values: NDArray[np.integer], ignore_label: int | None) -> NDArray[np.uint8]:
    labels = is_foreground(values, ignore_label).astype(np.uint8)
    if ignore_label is not None:
        labels[values == ignore_label] = ignore_label
    return labels


def images_in(folders: Iterable[Path]) -> list[Path]:
    """All files in folders that `find_pairs` could take: what no output may replace."""
    return [
        path
        for folder in folders
        if folder.is_dir()
        for path in _entries(folder)
        if path.suffix.lower() in (*IMAGE_SUFFIXES, *MASK_SUFFIXES)
    ]


def _entries(folder: Path) -> list[Path]:
    """What is in a folder but hidden things, by name."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {one_line(error)}") from error


class _Look(NamedTuple):
    """What is in a mask: its values but 0 and the ignored one.

    What is ignored may be an object of that number where it is no larger than others.
    """

    path: Path
    labels: frozenset[int]
    may_ignore_object: bool
    is_soft: bool
    oddity: str

    @classmethod
    def of(cls, path: Path, mask: Mask, ignore_label: int | None) -> "_Look":
        values, counts = np.unique(mask.values, return_counts=True)
        areas: dict[int, int] = dict(zip(values.tolist(), counts.tolist(), strict=True))
        ignored = 0 if ignore_label is None else areas.get(ignore_label, 0)
        labels = frozenset(areas) - {0, ignore_label}
        largest = max((areas[label] for label in labels), default=0)
        is_soft = len(labels) > 1 and has_soft_edges(mask.values, ignore_label)
        return cls(path, labels, 0 < ignored <= largest, is_soft, mask.oddity)


def _look_at(pair: Pair, ignore_label: int | None) -> _Look:
    mask = open_mask(pair.mask)
    with open_slide(pair.image) as image:
        _require_size(pair, mask.values, image.height, image.width)
    return _Look.of(pair.mask, mask, ignore_label)


def _require_size(pair: Pair, values: NDArray[np.integer], height: int, width: int) -> None:
    if values.shape != (height, width):
        raise InputError(
            f"{pair.mask}: {values.shape[1]} x {values.shape[0]} pixels, but {pair.image} has"
            f" {width} x {height}: give the mask of this image"
        )


def _tell_oddities(looks: Sequence[_Look]) -> None:
    for oddity in sorted({look.oddity for look in looks if look.oddity}):
        odd = [look.path for look in looks if look.oddity == oddity]
        logger.warning(
            "%d of %s: each %s (%s)", len(odd), counted(len(looks), "mask"), oddity, name_some(odd)
        )


def _check_foreground(
    looks: Sequence[_Look], numbered: Sequence[_Look], ignore_label: int | None
) -> None:
    """Warn of foreground masks, or refuse them, that are not all of one kind."""
    if ignore_label == 1:
        raise InputError(
            "--ignore-label 1: is the class that foreground gets: give the pixels to ignore another"
            " value in the masks"
        )
    soft = [look for look in looks if look.is_soft]
    if soft and numbered:
        raise InputError(
            f"{soft[0].path} has soft edges, as {len(soft)} of {counted(len(looks), 'mask')}, but"
            f" {numbered[0].path} numbers of objects, as {len(numbered)}: give masks of one kind"
        )
    if soft:
        logger.warning(
            "%d of %s with soft edges: values from half of the largest on are read as class 1 (%s)",
            len(soft),
            counted(len(looks), "mask"),
            name_some([look.path for look in soft]),
        )
    binary = [look for look in looks if look.labels == {255}]
    if numbered and binary:
        logger.warning(
            "%s with several numbers of objects, and %d with 0 and 255 only: what is labelled in"
            " each of these is taken for one object (%s)",
            counted(len(numbered), "mask"),
            len(binary),
            name_some([look.path for look in binary]),
        )
    labels = frozenset[int]().union(*(look.labels for look in numbered))
    if any(look.may_ignore_object for look in looks) and len(labels) > MAX_COUNTED_CLASSES:
        logger.warning(
            "the masks seem to hold instance numbers: those numbered %d are left out as unlabelled",
            ignore_label,
        )


def _require_classes(looks: Sequence[_Look], limit: int, *, counted: bool = False) -> None:
    """Raise InputError where a mask holds a label from ``limit`` on."""
    beyond = [look for look in looks if any(label >= limit for label in look.labels)]
    if not beyond:
        return
    first = beyond[0]
    which = name_some([str(label) for label in sorted(first.labels) if label >= limit])
    problem = "look like instance numbers" if counted else f"are beyond the {limit} classes"
    several = f" (so in {len(beyond)} of {len(looks)} masks)" if len(looks) > 1 else ""
    raise InputError(
        f"{first.path}: mask values {which} {problem}{several}: use --foreground to read every"
        " non-zero value as class 1, or give masks of class numbers, each with a name"
    )
