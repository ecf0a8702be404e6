"""Which slides a run segments, and into which masks."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from genselfdiff.errors import InputError, OutputError, one_line
from genselfdiff.masks import OME_SUFFIXES, is_own_mask
from genselfdiff.segmenting.output_files import MASK_SUFFIXES, every_file
from genselfdiff.slides import find_slides, is_folder_of_slides
from genselfdiff.slides.discovery import name_of
from genselfdiff.storage.listing import is_folder
from genselfdiff.storage.opening import for_each
from genselfdiff.storage.places import Place, Url, place_of
from genselfdiff.storage.uploading import scratch_of


@dataclass(frozen=True)
class Plan:
    """Which slide becomes which mask.

    Attributes:
        pairs: (slide, mask); the mask is a file on this machine.
        folder: where the masks go, to be made if need be; None: the one mask goes beside others.
        elsewhere: the folder that they are sent to from there; None: they stay.
    """

    pairs: tuple[tuple[Place, Path], ...]
    folder: Path | None = None
    elsewhere: Url | None = None

    def make_folder(self) -> None:
        """Make the folder that the masks go to; of those that are sent, where they grow.

        Raises:
            OutputError: it cannot be made.
        """
        folder = self.folder if self.elsewhere is None else self.pairs[0][1].parent
        if folder is not None:
            try:
                folder.mkdir(parents=self.elsewhere is not None, exist_ok=True)
            except OSError as error:
                raise OutputError(f"{folder}: cannot be made: {one_line(error)}") from error


def plan_outputs(
    slides: Sequence[str | Place],
    output: str | Place,
    *,
    ome: bool = False,
    scratch: str | Path | None = None,
) -> Plan:
    """Pair every slide with its mask.

    A single slide goes to the file ``output``, unless that is a folder or ends in a slash. Several
    slides, or a folder of them, go into the folder ``output`` as ``<name>_mask.tif``, with ``ome``
    as ``<name>_mask.ome.tif``. A file named twice counts once. What an earlier run has left is no
    slide: of a folder, the files in an ``output`` within it, masks of ours and those that this run
    writes are left out.

    Masks of an ``output`` by URL are paired with files below ``scratch``, see `scratch_of`.

    Raises:
        InputError: a folder holds no slide, the only slide is missing, or two have the same name.
        OutputError: ``output`` is a file where a folder is needed, or no name for a mask.
    """
    place = place_of(output)
    here = scratch_of(place, scratch) if isinstance(place, Url) else place
    if isinstance(place, Url):
        to_folder, is_file = is_folder(place), False
    else:
        to_folder = str(output).endswith(("/", os.sep)) or place.is_dir()
        is_file = place.exists() and not to_folder
    paths: dict[Place, Place] = {}
    places = [place_of(slide) for slide in slides]
    for slide in places:
        within = _lies_in(place, slide)
        for path in _slides_in(slide) if is_folder_of_slides(slide) else [slide]:
            if not (within and _lies_in(path, place)):
                paths.setdefault(_real(path), path)
    if not paths:
        raise InputError(
            f"{slides[0]}: no slides but masks of gsd and what is in {place}: name other slides"
        )

    first = next(iter(paths.values()))
    is_missing = isinstance(first, Path) and not os.path.exists(first)
    if len(paths) == 1 and is_missing:  # of several, it stops no other
        raise InputError(f"{first}: no such file or folder")

    suffixes = OME_SUFFIXES if ome else MASK_SUFFIXES
    is_named_mask = place.suffix.lower() in MASK_SUFFIXES
    if len(paths) == 1 and not to_folder and not any(map(is_folder_of_slides, places)):
        if not place.name.lower().endswith(suffixes):
            raise OutputError(
                f"{place}: must end in {' or '.join(suffixes)}, or in / to be a folder"
            )
        return Plan(((first, here),), None, place.parent if isinstance(place, Url) else None)
    if not to_folder and (is_named_mask or is_file):
        raise OutputError(f"{place}: is the name of a file: for several slides name a folder")
    masks = {path: here / f"{name_of(path)}_mask{suffixes[0]}" for path in paths.values()}
    written = {_real(place / file.name) for mask in masks.values() for file in every_file(mask)}
    written -= {_real(slide) for slide in places}
    taken: dict[Path, Place] = {}
    for real, path in paths.items():
        if real in written:
            continue
        mask = masks[path]
        if mask in taken:
            raise InputError(
                f"{path}: its mask would have the name of that of {taken[mask]}: segment them"
                " into different folders"
            )
        taken[mask] = path
    pairs = tuple((path, mask) for mask, path in taken.items())
    return Plan(pairs, here, place if isinstance(place, Url) else None)


def _slides_in(folder: Place) -> list[Place]:
    """The slides in a folder, without masks of ours; where it is elsewhere, many are looked at."""
    found = find_slides([folder])
    masks = for_each(found, is_own_mask)
    return [path for path, is_own in zip(found, masks, strict=True) if not is_own]


def _real(place: Place) -> Place:
    """What tells whether two names are those of one file."""
    return Path(os.path.realpath(place)) if isinstance(place, Path) else place


def _lies_in(place: Place, folder: Place) -> bool:
    if isinstance(place, Url) or isinstance(folder, Url):
        return isinstance(place, Url) and isinstance(folder, Url) and place.is_below(folder)
    return Path(os.path.realpath(folder)) in Path(os.path.realpath(place)).parents
