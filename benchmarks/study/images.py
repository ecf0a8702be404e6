"""The images of the study: parts that train and that test, as folders of links."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from plan import Dataset, Run

from genselfdiff.data.labelled.pairs import Pair, find_pairs
from genselfdiff.data.labelled.splits import split_pairs

SPLIT_SEED = 0
"""Of the parts that test in turn."""


@dataclass(frozen=True)
class Part:
    """Folders of images, of their masks, and of the numbers of their objects, if told apart."""

    images: Path
    masks: Path
    objects: Path | None


@cache
def fingerprint(data: Path, dataset: Dataset) -> str:
    """Hash of the names and bytes of a data set."""
    found = hashlib.sha256()
    for pair in find_pairs(data / dataset.images, data / dataset.masks):
        found.update(pair.stem.encode())
        for path in (pair.image, pair.mask):
            found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()[:16]


def lay(run: Run, data: Path, folder: Path) -> tuple[Part, Part]:
    """Link what the run learns from (labelled or not) and what tests it: two parts.

    A test image is seen by neither stage. Images of a group stay together.
    """
    dataset = run.dataset
    pairs = find_pairs(data / dataset.images, data / dataset.masks)
    development, test = split_pairs(
        pairs,
        seed=SPLIT_SEED,
        group=dataset.group,
        fold=(run.seed % run.folds + 1, run.folds),
    )
    numbers = None if dataset.objects is None else data / dataset.objects
    place = folder / f"{dataset.name}-{run.seed % run.folds + 1}-of-{run.folds}"
    return (
        _link(development, None, place / "development"),
        _link(test, numbers, place / "test"),
    )


def training_images(run: Run, development: Part) -> int | None:
    """How many train at the run's budget, at least one; None: all that do not validate."""
    if run.budget == 1:
        return None
    pairs = find_pairs(development.images, development.masks)
    training, _ = split_pairs(pairs, seed=run.seed, group=run.dataset.group)
    return max(1, round(len(training) / run.budget))


def _link(pairs: Iterable[Pair], numbers: Path | None, folder: Path) -> Part:
    part = Part(folder / "images", folder / "masks", numbers and folder / "objects")
    for pair in pairs:
        _link_one(pair.image, part.images)
        _link_one(pair.mask, part.masks)
        if part.objects is not None and numbers is not None:
            _link_one(numbers / f"{pair.stem}.png", part.objects)
    return part


def _link_one(path: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / path.name
    if not link.exists():
        try:
            link.symlink_to(path.resolve())
        except FileExistsError:  # another process has just made it
            if not link.exists():
                raise
