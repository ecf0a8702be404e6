"""Unlabelled tiles for pretraining, drawn at random from the tissue of images and slides."""

import logging
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from genselfdiff.data.naming import name_some
from genselfdiff.data.reading import CACHED_PIXELS, shared_reader
from genselfdiff.errors import InputError
from genselfdiff.slides import find_slides, tissue_mask
from genselfdiff.slides.resolution import BLURRED_ENLARGEMENT, agree

logger = logging.getLogger("genselfdiff")

TISSUE_MPP = 8.0
"""Resolution of the tissue mask that decides where tiles are drawn, in um/px."""

TISSUE_SIDE = (128, 2048)
"""Bounds on the longer side of that mask, in pixels."""

MAX_CELLS = 1024
"""Bound, along each side of a source, on the cells from which tile positions are drawn."""


@dataclass(frozen=True, eq=False)
class TileSource:
    """One image or slide, or a rectangle of it, from which tiles may be drawn.

    Attributes:
        path: the file.
        mpp: resolution of level 0 in um/px.
        width, height: size of level 0 in pixels.
        tissue: bool (h, w), where tissue is; stretches over the whole of level 0.
        region: (x, y, width, height) in level-0 pixels; tiles stay inside it.
        on_error, icc: how it is opened: see `open_slide`.
    """

    path: Path
    mpp: float
    width: int
    height: int
    tissue: NDArray[np.bool_]
    region: tuple[int, int, int, int]
    on_error: str = "fail"
    icc: bool = False

    @property
    def tissue_area(self) -> float:
        """Tissue inside the region, in um2."""
        x, y, width, height = self.region
        rows = _overlap(np.array([y]), height, self.height, self.tissue.shape[0])
        columns = _overlap(np.array([x]), width, self.width, self.tissue.shape[1])
        share = (rows @ self.tissue.astype(np.float32) @ columns.T).item()
        return share * width * height * self.mpp**2


def open_sources(
    paths: Sequence[str | Path],
    *,
    mpp: float,
    image_mpp: float | None = None,
    on_error: str = "fail",
    icc: bool = False,
    written: Path | None = None,
) -> list[TileSource]:
    """Open every image and slide under ``paths`` as a source of tiles at ``mpp`` um/px.

    A file's own resolution wins over ``image_mpp`` (um/px), which stands in where a file has none;
    a warning names the files whose own resolution contradicts it, and those that have to be
    enlarged much to reach ``mpp``. ``on_error`` and ``icc`` are as for
    `open_slide`; ``written`` is left out, see `find_slides`.

    Raises:
        InputError: a path is missing, holds no image, or an image cannot be read; or neither the
            file nor ``image_mpp`` tells the resolution.
    """
    files = find_slides(map(Path, paths), written)
    # Decoding releases the interpreter lock, so that threads shorten the look at every file.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        opened = list(pool.map(lambda path: _open_source(path, image_mpp, on_error, icc), files))
    contradicting = [path for path, (_, differs) in zip(files, opened, strict=True) if differs]
    sources = [source for source, _ in opened]
    if contradicting:
        logger.warning(
            "%s: the resolution in the file is not the --image-mpp %g: the file's own is used",
            name_some(contradicting),
            image_mpp,
        )
    enlarged = [source.path for source in sources if source.mpp > BLURRED_ENLARGEMENT * mpp]
    if enlarged:
        logger.warning(
            "%s: coarser than the asked --mpp %g, the tiles will be blurred",
            name_some(enlarged),
            mpp,
        )
    return sources


def split_sources(
    sources: Sequence[TileSource],
    *,
    mpp: float,
    tile_size: int,
    fraction: float = 0.1,
    seed: int = 0,
) -> tuple[list[TileSource], list[TileSource]]:
    """Split into (training, validation) so that no pixel is on both sides.

    Sources without a tissue tile are left out with a warning, before the split.
    From four files on, ``fraction`` of the files (at least one, drawn with ``seed``) are held out
    whole. With fewer, the right-most part of the tissue of each file is: ``fraction`` of its
    tissue, but at least one tile of ``tile_size`` pixels at ``mpp`` and at most a third of its
    extent; files too narrow for that are used for training only.

    Raises:
        InputError: no part can be held out, or no source holds a tissue tile.
    """
    sources = [grid.source for grid in _with_tissue(sources, mpp, tile_size)]
    files = sorted({source.path for source in sources})
    if len(files) >= 4:
        held_out = max(1, round(fraction * len(files)))
        order = np.random.default_rng(seed).permutation(len(files))
        names = {files[index] for index in order[:held_out]}
        return (
            [source for source in sources if source.path not in names],
            [source for source in sources if source.path in names],
        )
    training: list[TileSource] = []
    validation: list[TileSource] = []
    for source in sources:
        cut = _validation_cut(source, mpp * tile_size / source.mpp, fraction)
        if cut is None:
            training.append(source)
            continue
        x, y, width, height = source.region
        training.append(replace(source, region=(x, y, cut - x, height)))
        validation.append(replace(source, region=(cut, y, x + width - cut, height)))
    if not validation:
        raise InputError(
            f"{name_some(files)}: too little tissue to hold out a validation part three tiles of "
            f"{tile_size} pixels wide: give at least four images or a smaller --tile-size"
        )
    return training, validation


