"""Segmenting a slide: from its file to a mask file, in memory that its area does not change.

slide -> view at the model's mpp -> tissue -> rows of tiles -> a reader thread ahead -> batches ->
model -> blended rows -> the slide's own resolution -> class of each pixel -> mask pyramid.
"""

import logging
import os
import time
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from genselfdiff.errors import InputError, ModelError, OutputError
from genselfdiff.files import refuse_existing
from genselfdiff.inference.model_file import LoadedModel, ModelInfo, load_model
from genselfdiff.inference.predictor import COMPARED_TILES, Predictor, read_ahead
from genselfdiff.inference.resample import RowResizer, labels_of
from genselfdiff.inference.tile_grid import TileGrid
from genselfdiff.slides import (
    MaskWriter,
    ScaledView,
    Slide,
    TissueMap,
    is_own_mask,
    open_slide,
    write_geojson,
    write_overlay,
)
from genselfdiff.slides.geojson import check_min_area
from genselfdiff.slides.resolution import BLURRED_ENLARGEMENT, SAME_SCALE, agree
from genselfdiff.slides.scaled_view import check_window

logger = logging.getLogger("genselfdiff")

MASK_SUFFIXES = (".tif", ".tiff")
OVERLAY_SUFFIXES = (".png",)
READ_AHEAD = 4
"""Batches that wait between the reader and the model."""
BATCH_SIZES = {"cpu": 1, "cuda": 8, "mps": 4}


@dataclass(frozen=True)
class SegmentResult:
    """What ``segment`` has done.

    ``width`` and ``height`` are those of slide and mask in pixels, ``mpp`` their micrometres per
    pixel, ``scale`` the model's pixel size in pixels of the slide, ``tiles`` those predicted,
    ``skipped`` those without tissue, ``pixels`` the mask's pixels of each class, of a slide of
    which only a region was predicted those in the region; ``objects`` the number of objects of
    each class in ``geojson``.
    """

    slide: Path
    output: Path
    overlay: Path | None
    geojson: Path | None
    width: int
    height: int
    mpp: float | None
    scale: float
    tiles: int
    skipped: int
    seconds: float
    device: str
    precision: str
    pixels: dict[str, int]
    objects: dict[str, int] | None

    @property
    def areas(self) -> dict[str, float] | None:
        """Area of each class in square millimetres; None where the resolution is unknown."""
        if self.mpp is None:
            return None
        return {name: count * (self.mpp / 1000) ** 2 for name, count in self.pixels.items()}

    def summary(self) -> str:
        """A few lines for people: files, sizes, speed, and how much there is of each class."""
        total = sum(self.pixels.values())
        lines = [
            f"{self.output}: {self.width} x {self.height} pixels, {self.tiles} tiles"
            f" ({self.skipped} without tissue skipped) in {self.seconds:.1f} s,"
            f" {total / 1e6 / self.seconds:.2f} Mpx/s on {self.device} in {self.precision}"
        ]
        for name, count in self.pixels.items():
            area = f", {self.areas[name]:.3f} mm2" if self.areas is not None else ""
            lines.append(f"  {name}: {100 * count / total:.2f} %{area}")
        if self.overlay is not None:
            lines.append(f"{self.overlay}: overlay")
        if self.objects is not None:
            counts = ", ".join(f"{count} {name}" for name, count in self.objects.items())
            lines.append(f"{self.geojson}: objects: {counts}")
        return "\n".join(lines)


