"""What tells artefacts from tissue best: the network of stage 1, plain statistics, or both?

    python benchmarks/unknown/compare.py RUN KNOWN HELD_OUT [--others FOLDER ...] [--mpp 0.25]

RUN is a run of `gsd train pretrain` on the images of the folder KNOWN; those of HELD_OUT it has not
seen. Of both, tiles of 256 pixels are cut edge to edge. Each tile of HELD_OUT is looked at as it is
and with each artefact of ``artefacts.py`` painted in, at random but by --seed. Printed is the area
under the ROC curve (AUC) of every detector of ``detectors.py`` for every artefact: of whole tiles,
and of cells of them, of which those count that the artefact covers by half or more. 0.5 is chance.
Intervals, 95 %, come of resampling the images of HELD_OUT. --others are folders of real tissue that
is not like the known: of other laboratories or organs. All images are taken as stored, at --mpp.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from artefacts import ARTEFACTS
from detectors import Cells, NetworkError, fitted_detectors
from numpy.typing import NDArray
from scipy.stats import rankdata

from genselfdiff.slides import find_slides, read_image

Uint8 = NDArray[np.uint8]
Float = NDArray[np.floating]

TILE = 256
COVERED = 0.5
RESAMPLES = 1000


@dataclass(frozen=True)
class Scored:
    """Scores of cells by detector, and the images that these are of."""

    images: NDArray[np.int64]
    scores: dict[str, Float]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("known", type=Path)
    parser.add_argument("held_out", type=Path)
    parser.add_argument("--others", type=Path, nargs="*", default=[])
    parser.add_argument("--images", type=int, help="of each folder, at most, evenly spread")
    parser.add_argument("--sides", type=int, nargs="*", default=[256, 128, 64])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    network = NetworkError(options.run)
    known, known_images = tiles_of(options.known, options.images)
    held_out, images = tiles_of(options.held_out, options.images)
    sets = {"": (held_out, None, images)}
    for number, (name, paint) in enumerate(ARTEFACTS.items()):
        randoms = (np.random.default_rng((options.seed, number, i)) for i in range(len(held_out)))
        painted = [paint(tile, random) for tile, random in zip(held_out, randoms, strict=True)]
        sets[name] = [tile for tile, _ in painted], np.stack([p for _, p in painted]), images
    for folder in options.others:
        others, of = tiles_of(folder, options.images)
        sets[f"{folder.parent.name}/{folder.name}"] = others, None, of
    errors = {name: network(tiles, 10**6) for name, (tiles, _, _) in sets.items()}
    errors_of_known = network(known, 0)
    for side in options.sides:
        cells_of_known = Cells.of(known, errors_of_known, side)
        each = (TILE // side) ** 2
        detectors, limits = fitted_detectors(cells_of_known, np.repeat(known_images, each))
        found = {}
        for name, (tiles, there, of) in sets.items():
            cells = Cells.of(tiles, errors[name], side)
            kept = np.ones(len(tiles) * each, np.bool_)
            if there is not None:
                least = COVERED if side < TILE else 0.1
                kept = _shares(there, side) >= least
            found[name] = Scored(
                np.repeat(of, each)[kept],
                {key: score(cells)[kept] for key, score in detectors.items()},
            )
        report(side, found, list(detectors))
        report_limits(found, limits)


def tiles_of(folder: Path, most: int | None) -> tuple[list[Uint8], NDArray[np.int64]]:
    """All whole tiles of the images of a folder, from the middle of each, and their images."""
    paths = find_slides([folder])
    if most is not None and len(paths) > most:
        paths = [paths[i * len(paths) // most] for i in range(most)]
    tiles, images = [], []
    for number, path in enumerate(paths):
        image = read_image(path)
        height, width = (length // TILE * TILE for length in image.shape[:2])
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        for y in range(top, top + height, TILE):
            for x in range(left, left + width, TILE):
                tiles.append(np.ascontiguousarray(image[y : y + TILE, x : x + TILE]))
                images.append(number)
    return tiles, np.array(images)


def _shares(there: NDArray[np.bool_], side: int) -> Float:
    """(n, h, w) to the share of each cell that is covered."""
    count, height, width = there.shape
    cut = there.reshape(count, height // side, side, width // side, side)
    return cut.mean((2, 4)).ravel()


def report(side: int, found: dict[str, Scored], detectors: Sequence[str]) -> None:
    """Print the AUC of each detector, and how far the best of each kind are apart."""
    names = [name for name in found if name]
    print(f"\ncells of {side} pixels: " + ", ".join(f"{n} {len(found[n].images)}" for n in found))
    print(f"{'':34}" + "".join(f"{name[:19]:>20}" for name in names) + f"{'mean of artefacts':>20}")
    draws = {}
    for key in detectors:
        row, means, resampled = [], [], []
        for name in names:
            value, drawn = auc(found[""], found[name], key, paired=name in ARTEFACTS)
            row.append(_told(value, drawn))
            if name in ARTEFACTS:
                means.append(value)
                resampled.append(drawn)
        draws[key] = float(np.mean(means)), np.mean(resampled, axis=0)
        cells = "".join(f"{text:>20}" for text in [*row, _told(*draws[key])])
        print(f"{key:34}{cells}", flush=True)
    kinds = {
        kind: max((key for key in detectors if key.startswith(kind)), key=lambda k: draws[k][0])
        for kind in ("network", "statistics", "both")
    }
    for first, second in (("statistics", "network"), ("both", "statistics")):
        a, b = draws[kinds[first]], draws[kinds[second]]
        low, high = np.percentile(a[1] - b[1], (2.5, 97.5))
        print(f"{kinds[first]} - {kinds[second]}: {a[0] - b[0]:+.3f} ({low:+.3f} {high:+.3f})")


def report_limits(found: dict[str, Scored], limits: dict[str, float]) -> None:
    """Print the share of cells beyond the limits: of tissue as it is, false alarms."""
    for key, limit in limits.items():
        shares = [
            f"{n or 'held out'} {np.mean(s.scores[key] > limit):.3f}" for n, s in found.items()
        ]
        print(f"beyond the limit of {key}: {', '.join(shares)}")


def auc(clean: Scored, other: Scored, key: str, *, paired: bool) -> tuple[float, Float]:
    """AUC of a detector, and the same of images drawn anew with replacement.

    Args:
        clean, other: what is told apart.
        key: the detector.
        paired: the images of both are the same, and are drawn together.
    """
    negative, positive = clean.scores[key], other.scores[key]
    random = np.random.default_rng(0)
    drawn = np.empty(RESAMPLES)
    in_clean = int(clean.images.max()) + 1
    in_other = in_clean if paired else int(other.images.max()) + 1
    # How often each positive is above each negative, by image: resampling only weighs these sums.
    wins = np.zeros((in_other, in_clean))
    pairs = np.zeros((in_other, in_clean))
    for i in range(in_other):
        mine = positive[other.images == i]
        for j in range(in_clean):
            theirs = negative[clean.images == j]
            pairs[i, j] = len(mine) * len(theirs)
            if pairs[i, j]:
                ranks = rankdata(np.concatenate((mine, theirs)))[: len(mine)].sum()
                wins[i, j] = ranks - len(mine) * (len(mine) + 1) / 2
    for number in range(RESAMPLES):
        if paired:
            a = b = np.bincount(random.integers(in_clean, size=in_clean), minlength=in_clean)
        else:
            a = np.bincount(random.integers(in_other, size=in_other), minlength=in_other)
            b = np.bincount(random.integers(in_clean, size=in_clean), minlength=in_clean)
        drawn[number] = (a @ wins @ b) / max(a @ pairs @ b, 1)
    return float(wins.sum() / pairs.sum()), drawn


def _told(value: float, drawn: Float) -> str:
    low, high = np.percentile(drawn, (2.5, 97.5))
    return f"{value:.3f} ({low:.2f} {high:.2f})"


if __name__ == "__main__":
    main()