class UnlabelledTiles(Dataset[torch.Tensor]):
    """Random tissue tiles: item i is uint8 (3, tile_size, tile_size), RGB, at ``mpp`` um/px.

    Every item is a pure function of (``seed``, i), whichever process asks. The source is drawn in
    proportion to its tissue, the position evenly over the places where about ``tissue_fraction``
    of the tile or more is tissue; with ``flips`` each tile is mirrored either way at p = 0.5.
    Sources without such a place are left out with a warning.

    Raises:
        InputError: no source holds a tissue tile. Items raise it where a file has become
            unreadable.
    """

    def __init__(
        self,
        sources: Sequence[TileSource],
        *,
        mpp: float,
        tile_size: int,
        seed: int,
        length: int,
        tissue_fraction: float = 0.5,
        flips: bool = True,
    ) -> None:
        self.mpp = mpp
        self.tile_size = tile_size
        self.seed = seed
        self.length = length
        self.flips = flips
        self._grids = _with_tissue(sources, mpp, tile_size, tissue_fraction)
        self._cumulative_area = np.cumsum([grid.source.tissue_area for grid in self._grids])

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> torch.Tensor:
        tile = self.read(index)
        return torch.from_numpy(np.ascontiguousarray(tile.transpose(2, 0, 1)))

    def place(self, index: int) -> tuple[TileSource, int, int]:
        """Where tile ``index`` lies: its source, and x, y of its corner in pixels at ``mpp``."""
        grid, x, y = self._draw(self._generator(index))
        return grid.source, x, y

    def read(self, index: int) -> NDArray[np.uint8]:
        """Tile ``index`` as uint8 (tile_size, tile_size, 3); not to be written to."""
        generator = self._generator(index)
        grid, x, y = self._draw(generator)
        size = self.tile_size
        tile = shared_reader.read(
            grid.source.path,
            source_mpp=grid.source.mpp,
            mpp=self.mpp,
            window=(x, y, size, size),
            cached=grid.view_pixels < CACHED_PIXELS,
            on_error=grid.source.on_error,
            icc=grid.source.icc,
        )
        if self.flips:
            horizontal, vertical = generator.random(2) < 0.5
            tile = tile[:: -1 if vertical else 1, :: -1 if horizontal else 1]
        return tile

    def _generator(self, index: int) -> np.random.Generator:
        if not 0 <= index < self.length:
            raise IndexError(f"tile {index} of {self.length}")
        return np.random.default_rng((self.seed, index))

    def _draw(self, generator: np.random.Generator) -> tuple["_PositionGrid", int, int]:
        draws = generator.random(4)
        area = draws[0] * self._cumulative_area[-1]
        chosen = int(np.searchsorted(self._cumulative_area, area, side="right"))
        grid = self._grids[min(chosen, len(self._grids) - 1)]
        x, y = grid.position(*draws[1:])
        return grid, x, y


@dataclass(frozen=True, eq=False)
class _PositionGrid:
    """The positions a tile may take in a source, cut into cells that are tissue or not.

    ``origin`` is the first position (x, y) in view pixels, ``span`` the number of positions each
    way, ``shape`` the number of cells each way (columns, rows), ``cells`` the flat indices of the
    cells from which a tile is tissue enough, ``view_pixels`` the size of the whole view.
    """

    source: TileSource
    view_pixels: int
    origin: tuple[int, int]
    span: tuple[int, int]
    shape: tuple[int, int]
    cells: NDArray[np.int32]

    @classmethod
    def of(
        cls, source: TileSource, mpp: float, tile_size: int, tissue_fraction: float
    ) -> "_PositionGrid":
        scale = mpp / source.mpp
        x, y, width, height = source.region
        view = (round(source.width / scale), round(source.height / scale))
        left, columns = _positions(x, width, source.width, view[0], scale, tile_size)
        top, rows = _positions(y, height, source.height, view[1], scale, tile_size)
        if columns < 1 or rows < 1:
            nowhere = np.empty(0, np.int32)
            return cls(source, view[0] * view[1], (left, top), (columns, rows), (0, 0), nowhere)
        shape = (_cell_count(columns, tile_size), _cell_count(rows, tile_size))
        tall, wide = source.tissue.shape
        size = tile_size * scale
        by_row = _overlap(_cell_centres(top, rows, shape[1]) * scale, size, source.height, tall)
        by_column = _overlap(
            _cell_centres(left, columns, shape[0]) * scale, size, source.width, wide
        )
        share = by_row @ source.tissue.astype(np.float32) @ by_column.T
        # A tile that is tissue throughout must not fail by a rounding error.
        cells = np.flatnonzero(share >= tissue_fraction - 1e-4).astype(np.int32)
        return cls(source, view[0] * view[1], (left, top), (columns, rows), shape, cells)

    def position(self, cell: float, x: float, y: float) -> tuple[int, int]:
        """Corner of a tile in view pixels, from three random numbers in [0, 1)."""
        row, column = divmod(int(self.cells[int(cell * len(self.cells))]), self.shape[0])
        return (
            self.origin[0] + int((column + x) * self.span[0] / self.shape[0]),
            self.origin[1] + int((row + y) * self.span[1] / self.shape[1]),
        )