def segment(
    slide: str | Path,
    output: str | Path,
    model: Predictor | LoadedModel | str | Path | None = None,
    *,
    mpp: float | None = None,
    overlay: str | Path | bool | None = None,
    geojson: bool = False,
    min_area: float = 0.0,
    tile_size: int | None = None,
    overlap: float = 0.25,
    region: tuple[int, int, int, int] | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    precision: str = "auto",
    tissue: bool | str | Path = True,
    overwrite: bool = False,
    progress: bool | None = None,
) -> SegmentResult:
    """Segment ``slide`` into the mask ``output``, a tiled pyramidal TIFF of class indices.

    The mask has the slide's size and pixel size, and its classes' colours as a palette.

    Args:
        slide: SVS, OME-TIFF, pyramidal or plain TIFF, PNG or JPEG.
        output: where the mask goes, a .tif or .tiff; appears whole or not at all.
        model: a model, or the file of one; None: the file that GSD_MODEL names. A ``Predictor``
            brings its precision along.
        mpp: micrometres per pixel of the slide, where its file does not tell or is wrong.
        overlay: a .png of the slide with the classes laid over it; True: beside the mask.
        geojson: also write the mask's objects beside it as .geojson; see ``write_geojson``.
        min_area: of objects and holes in the GeoJSON, in um2, or in pixels without mpp.
        tile_size: side of the tiles in pixels at the model's resolution; None: the model's.
        overlap: fraction of a tile shared with its neighbour, 0 to 0.5.
        region: (x, y, width, height) in level-0 pixels of what is predicted; there the mask is that
            of the whole slide, elsewhere class 0. None: the whole slide.
        batch_size: tiles predicted at once; None: what suits the device.
        device: "cpu", "cuda", "cuda:1", "mps"; None: the best there is. A model that is already
            loaded stays on its device.
        precision: "auto", "float32" or "bfloat16"; see ``Predictor``.
        tissue: leave tiles without tissue to class 0; a file: an image of the whole slide, of any
            size, that is not 0 where tissue is; False: predict everything.
        overwrite: replace files that exist.
        progress: show a progress bar on stderr; None: only on a terminal.

    Raises:
        InputError: the slide cannot be read, is a mask of ours, has no mpp where one is needed, or
            an option is out of range.
        ModelError: there is no model, or it is not one of ours.
        OutputError: a file to write exists, is an input or cannot be written.
    """
    begin = time.perf_counter()
    path = Path(slide)
    files = output_files(Path(output), overlay, geojson)
    check_min_area(min_area)
    predictor = (
        model if isinstance(model, Predictor) else Predictor(find_model(model, device), precision)
    )
    loaded, info = predictor.model, predictor.model.info
    given = [] if isinstance(tissue, bool) else [Path(tissue)]
    refuse_inputs(files.all(), [path, loaded.path, *given])
    _check_target(files.mask, MASK_SUFFIXES, overwrite)
    if files.overlay is not None:
        _check_target(files.overlay, OVERLAY_SUFFIXES, overwrite)
    if files.geojson is not None:
        refuse_existing(files.geojson, overwrite)
    batch_size = tiles_at_once(loaded, batch_size)

    with open_slide(path, mpp=mpp) as source:
        view, grid, resizer = lay_out(source, info, tile_size, overlap, region, tissue)
        predictor.choose_precision(grid.sample(view, COMPARED_TILES))
        bar = tqdm(
            total=grid.tiles,
            desc=path.name,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} tiles"
            " [{elapsed}, {remaining} left{postfix}]",
            disable=None if progress is None else not progress,
        )
        with (
            bar,
            MaskWriter(
                files.mask,
                width=source.width,
                height=source.height,
                mpp=source.mpp,
                palette=list(info.colors),
                class_names=list(info.classes),
                window=region,
            ) as writer,
            read_ahead(lambda: grid.read(view, batch_size), READ_AHEAD) as batches,
            predictor.predict_ahead(batches) as predicted,
        ):
            rows = grid.blend(predicted, len(info.classes), bar)
            counts = _write(writer, rows, resizer, bar)
        if files.overlay is not None:
            write_overlay(source, files.mask, files.overlay, list(info.colors))
        objects = (
            write_geojson(files.mask, files.geojson, min_area=min_area, overwrite=overwrite)
            if files.geojson is not None
            else None
        )
        return SegmentResult(
            slide=path,
            output=files.mask,
            overlay=files.overlay,
            geojson=files.geojson,
            width=source.width,
            height=source.height,
            mpp=source.mpp,
            scale=view.scale,
            tiles=grid.tiles,
            skipped=grid.skipped,
            seconds=time.perf_counter() - begin,
            device=str(loaded.device),
            precision=predictor.precision,
            pixels={name: counts[index] for index, name in enumerate(info.classes)},
            objects=objects,
        )


def tiles_at_once(model: LoadedModel, batch_size: int | None) -> int:
    """``batch_size``, or what suits the model's device; InputError if it is below 1."""
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch size {batch_size} must be at least 1")
    return batch_size or BATCH_SIZES[model.device.type]


def lay_out(
    slide: Slide,
    info: ModelInfo,
    tile_size: int | None,
    overlap: float,
    region: tuple[int, int, int, int] | None,
    tissue: bool | str | Path,
) -> tuple[ScaledView, TileGrid, RowResizer]:
    """What a model sees of a slide, the tiles it predicts, and the way back to level 0.

    Arguments and errors are those of ``segment``.
    """
    if is_own_mask(slide.path):
        raise InputError(f"{slide.path}: is a mask that gsd has written: name the slide it is of")
    view, scale = model_view(slide, info.mpp)
    if region is not None:
        _check_region(slide, region)
    size = (slide.height, slide.width)
    resizer = RowResizer((view.height, view.width), size, scale, region)
    tile_size = info.tile_size if tile_size is None else tile_size
    grid = TileGrid.of(view, tile_size, overlap, resizer.rows, resizer.columns)
    if tissue:
        seen = None if region is None else grid.window(scale)
        mask_file = None if isinstance(tissue, bool) else tissue
        grid = grid.on_tissue(TissueMap(slide, window=seen, mask_file=mask_file), scale)
        if not grid.tiles:
            logger.warning(
                "%s: no tissue found: the mask is all %s; --no-tissue predicts everywhere",
                slide.path,
                info.classes[0],
            )
    return view, grid, resizer


