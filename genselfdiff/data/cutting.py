"""Cutting slides into tiles of tissue, for programs that want files."""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from genselfdiff.data.folder_parts import alone_in
from genselfdiff.data.naming import name_some
from genselfdiff.errors import InputError, OutputError
from genselfdiff.files import atomic_file, write_csv, write_text, writing
from genselfdiff.input_files import parse_json, read_bytes
from genselfdiff.progress import progress_bar
from genselfdiff.settings import check_mpp
from genselfdiff.slides import ScaledView, TissueMap, open_slide
from genselfdiff.slides.discovery import name_of
from genselfdiff.slides.fingerprint import fingerprint
from genselfdiff.text import counted

logger = logging.getLogger("genselfdiff")

TABLE_NAME, SETTINGS_NAME = "tiles.csv", "tiles.json"
COLUMNS = ("tile", "slide", "x", "y", "tissue")

_SLIDES = "slides"
"""In the settings: what tells the content of each slide that was begun, by its name."""


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
        icc: colours are those of the slides' ICC profiles, see `open_slide`.

    Raises:
        InputError: a number is out of range.
    """

    mpp: float
    tile_size: int = 256
    tissue_fraction: float = 0.5
    limit: int | None = None
    seed: int = 0
    image_mpp: float | None = None
    icc: bool = False

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


Cut = list[tuple[str, int, int, str]] | InputError
"""Of each tile of a slide name, level-0 place and tissue; or why there is none."""

Work = Callable[[tuple[Path, float]], Cut]
"""Cuts a slide of a known resolution."""


def cut_tiles(
    slides: Sequence[Path],
    folder: Path,
    settings: CutSettings,
    progress: bool | None = None,
    mapping: Callable[[Work, Iterable[tuple[Path, float]]], Iterator[Cut]] = map,
) -> dict[Path, int | None]:
    """Cut slides into tiles side by side, and keep those with tissue.

    They are PNGs in a folder for each slide, named by the place of their upper left corner in
    pixels of level 0, and know their resolution. ``tiles.csv`` tells slide, place and share of
    tissue of each. A call that was stopped goes on when it is repeated. Tiles that are damaged are
    left out, and slides that cannot be read; both are told.

    Args:
        slides: their names without suffix differ.
        folder: made if it is not there.
        settings: how to cut.
        progress: show a bar; None: on a terminal only.
        mapping: does what ``map`` does, perhaps in other processes, for which paths are absolute.

    Returns:
        The number of tiles of each slide; None where it could not be read.

    Raises:
        InputError: no slide can be read, one tells no resolution, or two have the same name.
        OutputError: the folder holds something else, or tiles of another slide of that name or of
            one that has changed since; or it cannot be written, or another process is writing into
            it.
    """
    names = Counter(map(name_of, slides))
    twice = sorted(name for name, count in names.items() if count > 1)
    if twice:
        raise InputError(f"several slides are called {name_some(twice)}: cut them into two folders")
    failed: list[InputError] = []
    seen = {path: _look_at(path, settings, failed) for path in slides}
    readable = {path: known for path, known in seen.items() if known is not None}
    if failed and not readable:
        raise failed[0]
    counts: dict[Path, int | None] = dict.fromkeys(slides)
    rows: list[tuple[str, str, int, int, str]] = []
    with alone_in(folder):
        _claim(folder, settings, {path: content for path, (_, content) in readable.items()})
        work = partial(_cut_slide, folder, settings, progress)
        each = ((path, mpp) for path, (mpp, _) in readable.items())
        for path, found in zip(readable, mapping(work, each), strict=True):
            if isinstance(found, InputError):
                failed.append(found)
                continue
            rows += [
                (f"{name_of(path)}/{name}", str(path), x, y, part) for name, x, y, part in found
            ]
            counts[path] = len(found)
            write_csv(folder / TABLE_NAME, COLUMNS, rows)
    if len(failed) == len(slides) > 0:
        raise failed[0]
    for failure in failed:
        logger.error("%s; this slide is left out", failure)
    return counts


def _look_at(
    path: Path, settings: CutSettings, failed: list[InputError]
) -> tuple[float, str] | None:
    """Resolution, at which tiles can be cut, and fingerprint of a slide; None: it has failed."""
    try:
        with open_slide(path) as slide:
            mpp = slide.mpp or settings.image_mpp
        if mpp is not None:
            with open_slide(path, mpp=mpp, icc=settings.icc) as slide:
                slide.at_mpp(settings.mpp)
            return mpp, fingerprint(path)
    except InputError as error:
        failed.append(error)
        return None
    raise InputError(
        f"{path}: the file does not state its resolution: give it with --image-mpp (um/px)"
    )


def _claim(folder: Path, settings: CutSettings, slides: Mapping[Path, str]) -> None:
    """Mark a folder that is empty, or see that a call with the same settings and slides has.

    Args:
        folder: where tiles are, or will be.
        settings: how they are cut.
        slides: what tells their content, see `fingerprint`.
    """
    wanted, claim = asdict(settings), folder / SETTINGS_NAME
    with writing(folder):
        is_used = any(folder.iterdir())
    cut = _slides_cut(claim, wanted) if is_used else {}
    if cut is None:
        raise OutputError(
            f"{folder}: holds something else, or tiles that were cut otherwise: name another folder"
        )
    for slide, content in slides.items():
        target = folder / name_of(slide)
        if target.is_symlink():
            raise OutputError(
                f"{target}: is a link, where gsd makes a folder of its own: remove it"
            )
        if cut.setdefault(name_of(slide), content) != content and target.exists():
            raise OutputError(
                f"{target}: was cut from another slide of that name, or {slide} has changed since:"
                " delete that folder, or name another with -o"
            )
        cut[name_of(slide)] = content
    write_text(claim, json.dumps(wanted | {_SLIDES: cut}, indent=1))


def _slides_cut(claim: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """What the slides held that a call with these settings has begun, by name; None: none has."""
    with suppress(InputError):
        told = parse_json(read_bytes(claim).decode(errors="replace"), claim)
        if isinstance(told, dict):
            cut = told.pop(_SLIDES, None)
            if told == settings and isinstance(cut, dict):
                return cut
    return None


def _choose(tissue: TissueMap, view: ScaledView, settings: CutSettings) -> list[_Tile]:
    """The tiles with enough tissue, row by row."""
    side = settings.tile_size * view.scale
    columns, rows = (np.arange(n // settings.tile_size) for n in (view.width, view.height))
    shares = tissue.fractions(columns * side, rows * side, side, side)
    tiles = [_Tile(x, y, float(share)) for (y, x), share in np.ndenumerate(shares)]
    tiles = [tile for tile in tiles if tile.tissue >= max(settings.tissue_fraction, 1e-9)]
    if settings.limit is not None and len(tiles) > settings.limit:
        drawn = np.random.default_rng(settings.seed).permutation(len(tiles))[: settings.limit]
        tiles = [tiles[index] for index in sorted(drawn.tolist())]
    return tiles


def _cut_slide(
    folder: Path, settings: CutSettings, progress: bool | None, slide: tuple[Path, float]
) -> Cut:
    """Do what `_cut` does, in any process."""
    path, mpp = slide
    try:
        return list(_cut(path, mpp, folder / name_of(path), settings, progress))
    except InputError as error:
        return error


def _cut(
    path: Path, mpp: float, target: Path, settings: CutSettings, progress: bool | None
) -> Iterator[tuple[str, int, int, str]]:
    """Write the tiles of a slide that are not there; give name, level-0 place and tissue of each.

    Raises:
        InputError: the slide cannot be read, or none of its tiles.
    """
    size, damaged, cut = settings.tile_size, list[InputError](), 0
    dots = (25400 / settings.mpp,) * 2
    with open_slide(path, mpp=mpp, on_error="blank", icc=settings.icc) as slide:
        tissue = TissueMap(slide)
    with open_slide(path, mpp=mpp, icc=settings.icc) as slide:
        view = slide.at_mpp(settings.mpp)
        view.hold_rows(view.width, size)
        tiles = _choose(tissue, view, settings)
        with writing(target):
            target.mkdir(exist_ok=True)
        for tile in progress_bar(tiles, desc=target.name, progress=progress):
            x, y = (round(place * size * view.scale) for place in (tile.x, tile.y))
            name = f"{target.name}_x{x}_y{y}.png"
            if not (target / name).exists():
                try:
                    pixels = view.read(tile.x * size, tile.y * size, size, size)
                except InputError as error:
                    damaged.append(error)
                    continue
                with atomic_file(target / name) as temporary:
                    Image.fromarray(pixels).save(temporary, format="PNG", dpi=dots)
            cut += 1
            yield name, x, y, f"{tile.tissue:.3f}"
    if damaged and not cut:
        raise damaged[0]
    if damaged:
        logger.warning("left out: %s, as %s", counted(len(damaged), "tile"), damaged[0])
