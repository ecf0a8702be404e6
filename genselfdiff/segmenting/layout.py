"""How a slide is predicted: what a model sees of it, in which tiles, and the way to level 0."""

import logging
from dataclasses import dataclass

from genselfdiff.errors import InputError
from genselfdiff.inference.model_view import model_view
from genselfdiff.inference.resample import RowResizer
from genselfdiff.inference.tile_grid import TileGrid
from genselfdiff.masks import is_own_mask
from genselfdiff.models.model_info import ModelInfo
from genselfdiff.segmenting.options import Options, Region
from genselfdiff.slides import ScaledView, Slide, TissueMap
from genselfdiff.slides.window import check_window

logger = logging.getLogger("genselfdiff")


@dataclass(frozen=True)
class Layout:
    """What is predicted of a slide.

    ``view`` is what the model sees, ``scale`` its pixel size in level-0 pixels, ``window`` the
    (x, y, width, height) in level-0 pixels that is wanted, ``grid`` the tiles that it takes, and
    ``resizer`` brings their rows to level 0.
    """

    view: ScaledView
    scale: float
    size: tuple[int, int]
    window: Region
    grid: TileGrid
    resizer: RowResizer

    def rows(self, first: int, last: int) -> "Layout":
        """Only the rows ``first`` to ``last`` of the window, which come out as with all others."""
        x, y, width, _ = self.window
        return self.part((x, y + first, width, last - first))

    def part(self, window: Region) -> "Layout":
        """Only ``window``, a part of the own one, whose pixels come out as with all others."""
        source = self.view.height, self.view.width
        resizer = RowResizer(source, self.size, self.scale, window)
        grid = self.grid.showing(resizer.rows, resizer.columns)
        return Layout(self.view, self.scale, self.size, window, grid, resizer)


def lay_out(
    slide: Slide, info: ModelInfo, options: Options, progress: bool | None = False
) -> Layout:
    """Choose the tiles of a slide that a model predicts; ``progress`` as in ``Slide.thumbnail``.

    Raises:
        InputError: the slide cannot be read, is a mask of ours, has no mpp where one is needed, or
            an option is out of range.
    """
    if is_own_mask(slide.path):
        raise InputError(f"{slide.path}: is a mask that gsd has written: name the slide it is of")
    view, scale = model_view(slide, info.mpp)
    if options.region is not None:
        _check_region(slide, options.region)
    size = (slide.height, slide.width)
    resizer = RowResizer((view.height, view.width), size, scale, options.region)
    tile_size, overlap = options.tiling(info)
    grid = TileGrid.of(view, tile_size, overlap, resizer.rows, resizer.columns, info.size_multiple)
    if options.tissue:
        seen = None if options.region is None else grid.window(scale)
        mask_file = None if isinstance(options.tissue, bool) else options.tissue
        grid = grid.on_tissue(
            TissueMap(slide, window=seen, mask_file=mask_file, progress=progress), scale
        )
        if not grid.tiles:
            logger.warning(
                "%s: no tissue found: the mask is all %s; --no-tissue predicts everywhere",
                slide.path,
                info.classes[0],
            )
    view.hold_rows(len(grid.columns.shown), grid.rows.tile)
    window = options.region or (0, 0, slide.width, slide.height)
    return Layout(view, scale, size, window, grid, resizer)


def _check_region(slide: Slide, region: Region) -> None:
    x, y, width, height = region
    if width < 1 or height < 1:
        raise InputError(
            f"{slide.path}: the region {x},{y},{width},{height} is {width} pixels wide and {height}"
            " high: --region takes x,y,width,height, of which the last two are at least 1"
        )
    try:
        check_window(x, y, width, height, slide.width, slide.height)
    except ValueError as error:
        raise InputError(
            f"{slide.path}: the region {x},{y},{width},{height} is not inside its {slide.width} x"
            f" {slide.height} pixels: --region takes x,y,width,height in pixels of level 0"
        ) from error
