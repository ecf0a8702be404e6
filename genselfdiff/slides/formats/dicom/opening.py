"""Opening whole slide images in DICOM (PS3.3, A.32.8): the files of one series are one slide."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack

from genselfdiff.errors import InputError, one_line
from genselfdiff.slides.formats.dicom.instance import Instance
from genselfdiff.slides.formats.dicom.level import DicomLevel
from genselfdiff.slides.formats.dicom.series import files_of_series
from genselfdiff.slides.stored.damage import Damage
from genselfdiff.slides.stored.notes import tell_once
from genselfdiff.slides.stored.stated_resolution import believed
from genselfdiff.slides.stored.stored_image import StoredImage, is_reduction
from genselfdiff.storage.opening import for_each, open_stored
from genselfdiff.storage.places import Place
from genselfdiff.storage.stored_file import StoredFile
from genselfdiff.text import counted

_SLIDE = "VOLUME"


def open_dicom(path: Place, damage: Damage) -> StoredImage:
    """Open a whole slide image, of which ``path`` is the folder or any one file.

    Pictures of label and glass are no part of it.

    Raises:
        InputError: there is no such image, or a file is damaged, missing, or of a kind that is not
            read.
    """
    with ExitStack() as opened:
        files = for_each(files_of_series(path), open_stored)
        for file in files:
            opened.enter_context(file)
        levels = _levels(_slide_of(files, path), path)
        main = levels[0][0]
        stored: list[DicomLevel] = []
        for level in levels:
            try:
                stored.append(DicomLevel(level, damage, stored[-1] if stored else None))
            except InputError:
                raise
            except Exception as error:  # whatever damaged elements lead to
                raise InputError(
                    f"{level[0].path}: is no readable DICOM slide ({one_line(error)}); is it whole?"
                ) from error
        close = opened.pop_all().close
    ahead_bytes = main.file.ahead_bytes
    return StoredImage(tuple(stored), *believed(main.pixel_size()), main.icc, close, ahead_bytes)


def _slide_of(files: Sequence[StoredFile], path: Place) -> list[list[Instance]]:
    """What is of the slide itself in open files, those of a level together."""
    read = [Instance.read(file) for file in files]
    instances = [instance for instance in read if instance is not None]
    if not instances:
        raise InputError(f"{path}: is DICOM, but no whole slide image")
    slides = [instance for instance in instances if instance.flavor == _SLIDE]
    if not slides:
        others = ", ".join(sorted({instance.flavor or "untold" for instance in instances}))
        raise InputError(f"{path}: none of its images is that of the slide; there are: {others}")
    return [_parts(group, path) for group in _concatenations(slides)]


def _concatenations(instances: Sequence[Instance]) -> list[list[Instance]]:
    """Bring files that share the frames of a level together."""
    groups: dict[str, list[Instance]] = {}
    for instance in instances:
        groups.setdefault(instance.concatenation or str(instance.path), []).append(instance)
    return list(groups.values())


def _parts(group: Sequence[Instance], path: Place) -> list[Instance]:
    """The files of a level in their order.

    Raises:
        InputError: one is missing, or they do not belong together.
    """
    parts = sorted(group, key=lambda instance: instance.part)
    main = parts[0]
    if not main.concatenation:
        return parts
    there = [instance.part for instance in parts]
    wanted = range(1, max(main.parts, *there) + 1)
    if there != list(wanted):
        missing = ", ".join(str(part) for part in wanted if part not in there)
        raise InputError(
            f"{path}: a level of it is stored in {counted(len(wanted), 'file')}, and"
            f" {f'part {missing} is missing' if missing else 'one is there twice'}"
        )
    first = 0
    for instance in parts:
        alike = (instance.size, instance.tile, instance.syntax, instance.colours)
        if instance.first_frame != first or alike != (
            main.size, main.tile, main.syntax, main.colours
        ):  # fmt: skip
            raise InputError(f"{instance.path}: does not go on where {main.path.name} ends")
        first += instance.number
    return parts


def _levels(images: Sequence[list[Instance]], path: Place) -> list[list[Instance]]:
    """The largest image, and what is made of it, largest first; others are told."""
    main = max(images, key=lambda parts: parts[0].width * parts[0].height)
    by_size = {main[0].size: main}
    left: dict[tuple[int, int], None] = {}
    for parts in images:
        if parts is main:
            continue
        size, pyramid = parts[0].size, parts[0].pyramid
        is_own = "" in (pyramid, main[0].pyramid) or pyramid == main[0].pyramid
        if is_own and size not in by_size and is_reduction(main[0].size, size):
            by_size[size] = parts
        else:
            left[size] = None
    if left:
        listed = ", ".join(f"{width} x {height}" for width, height in list(left)[:3])
        tell_once(
            logging.WARNING,
            f"{path}: the image of {main[0].width} x {main[0].height} pixels is read, others in the"
            f" series are not: {listed}{', ...' if len(left) > 3 else ''}",
        )
    return [by_size[size] for size in sorted(by_size, reverse=True)]
