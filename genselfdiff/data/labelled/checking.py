"""Looking through labelled images before they are trained on."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from genselfdiff.choices import class_color
from genselfdiff.data.labelled.masks import (
    MASK_SUFFIXES,
    has_soft_edges,
    is_foreground,
    open_mask,
)
from genselfdiff.data.labelled.pairs import by_stem
from genselfdiff.data.naming import name_some
from genselfdiff.errors import InputError
from genselfdiff.files import atomic_file
from genselfdiff.masks import lay_over
from genselfdiff.progress import progress_bar
from genselfdiff.slides import IMAGE_SUFFIXES, read_image
from genselfdiff.text import counted, shown

SHEET_WIDTH = 1600
_SIDE, _GAP, _LETTER = 312, 8, 13
"""Of a picture on the sheet, between two of them, and of the height of its name."""

FOREGROUND_VALUES = (1, 255)
"""That programs give what is not background, where there is one class."""

_COLOURS = 248
"""Values beyond are drawn in the colours of those from 1 on: so many are whole rounds of them."""


@dataclass
class FolderCheck:
    """What is in folders of images and masks.

    Attributes:
        pairs: how many images have a mask of their size.
        sizes: how many of them have each (width, height).
        pixels: of each value of the masks.
        images_with: how many masks hold each value.
        problems: a line for each.
    """

    pairs: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    pixels: Counter[int] = field(default_factory=Counter)
    images_with: Counter[int] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def summary(self, most: int = 32) -> str:
        """Lines for people; of more than ``most`` values of masks the number is told."""
        sizes = ", ".join(f"{count} of {w} x {h}" for (w, h), count in self.sizes.most_common(5))
        more = f" and {counted(len(self.sizes) - 5, 'other size')}" if len(self.sizes) > 5 else ""
        lines = [counted(self.pairs, "labelled image") + (f": {sizes}{more}" if sizes else "")]
        total = max(self.pixels.total(), 1)
        if len(self.pixels) > most:
            lines.append(
                f"  {len(self.pixels)} values in the masks: numbers of instances? (--foreground)"
            )
        else:
            lines += [
                f"  value {value}: {100 * count / total:.2f} % of the pixels, in"
                f" {counted(self.images_with[value], 'image')}"
                for value, count in sorted(self.pixels.items())
            ]
        problems = counted(len(self.problems), "problem") if self.problems else "no problems"
        return "\n".join([*lines, *(f"  {shown(problem)}" for problem in self.problems), problems])


def check_folders(
    images: Path,
    masks: Path,
    *,
    foreground: bool = False,
    sheet: Path | None = None,
    progress: bool | None = None,
) -> FolderCheck:
    """Read all images and masks; nothing but a missing folder ends it.

    Problems are files without a partner, that cannot be read or differ in size, pictures that are
    there several times, and masks that hold nothing, have soft edges, are not read as they are
    stored, or have other values for the same than others.

    Args:
        images, masks: folders with files of the same names, suffix aside.
        foreground: every value but 0 is one class, as in training with ``foreground``: what differs
            among them is no problem.
        sheet: a .png to write, see ``contact_sheet``.
        progress: show a bar; None: on a terminal only.

    Raises:
        InputError: a folder is missing or empty, or holds two files of one name.
        OutputError: the sheet cannot be written.
    """
    image_files = by_stem(images, tuple(IMAGE_SUFFIXES), "image")
    mask_files = by_stem(masks, MASK_SUFFIXES, "mask")
    found = FolderCheck()
    stems = sorted(image_files.keys() & mask_files.keys())
    alone = sorted(image_files.keys() ^ mask_files.keys())
    if not stems:
        found.problems.append(f"{images} and {masks}: no image has a mask of its name")
        alone = []
    for stem in alone:
        lonely, what = (
            (image_files[stem], "mask") if stem in image_files else (mask_files[stem], "image")
        )
        found.problems.append(f"{lonely}: has no {what}")
    same: dict[str, list[Path]] = defaultdict(list)
    binary: dict[int, list[Path]] = defaultdict(list)
    is_one_kind = True
    pictures: list[NDArray[np.uint8]] = []
    for stem in progress_bar(stems, desc="check", progress=progress):
        try:
            image = read_image(image_files[stem])
            mask, oddity = open_mask(mask_files[stem])
        except InputError as error:
            found.problems.append(str(error))
            continue
        same[hashlib.sha256(image.tobytes()).hexdigest()].append(image_files[stem])
        height, width = image.shape[:2]
        if mask.shape != (height, width):
            found.problems.append(
                f"{mask_files[stem]}: {mask.shape[1]} x {mask.shape[0]} pixels, but"
                f" {image_files[stem]} has {width} x {height}"
            )
            continue
        is_soft = has_soft_edges(mask) and not foreground
        if foreground:
            mask = is_foreground(mask).astype(np.uint8)
        values, counts = np.unique(mask, return_counts=True)
        found.pairs += 1
        found.sizes[width, height] += 1
        found.pixels.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        found.images_with.update(values.tolist())
        if not values.any():
            found.problems.append(f"{mask_files[stem]}: holds nothing but 0")
        if oddity:
            found.problems.append(f"{mask_files[stem]}: {oddity}")
        if is_soft:
            found.problems.append(f"{mask_files[stem]}: has soft edges: values between 0 and 255")
        labels = values[values > 0]
        if len(labels) == 1 and labels[0] in FOREGROUND_VALUES:
            binary[int(labels[0])].append(mask_files[stem])
        # Beside classes 255 is what nobody has labelled, and so it may be alone elsewhere.
        is_one_kind = is_one_kind and (is_soft or len(labels) < 2 or 255 not in labels)
        if sheet is not None:
            pictures.append(_thumbnail(image, mask, stem))
    for paths in same.values():
        if len(paths) > 1:
            found.problems.append(f"{', '.join(map(str, paths))}: the same picture")
    if len(binary) > 1 and is_one_kind:
        kinds = (
            f"{len(paths)} hold 0 and {value} ({name_some(paths)})"
            for value, paths in binary.items()
        )
        found.problems.append(
            f"{masks}: of the masks {', '.join(kinds)}: one value has to mean one thing"
        )
    if sheet is not None and pictures:
        with atomic_file(sheet) as temporary:
            Image.fromarray(contact_sheet(pictures)).save(temporary, format="PNG")
    return found


def contact_sheet(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Lay out square (side, side, 3) pictures row by row, (h, w, 3), as wide as SHEET_WIDTH."""
    side = pictures[0].shape[0] + _GAP
    columns = min(SHEET_WIDTH // side, len(pictures))
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * side, columns * side, 3), 255, np.uint8)
    for number, picture in enumerate(pictures):
        top, left = (number // columns) * side, (number % columns) * side
        sheet[top : top + side - _GAP, left : left + side - _GAP] = picture
    return sheet


def _thumbnail(image: NDArray[np.uint8], mask: NDArray[np.integer], name: str) -> NDArray[np.uint8]:
    """The image with its mask laid over and its name at the bottom, within a white square."""
    height, width = mask.shape
    scale = min(_SIDE / max(height, width), 1.0)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX, reducing_gap=2))
    labels = np.where(mask > 0, (mask.astype(np.int64) - 1) % _COLOURS + 1, 0).astype(np.uint8)
    labels = np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
    palette = [class_color(index) for index in range(_COLOURS + 1)]
    square = np.full((_SIDE, _SIDE, 3), 255, np.uint8)
    square[: size[1], : size[0]] = lay_over(small, labels, palette)
    picture = Image.fromarray(square)
    pen = ImageDraw.Draw(picture)
    place, label = (2, _SIDE - _LETTER), shown(name)
    pen.rectangle(pen.textbbox(place, label), fill="white")
    pen.text(place, label, fill="black")
    return np.asarray(picture)
