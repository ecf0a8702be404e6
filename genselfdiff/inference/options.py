"""What a user can choose about segmenting a slide."""

from dataclasses import dataclass, replace
from pathlib import Path

from genselfdiff.errors import InputError
from genselfdiff.inference.model_info import ModelInfo
from genselfdiff.objects import check_min_area, seed_distance_in_pixels
from genselfdiff.slides.resolution import check_mpp

Region = tuple[int, int, int, int]


@dataclass(frozen=True)
class Options:
    """How slides are segmented, and what is written beside a mask.

    Args:
        mpp: micrometres per pixel of the slide, where its file does not tell or is wrong.
        tile_size: side of the tiles in pixels at the model's resolution; None: the model's.
        overlap: fraction of a tile shared with its neighbour, 0 to 0.5; None: the model's.
        region: (x, y, width, height) in level-0 pixels of what is predicted; there the mask is that
            of the whole slide, elsewhere class 0. None: the whole slide.
        batch_size: tiles predicted at once; None: what suits the device.
        max_memory: bytes of this process that a slide may take, at the cost of fewer workers; what
            is written beside the mask is not counted. None: as many workers as processors.
        tissue: leave tiles without tissue to class 0; a file: an image of the whole slide, of any
            size, that is not 0 where tissue is; False: predict everything.
        on_error: what becomes of stored tiles that are damaged: see ``open_slide``.
        overlay: a .png of the slide with the classes laid over it; True: beside the mask.
        overlay_width: of the overlay in pixels; None: its longer side is 2048.
        geojson: also write the mask's objects beside it as .geojson; see ``write_objects``.
        table: a .csv or .parquet with a row for each object; True: beside the mask, a .csv.
        labels: also write an image of the objects' numbers beside the mask as .tif.
        instances: objects that only touch count as several; without ``geojson`` or ``labels``,
            their table is written in any case. None: if the model tells the cores of objects.
        seed_distance: see ``write_objects``.
        min_area: of objects and their holes, in um2, or in pixels without mpp.
        report: also write a page about the slide beside the mask as .html.
        probabilities: also write the probability of each class beside the mask, 0 to 255.

    Raises:
        InputError: a number is out of range.
    """

    mpp: float | None = None
    tile_size: int | None = None
    overlap: float | None = None
    region: Region | None = None
    batch_size: int | None = None
    max_memory: int | None = None
    tissue: bool | str | Path = True
    on_error: str = "fail"
    overlay: str | Path | bool | None = None
    overlay_width: int | None = None
    geojson: bool = False
    table: str | Path | bool | None = None
    labels: bool = False
    instances: bool | None = None
    seed_distance: float | None = None
    min_area: float = 0.0
    report: bool = False
    probabilities: bool = False

    def __post_init__(self) -> None:
        if self.mpp is not None:
            check_mpp(self.mpp)
        if self.batch_size is not None and self.batch_size < 1:
            raise InputError(f"batch size {self.batch_size} must be at least 1")
        check_min_area(self.min_area)
        seed_distance_in_pixels(self.seed_distance, None)
        if self.overlay_width is not None and self.overlay_width < 1:
            raise InputError(f"{self.overlay_width} pixels is no width of an overlay")

    def tiling(self, info: ModelInfo) -> tuple[int, float]:
        """Side of the tiles in pixels, and the fraction of it that they share with neighbours."""
        side = info.tile_size if self.tile_size is None else self.tile_size
        return side, info.overlap if self.overlap is None else self.overlap

    def for_model(self, info: ModelInfo) -> "Options":
        """These, with what they leave to the model as that has it."""
        return replace(self, instances=info.instances) if self.instances is None else self
