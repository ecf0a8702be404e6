"""Known tissue: the statistics of its cells, and how far others are from them."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genselfdiff.errors import InputError
from genselfdiff.files import write_text
from genselfdiff.input_files import read_json
from genselfdiff.settings import check_mpp
from genselfdiff.unknown.cell_statistics import STATISTICS

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

NEIGHBOURS = 5
"""Known cells that a cell is compared with: the nearest."""

MOST_CELLS = 4096
"""Kept of the known; more cost time, and were not seen to tell more."""

LIMIT = 0.99
"""Share of known cells that are no further from those of other images than ``limit``."""

_SHRINKAGE = 0.02
"""Of correlations: without it, numbers that go together by definition would decide."""

_FORMAT = "genselfdiff-known-tissue"
_AT_ONCE = 1024
"""Cells that are compared at once: bounds memory."""


@dataclass(frozen=True, eq=False)
class KnownTissue:
    """Cells of known tissue; made by ``of``.

    Distances are between statistics that are scaled and turned so that those of known cells have
    variance 1 and no correlation (Mahalanobis 1936).

    Attributes:
        mpp: um/px at which cells are seen.
        side: of a cell in pixels.
        mean: (n,) of the known cells' statistics.
        whitening: (n, n) that brings statistics without their mean to where distances are taken.
        points: (m, n) known cells there.
        limit: distance beyond which a cell is unlike them.
        icc: colours were read by ICC profiles, as those that are compared have to be.
    """

    mpp: float
    side: int
    mean: Float64
    whitening: Float64
    points: Float32
    limit: float
    icc: bool = False

    @classmethod
    def of(
        cls, images: Sequence[NDArray[np.floating]], mpp: float, side: int, icc: bool = False
    ) -> "KnownTissue":
        """Learn what is known.

        Args:
            images: of each image (cells, n) statistics. Each cell is compared with those of other
                images to find ``limit``; of one image alone, with its other cells.
            mpp, side, icc: see above.

        Raises:
            InputError: there are too few cells.
        """
        cells = np.concatenate([each.reshape(-1, each.shape[-1]) for each in images])
        image = np.repeat(np.arange(len(images)), [len(each) for each in images])
        if len(cells) <= 4 * cells.shape[1]:
            raise InputError(
                f"{len(cells)} cells of {side} x {side} pixels at {mpp:g} um/px are too few to"
                f" know tissue by: give more or larger images, at least {4 * cells.shape[1] + 1}"
                " cells of tissue"
            )
        if len(cells) > MOST_CELLS:
            kept = np.arange(MOST_CELLS) * len(cells) // MOST_CELLS
            cells, image = cells[kept], image[kept]
        mean, spread = cells.mean(0, dtype=np.float64), cells.std(0, dtype=np.float64)
        spread = np.maximum(spread, 1e-6)
        scaled = (cells - mean) / spread
        correlation = scaled.T @ scaled / len(cells)
        correlation = correlation * (1 - _SHRINKAGE) + _SHRINKAGE * np.eye(len(mean))
        values, vectors = np.linalg.eigh(correlation)
        whitening = vectors / np.sqrt(values) / spread[:, None]
        points = ((cells - mean) @ whitening).astype(np.float32)
        several = len(images) > 1
        distances = [
            _nearest(points[image == i], points[image != i] if several else points, several)
            for i in range(len(images))
        ]
        limit = float(np.quantile(np.concatenate(distances), LIMIT))
        return cls(mpp, side, mean, whitening, points, limit, icc)

    def whitened(self, statistics: NDArray[np.floating]) -> Float64:
        """Statistics (..., n) where distances are taken."""
        return (statistics - self.mean) @ self.whitening

    def distances(self, statistics: NDArray[np.floating]) -> Float32:
        """Mean distance of cells (..., n) to the nearest known ones, (...) float32."""
        points = self.whitened(statistics.reshape(-1, len(self.mean))).astype(np.float32)
        return _nearest(points, self.points, True).reshape(statistics.shape[:-1])

    def unlikeness(self, statistics: NDArray[np.floating]) -> Float32:
        """How unlike the known cells (..., n) are, (...) float32 from 0 to 1.

        Proportional to their distance, 0.5 at ``limit``, and 1 from twice that on.
        """
        return np.minimum(self.distances(statistics) / np.float32(2 * self.limit), np.float32(1))

    def write(self, path: str | Path) -> None:
        """Write it as JSON, some 500 kB.

        Raises:
            OutputError: the file cannot be written.
        """
        content = {
            "format": _FORMAT,
            "format_version": 1,
            "mpp": self.mpp,
            "side": self.side,
            "limit": self.limit,
            "icc": self.icc,
            "statistics": list(STATISTICS),
            "mean": self.mean.tolist(),
            "whitening": self.whitening.tolist(),
            "points": np.round(self.points.astype(np.float64), 3).tolist(),
        }
        write_text(path, json.dumps(content) + "\n")

    @classmethod
    def read(cls, path: str | Path) -> "KnownTissue":
        """Read what ``write`` has written.

        Raises:
            InputError: it cannot be read, or is none.
        """
        none = f"{path}: is no file of known tissue: 'gsd unknown --keep' writes one"
        try:
            content = read_json(path)
        except InputError as error:
            raise InputError(f"{none} ({error})") from error
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise InputError(none)
        if content.get("statistics") != list(STATISTICS) or content.get("format_version") != 1:
            raise InputError(f"{path}: is of another version of gsd: make it anew")
        count = len(STATISTICS)
        try:
            check_mpp(content["mpp"])
            side, limit, icc = content["side"], float(content["limit"]), content["icc"]
            mean = _array(content["mean"], (count,))
            whitening = _array(content["whitening"], (count, count))
            points = _array(content["points"], (-1, count)).astype(np.float32)
            if type(icc) is not bool or type(side) is not int or not 16 <= side <= 1024 or side % 4:
                raise ValueError("side")
            if not (math.isfinite(limit) and limit > 0) or len(points) < NEIGHBOURS:
                raise ValueError("limit")
        except (KeyError, TypeError, ValueError, InputError) as error:
            raise InputError(f"{path}: is damaged: make it anew") from error
        return cls(float(content["mpp"]), side, mean, whitening, points, limit, icc)


def _array(content: Any, shape: tuple[int, ...]) -> Float64:
    values = np.array(content, np.float64)
    if values.ndim != len(shape) or values.shape[-1] != shape[-1]:
        raise ValueError("shape")
    if shape[0] not in (-1, len(values)) or not np.isfinite(values).all():
        raise ValueError("shape")
    return values


def _nearest(points: Float32, known: Float32, strangers: bool) -> Float32:
    """Mean distance of each of ``points`` to the nearest known; but for itself, if it is one."""
    skipped = 0 if strangers else 1
    last = min(NEIGHBOURS + skipped, len(known))
    lengths = (known**2).sum(1)
    found = np.empty(len(points), np.float32)
    for first in range(0, len(points), _AT_ONCE):
        part = points[first : first + _AT_ONCE]
        squares = (part**2).sum(1)[:, None] + lengths - 2 * part @ known.T
        nearest = np.sort(np.partition(squares, last - 1, axis=1)[:, :last], axis=1)[:, skipped:]
        found[first : first + _AT_ONCE] = np.sqrt(np.maximum(nearest, 0)).mean(1)
    return found
