"""Cutting slides into tiles of tissue, for programs that want files."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from genselfdiff.data.naming import name_some
from genselfdiff.errors import InputError, OutputError
from genselfdiff.files import atomic_file, write_csv, write_text, writing
from genselfdiff.progress import progress_bar
from genselfdiff.slides import ScaledView, Slide, TissueMap, open_slide
from genselfdiff.slides.resolution import check_mpp

TABLE_NAME, SETTINGS_NAME = "tiles.csv", "tiles.json"
COLUMNS = ("tile", "slide", "x", "y", "tissue")


@dataclass(frozen=True)
class CutSettings:
    """How slides are cut.

    Attributes:
        mpp: micrometres per pixel of the tiles.
        tile_size: their side in pixels.
        tissue_fraction: least part of a tile that is tissue.
        limit: of tiles of each slide; None: all.
        seed: draws those of a slide that has more.
        image_mpp: resolution of the slides whose files do not tell it; None: there are none.

    Raises:
        InputError: a number is out of range.
    """

    mpp: float
    tile_size: int = 256
    tissue_fraction: float = 0.5
    limit: int | None = None
    seed: int = 0
    image_mpp: float | None = None

    def __post_init__(self) -> None:
        check_mpp(self.mpp)
        if self.tile_size < 8:
            raise InputError(f"tile size {self.tile_size} must be at least 8 pixels")
        if not 0 <= self.tissue_fraction <= 1:
            raise InputError(f"tissue fraction {self.tissue_fraction} must be from 0 to 1")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"a limit of {self.limit} tiles leaves none")


@dataclass(frozen=True)
class _Tile:
    """``x`` and ``y`` are of the view, in tiles."""

    x: int
    y: int
    tissue: float


def cut_tiles(
    slides: Sequence[Path], folder: Path, settings: CutSettings, progress: bool | None = None
) -> dict[Path, int]:
    """Cut slides into tiles side by side, and keep those with tissue.

    They are PNGs in a folder for each slide, named by the place of their upper left corner in
    pixels of level 0, and know their resolution. ``tiles.csv`` tells slide, place and share of
    tissue of each. A call that was stopped goes on when it is repeated.

    Args:
        slides: their names without suffix differ; those in ``folder``, which are tiles of an
            earlier call, are left out.
        folder: made if it is not there.
        settings: how to cut.
        progress: show a bar; None: on a terminal only.

    Returns:
        The number of tiles of each slide.

    Raises:
        InputError: a slide cannot be read, tells no resolution, or two have the same name.
        OutputError: the folder holds something else, or cannot be written.
    """
    own = os.path.realpath(folder)
    slides = [path for path in slides if own not in map(str, path.resolve().parents)]
    stems = [path.stem for path in slides]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        raise InputError(f"several slides are called {name_some(twice)}: cut them into two folders")
    mpps = {path: _mpp_of(path, settings) for path in slides}
    _claim(folder, settings)
    counts = {}
    rows: list[tuple[str, str, int, int, str]] = []
    for path in slides:
        with open_slide(path, mpp=mpps[path]) as slide:
            view = slide.at_mpp(settings.mpp)
            tiles = _choose(slide, view, settings)
            target = folder / path.stem
            with writing(target):
                target.mkdir(exist_ok=True)
            names = _write(view, tiles, target, settings, progress)
            for tile, (name, x, y) in zip(tiles, names, strict=True):
                rows.append((f"{path.stem}/{name}", str(path), x, y, f"{tile.tissue:.3f}"))
        counts[path] = len(tiles)
        write_csv(folder / TABLE_NAME, COLUMNS, rows)
    return counts


def _mpp_of(path: Path, settings: CutSettings) -> float:
    """Resolution of a slide, at which tiles of ``settings`` can be cut."""
    with open_slide(path) as slide:
        mpp = slide.mpp or settings.image_mpp
    if mpp is None:
        raise InputError(
            f"{path}: the file does not tell its resolution: give it with --image-mpp (um/px)"
        )
    with open_slide(path, mpp=mpp) as slide:
        slide.at_mpp(settings.mpp)
    return mpp


def _claim(folder: Path, settings: CutSettings) -> None:
    """Make the folder, or see that a call with the same settings has."""
    told = json.dumps(asdict(settings), indent=1)
    claim = folder / SETTINGS_NAME
    try:
        is_used = folder.is_dir() and any(folder.iterdir())
        is_ours = claim.is_file() and claim.read_text(encoding="utf-8") == told
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror}") from error
    if is_used and not is_ours:
        raise OutputError(
            f"{folder}: holds something else, or tiles that were cut otherwise: name another folder"
        )
    write_text(claim, told)


def _choose(slide: Slide, view: ScaledView, settings: CutSettings) -> list[_Tile]:
    """The tiles with enough tissue, row by row."""
    tissue, side = TissueMap(slide), settings.tile_size * view.scale
    tiles = [
        _Tile(x, y, tissue.fraction(x * side, y * side, side, side))
        for y in range(view.height // settings.tile_size)
        for x in range(view.width // settings.tile_size)
    ]
    tiles = [tile for tile in tiles if tile.tissue >= max(settings.tissue_fraction, 1e-9)]
    if settings.limit is not None and len(tiles) > settings.limit:
        drawn = np.random.default_rng(settings.seed).permutation(len(tiles))[: settings.limit]
        tiles = [tiles[index] for index in sorted(drawn.tolist())]
    return tiles


def _write(
    view: ScaledView,
    tiles: Sequence[_Tile],
    target: Path,
    settings: CutSettings,
    progress: bool | None,
) -> Iterator[tuple[str, int, int]]:
    """Write the tiles that are not there; give the name and level-0 place of each."""
    size = settings.tile_size
    view.hold_rows(view.width, size)
    dots = (25400 / settings.mpp,) * 2
    bar = progress_bar(tiles, desc=target.name, progress=progress)
    for tile in bar:
        x, y = (round(place * size * view.scale) for place in (tile.x, tile.y))
        name = f"{target.name}_x{x}_y{y}.png"
        if not (target / name).exists():
            pixels = view.read(tile.x * size, tile.y * size, size, size)
            with atomic_file(target / name) as temporary:
                Image.fromarray(pixels).save(temporary, format="PNG", dpi=dots)
        yield name, x, y