def _with_tissue(
    sources: Sequence[TileSource], mpp: float, tile_size: int, tissue_fraction: float = 0.5
) -> list[_PositionGrid]:
    """Grids of the sources that hold a tissue tile; a warning names the others."""
    grids = [_PositionGrid.of(source, mpp, tile_size, tissue_fraction) for source in sources]
    empty = [grid.source.path for grid in grids if not len(grid.cells)]
    if len(empty) == len(grids):
        raise InputError(
            f"{name_some(empty) or 'no image given'}: no tissue tile of {tile_size} pixels at "
            f"{mpp:g} um/px: check the resolution, choose a smaller --tile-size, or give images "
            "with tissue"
        )
    if empty:
        logger.warning(
            "%s: left out, no tissue tile of %d pixels at %g um/px in it",
            name_some(empty),
            tile_size,
            mpp,
        )
    return [grid for grid in grids if len(grid.cells)]


def _open_source(
    path: Path, image_mpp: float | None, on_error: str, icc: bool
) -> tuple[TileSource, bool]:
    """The source for one file, and whether its own resolution contradicts ``image_mpp``."""
    with shared_reader.open(path, on_error=on_error, icc=icc) as slide:
        mpp = slide.mpp or image_mpp
        if mpp is None:
            raise InputError(
                f"{path}: the file does not state its resolution: give it with --image-mpp (um/px)"
            )
        differs = image_mpp is not None and not agree(mpp, image_mpp)
        side = int(np.clip(max(slide.width, slide.height) * mpp / TISSUE_MPP, *TISSUE_SIDE))
        tissue = tissue_mask(slide.thumbnail(side))
        region = (0, 0, slide.width, slide.height)
        source = TileSource(path, mpp, slide.width, slide.height, tissue, region, on_error, icc)
        return source, differs


def _validation_cut(source: TileSource, tile: float, fraction: float) -> int | None:
    """Level-0 x where the validation part begins; None if the source is too narrow.

    ``tile`` is the side of a tile in level-0 pixels.
    """
    x, y, width, height = source.region
    rows, columns = source.tissue.shape
    in_region = _overlap(np.array([y]), height, source.height, rows)[0] > 0
    per_column = source.tissue[in_region].sum(axis=0, dtype=np.int64)
    edges: NDArray[np.float64] = np.arange(columns + 1) * (source.width / columns)
    per_column[(edges[1:] <= x) | (edges[:-1] >= x + width)] = 0
    filled = np.flatnonzero(per_column)
    if not len(filled):
        return None
    left = max(x, edges[filled[0]])
    right = min(x + width, edges[filled[-1] + 1])
    needed = math.ceil(tile) + 2
    if (right - left) / 3 < needed:
        return None
    from_right = np.cumsum(per_column[::-1])[::-1]
    cut = np.searchsorted(-from_right, -fraction * from_right[0], side="right") - 1
    return math.ceil(min(max(float(edges[cut]), right - (right - left) / 3), right - needed))


def _positions(
    start: int, extent: int, full: int, view: int, scale: float, tile_size: int
) -> tuple[int, int]:
    """First position of a tile along one side of a region, and the number of positions."""
    first = math.ceil(start / scale)
    # The view's size is rounded, so that its last pixel may reach past the level-0 edge.
    end = view if start + extent == full else min(view, math.floor((start + extent) / scale))
    return first, end - first - tile_size + 1


def _cell_count(positions: int, tile_size: int) -> int:
    return min(MAX_CELLS, math.ceil(4 * positions / tile_size))


def _cell_centres(first: int, positions: int, cells: int) -> NDArray[np.float64]:
    return first + (np.arange(cells) + 0.5) * positions / cells - 0.5


def _overlap(
    starts: NDArray[np.float64] | NDArray[np.int64], size: float, full: int, pixels: int
) -> NDArray[np.float32]:
    """Share of each interval [start, start + size) that each mask pixel covers: (starts, pixels).

    The ``pixels`` mask pixels stretch over the length ``full``.
    """
    begin = (np.asarray(starts, np.float64) * (pixels / full))[:, None]
    extent = size * pixels / full
    pixel = np.arange(pixels)
    common = np.minimum(begin + extent, pixel + 1) - np.maximum(begin, pixel)
    share: NDArray[np.float32] = (np.clip(common, 0, None) / extent).astype(np.float32)
    return share