def _check_region(slide: Slide, region: tuple[int, int, int, int]) -> None:
    x, y, width, height = region
    try:
        check_window(x, y, width, height, slide.width, slide.height)
    except ValueError as error:
        raise InputError(
            f"{slide.path}: the region {x},{y},{width},{height} is not inside its {slide.width} x"
            f" {slide.height} pixels: --region takes x,y,width,height in pixels of level 0"
        ) from error


def find_model(
    model: LoadedModel | str | Path | None = None, device: str | None = None
) -> LoadedModel:
    """``model`` itself, or loaded from the file it names, or from the one that GSD_MODEL names.

    Raises:
        ModelError: there is none, or it is not one of ours.
    """
    if isinstance(model, LoadedModel):
        return model
    named = model or os.environ.get("GSD_MODEL")
    if not named:
        raise ModelError(
            "no model: give --model FILE or set GSD_MODEL; 'gsd train finetune' trains one and"
            " 'gsd export RUN -o model.ts' writes its file"
        )
    return load_model(named, device)


def model_view(slide: Slide, mpp: float | None) -> tuple[ScaledView, float]:
    """The slide as a model of ``mpp`` wants it, and that view's pixel size in slide pixels.

    Warns if the slide's resolution, as the caller gave it, is not what its file says.

    Raises:
        InputError: the slide has no resolution, but the model needs one.
    """
    given, stored = slide.mpp, slide.stored_mpp
    if given is not None and stored is not None and not agree(given, stored, SAME_SCALE):
        logger.warning(
            "%s: its file says %g um/px, but %g was given and is used: check --mpp",
            slide.path,
            stored,
            given,
        )
    if mpp is None or (given is not None and agree(mpp, given, SAME_SCALE)):
        return slide.at_mpp(None), 1.0
    view = slide.at_mpp(mpp)
    if given is not None and given > BLURRED_ENLARGEMENT * mpp:
        logger.warning(
            "%s: %g um/px is coarser than the model's %g: enlarged, it will be blurred",
            slide.path,
            given,
            mpp,
        )
    return view, view.scale


class OutputFiles(NamedTuple):
    """What ``segment`` writes: the mask, and what is wanted beside it."""

    mask: Path
    overlay: Path | None
    geojson: Path | None

    def all(self) -> list[Path]:
        """Those that are written."""
        return [path for path in self if path is not None]


def output_files(mask: Path, overlay: str | Path | bool | None, geojson: bool) -> OutputFiles:
    """Name the files that ``segment`` writes, from its arguments."""
    if overlay is True:
        overlay = mask.with_name(f"{mask.stem}_overlay.png")
    return OutputFiles(
        mask,
        Path(overlay) if overlay else None,
        mask.with_suffix(".geojson") if geojson else None,
    )


def refuse_inputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise OutputError if an output is a file that is also read, by this or another name."""
    read = {mark for path in inputs for mark in _marks(path)}
    for output in outputs:
        if not read.isdisjoint(_marks(output)):
            raise OutputError(f"{output}: is an input of this run: name another file")


def _marks(path: Path) -> set[Hashable]:
    """Where a path leads, and which file is there: one file can have several names."""
    marks: set[Hashable] = {os.path.realpath(path)}
    if path.exists():
        status = path.stat()
        marks.add((status.st_dev, status.st_ino))
    return marks


def _check_target(target: Path, suffixes: Sequence[str], overwrite: bool) -> None:
    if not target.parent.is_dir():
        raise OutputError(f"{target}: the folder {target.parent} does not exist: create it first")
    if target.is_dir():
        raise OutputError(f"{target}: is a folder: name a file")
    if target.suffix.lower() not in suffixes:
        raise OutputError(f"{target}: must end in {' or '.join(suffixes)}: name it so")
    refuse_existing(target, overwrite)


def _write(
    writer: MaskWriter,
    rows: Iterator[NDArray[np.float32]],
    resizer: RowResizer,
    bar: "tqdm[NoReturn]",
) -> Counter[int]:
    """Write the mask's rows as they become final; count its pixels of each class."""
    begin = time.perf_counter()
    counts: Counter[int] = Counter()
    for finished in rows:
        for band in resizer.push(finished):
            labels = labels_of(band)
            for index in range(len(band)):
                counts[index] += int(np.count_nonzero(labels == index))
            writer.write_rows(labels)
        speed = counts.total() / 1e6 / (time.perf_counter() - begin)
        bar.set_postfix_str(f"{speed:.1f} Mpx/s", refresh=False)
    return counts
