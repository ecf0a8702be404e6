"""Pairs of image and mask: finding them, reading them, and what their masks hold."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from genselfdiff.data.naming import name_some
from genselfdiff.errors import InputError
from genselfdiff.slides import IMAGE_SUFFIXES, read_image

logger = logging.getLogger("genselfdiff")

MASK_SUFFIXES = (".png", ".tif", ".tiff")

MAX_MASK_PIXELS = 1 << 28

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
        problems.append(f"{len(without_mask)} images without a mask ({name_some(without_mask)})")
    if without_image:
        problems.append(f"{len(without_image)} masks without an image ({name_some(without_image)})")
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

    Without ``num_classes`` the classes are counted: the largest value (``ignore_label`` aside)
    plus one. Masks that hold 0 and 255 only are recognised as foreground masks, with a note,
    unless more than two classes are asked for.

    Raises:
        InputError: a mask cannot be read, holds more classes than can be meant, or values beyond
            ``num_classes``; or nothing is labelled where the classes have to be counted.
    """
    by_pair = [(pair, np.unique(read_mask(pair.mask))) for pair in pairs]
    values = {int(value) for _, found in by_pair for value in found}
    two_valued = values <= {0, 255} and 255 in values and ignore_label != 255
    two_valued = two_valued and num_classes in (None, 2)
    if two_valued and not foreground:
        logger.info("the masks hold only 0 and 255: 255 is read as class 1 (as by --foreground)")
    foreground = foreground or two_valued
    if foreground and ignore_label in values and len(values) > MAX_COUNTED_CLASSES:
        logger.warning(
            "the masks seem to hold instance numbers: those numbered %d are left out as unlabelled",
            ignore_label,
        )
    if not foreground:
        limit = MAX_COUNTED_CLASSES if num_classes is None else num_classes
        for pair, found in by_pair:
            _require_classes(pair.mask, found, limit, ignore_label, counted=num_classes is None)
    if num_classes is None:
        labels = values - {ignore_label}
        if labels <= {0}:
            raise InputError(
                f"{pairs[0].mask.parent}: nothing is labelled, every mask is 0 throughout: "
                "give masks that hold class numbers"
            )
        num_classes = 2 if foreground else max(labels) + 1
    numbered = foreground and len(values - {0, ignore_label}) > 1
    return MaskSummary(num_classes, foreground, numbered)


def load_pair(
    pair: Pair,
    *,
    num_classes: int | None = None,
    foreground: bool = False,
    ignore_label: int | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read an image, uint8 (H, W, 3), and its labels, uint8 (H, W).

    With ``foreground`` every non-zero value but ``ignore_label`` becomes class 1; else values must
    be below ``num_classes`` (256 where it is None) or equal to ``ignore_label``.

    Raises:
        InputError: a file cannot be read, the sizes differ, or a value is beyond the classes.
    """
    image = read_image(pair.image)
    values = read_mask(pair.mask)
    if image.shape[:2] != values.shape:
        raise InputError(
            f"{pair.mask}: {values.shape[1]} x {values.shape[0]} pixels, but {pair.image} has "
            f"{image.shape[1]} x {image.shape[0]}: give the mask of this image"
        )
    if foreground:
        labels = (values != 0).astype(np.uint8)
        if ignore_label is not None:
            labels[values == ignore_label] = ignore_label
        return image, labels
    if values.max() >= (num_classes or 0):
        _require_classes(pair.mask, np.unique(values), num_classes or 256, ignore_label)
    return image, values.astype(np.uint8)


def read_mask(path: Path) -> NDArray[np.integer]:
    """Read an integer mask, (H, W) in its stored type: PNG or TIFF, one channel or three equal.

    A palette image gives its indices; of a file with several pages the first counts.

    Raises:
        InputError: the file cannot be read, or is not such a mask.
    """
    try:
        if path.suffix.lower() in (".tif", ".tiff"):
            with tifffile.TiffFile(path) as file:
                page = file.pages.first
                _require_size(path, page.imagewidth, page.imagelength)
                mask = np.squeeze(page.asarray())
                if page.planarconfig == 2 and mask.ndim == 3:
                    mask = np.moveaxis(mask, 0, -1)
        else:
            with Image.open(path) as file:
                _require_size(path, *file.size)
                mask = np.asarray(file)
    except InputError:
        raise
    # Decoders raise whatever a damaged file makes them stumble over.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: the mask cannot be read ({reason}): replace the file") from error
    if mask.dtype == np.bool_:
        mask = mask.astype(np.uint8)
    if mask.ndim == 3 and mask.shape[2] in (3, 4) and (mask[..., :3] == mask[..., :1]).all():
        mask = mask[..., 0]
    if mask.ndim != 2 or mask.dtype.kind not in "ui" or mask.size == 0:
        kind = f"{mask.dtype} of shape {'x'.join(map(str, mask.shape))}"
        raise InputError(
            f"{path}: {kind} is no label mask: give one channel of integer class numbers"
        )
    if mask.min() < 0:
        raise InputError(f"{path}: negative values are no class numbers: renumber them from 0")
    return mask


def by_stem(folder: Path, suffixes: Sequence[str], kind: str) -> dict[str, Path]:
    """The files of ``kind`` in a folder, by their names without suffix.

    Raises:
        InputError: the folder is missing or empty, or two files have the same name.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder: give the folder of the {kind}s")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        name = path.name.lower()
        if name.startswith(".") or not name.endswith(tuple(suffixes)) or not path.is_file():
            continue
        stem = path.stem
        if stem.lower().endswith(".ome"):
            stem = stem[: -len(".ome")]
        if stem in found:
            raise InputError(
                f"{folder}: {found[stem].name} and {path.name} have the same name, suffix aside: "
                f"leave one {kind} of the two"
            )
        found[stem] = path
    if not found:
        raise InputError(f"{folder}: no {kind} in this folder ({', '.join(sorted(suffixes))})")
    return found


def _require_size(path: Path, width: int, height: int) -> None:
    if width * height > MAX_MASK_PIXELS:
        raise InputError(f"{path}: {width} x {height} pixels are too many: cut the mask into parts")


def _require_classes(
    path: Path,
    values: NDArray[np.integer],
    limit: int,
    ignore_label: int | None,
    *,
    counted: bool = False,
) -> None:
    """Raise InputError where ``values`` holds one from ``limit`` on that is not to be ignored."""
    beyond = [str(value) for value in values if value >= limit and value != ignore_label]
    if not beyond:
        return
    which = f"mask values {name_some(beyond)}"
    problem = "look like instance numbers" if counted else f"are beyond the {limit} classes"
    raise InputError(
        f"{path}: {which} {problem}: use --foreground to read every non-zero value as class 1, or "
        "give masks of class numbers, each with a name"
    )
