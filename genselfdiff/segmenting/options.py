"""What a user can choose about segmenting a slide.

The command line makes its options of it: what loads torch or codecs is imported where it is used.
"""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from genselfdiff.choices import ON_ERROR, PRECISIONS, VIEWS
from genselfdiff.errors import InputError
from genselfdiff.settings import About, check_mpp, require_settings

if TYPE_CHECKING:
    from genselfdiff.models.model_info import ModelInfo
    from genselfdiff.slides import Slide
    from genselfdiff.storage.places import Place

logger = logging.getLogger("genselfdiff")

Region = tuple[int, int, int, int]


def _check_seed_distance(distance: float, name: str) -> None:
    from genselfdiff.objects import seed_distance_in_pixels

    seed_distance_in_pixels(distance, None)


def _check_min_area(area: float, name: str) -> None:
    from genselfdiff.objects import check_min_area

    check_min_area(area)


@dataclass(frozen=True)
class Options:
    """How slides are segmented, and what is written beside a mask.

    The fields say what they are. In Python beside that:

    Attributes:
        region: (x, y, width, height); there the mask is that of the whole slide, elsewhere class 0.
        max_memory: bytes of this process; None: as many workers as processors. What is written
            beside the mask is not counted.
        tissue: True: where tissue is found; False: everywhere; or the image.
        on_error, icc: see ``open_slide``.
        overlay: a .png; True: beside the mask.
        table: a .csv or .parquet; True: beside the mask, a .csv.
        instances: without ``geojson`` or ``labels``, the table is written in any case.
        device: None: the best there is. A model that is already loaded stays on its device.
        precision: see ``Predictor``, which brings its own along.
        tta: see ``Predictor``, which brings its own along.

    Raises:
        InputError: a value is out of range.
    """

    mpp: float | None = field(
        default=None,
        metadata=About(
            "Resolution of the slide in um/pixel, where its file does not say or is wrong.",
            above=0,
            check=check_mpp,
        ).metadata,
    )
    tile_size: int | None = field(
        default=None, metadata=About("Side of the tiles in pixels; default: the model's.").metadata
    )
    overlap: float | None = field(
        default=None,
        metadata=About(
            "Part of a tile that it shares with its neighbour; default: the model's, mostly 0.25.",
            least=0,
            most=0.5,
            refusal="overlap {value} must be between 0 and 0.5",
        ).metadata,
    )
    region: Region | None = field(
        default=None,
        metadata=About(
            "Predict this part only, in pixels of level 0; the mask keeps the slide's size."
        ).metadata,
    )
    batch_size: int | None = field(
        default=None,
        metadata=About(
            "Tiles predicted at once; default: by device.",
            least=1,
            refusal="batch size {value} must be at least 1",
        ).metadata,
    )
    max_memory: int | None = field(
        default=None,
        metadata=About("Memory to keep within, such as 2G or 800M, at the cost of speed.").metadata,
    )
    tissue: bool | str | Path = field(
        default=True,
        metadata=About(
            "Where to predict: where tissue is, everywhere, or where an image is not 0."
        ).metadata,
    )
    on_error: str = field(
        default="fail",
        metadata=About(
            "What a damaged tile of the slide does: end with an error, or count as glass.",
            choices=ON_ERROR,
            refusal=f"on_error {{value!r}} must be one of {', '.join(ON_ERROR)}",
        ).metadata,
    )
    icc: bool = field(
        default=False,
        metadata=About(
            "Read colours as the slide's ICC profile means them, in sRGB, not as they are stored."
        ).metadata,
    )
    overlay: str | Path | bool | None = field(
        default=None, metadata=About("Also draw the classes over the slide.").metadata
    )
    overlay_width: int | None = field(
        default=None,
        metadata=About(
            "Of the overlay in pixels; default: 2048 for the longer side.",
            least=1,
            refusal="{value} pixels is no width of an overlay",
        ).metadata,
    )
    outline: bool = field(
        default=False,
        metadata=About("Draw outlines in the overlay, not filled areas.").metadata,
    )
    geojson: bool = field(
        default=False,
        metadata=About(
            "Also write the objects as polygons for QuPath, beside the mask as .geojson."
        ).metadata,
    )
    table: str | Path | bool | None = field(
        default=None,
        metadata=About(
            "Also write a row for each object, beside the mask as ..._objects.csv: place, size,"
            " form."
        ).metadata,
    )
    labels: bool = field(
        default=False,
        metadata=About(
            "Also write an image of the objects' ids, beside the mask as ..._instances.tif."
        ).metadata,
    )
    instances: bool | None = field(
        default=None,
        metadata=About(
            "Take objects apart that only touch, such as nuclei; in QuPath they are detections."
            " Default: where the model has learnt to tell them apart, or with --seed-distance."
        ).metadata,
    )
    seed_distance: float | None = field(
        default=None,
        metadata=About(
            "Take them apart where they are thin, whatever the model has learnt: least distance of"
            " the middles of two that touch, in um (pixels where the resolution is unknown);"
            " default where it is done so: 1.5 um.",
            above=0,
            check=_check_seed_distance,
        ).metadata,
    )
    min_area: float | None = field(
        default=None,
        metadata=About(
            "Of objects, in um2 (pixels where the resolution is unknown): smaller holes are"
            " filled, then smaller objects left out; default: 4 um2 where objects are taken apart,"
            " else 0.",
            least=0,
            check=_check_min_area,
        ).metadata,
    )
    report: bool = field(
        default=False,
        metadata=About("Also write a page about the slide, beside the mask as .html.").metadata,
    )
    probabilities: bool = field(
        default=False,
        metadata=About(
            "Also write the probability of each class, 0 to 255, beside the mask."
        ).metadata,
    )
    zarr: bool = field(
        default=False,
        metadata=About(
            "Also write the probabilities as OME-Zarr, a folder, beside the TIFF of"
            " --probabilities."
        ).metadata,
    )
    device: str | None = field(
        default=None,
        metadata=About(
            "cpu, cuda, cuda:N, several GPUs as cuda:0,cuda:1, or mps; default: the best there is."
        ).metadata,
    )
    precision: str = field(
        default="auto",
        metadata=About(
            "auto: bfloat16 where it is fast and hardly changes the labels of some tiles.",
            choices=PRECISIONS,
            refusal=f"precision {{value!r}} must be one of {', '.join(PRECISIONS)}",
        ).metadata,
    )
    tta: int = field(
        default=1,
        metadata=About(
            "Average so many flips and turns of each tile, at as many times the cost.",
            choices=VIEWS,
            refusal="test-time augmentation {value} must be 1, 2, 4 or 8 views of a tile",
        ).metadata,
    )

    def __post_init__(self) -> None:
        require_settings(self)
        if self.zarr and not self.probabilities:
            raise InputError("--zarr writes probabilities a second time: add --probabilities")

    def opened(self, slide: "Place") -> "Slide":
        """Open a slide as these say.

        Raises:
            InputError: as ``open_slide``.
        """
        from genselfdiff.slides import open_slide

        return open_slide(slide, mpp=self.mpp, on_error=self.on_error, icc=self.icc)

    def tiling(self, info: "ModelInfo") -> tuple[int, float]:
        """Side of the tiles in pixels, and the fraction of it that they share with neighbours."""
        side = info.tile_size if self.tile_size is None else self.tile_size
        return side, info.overlap if self.overlap is None else self.overlap

    def for_model(self, info: "ModelInfo") -> "Options":
        """These, with what they leave to the model as that has it.

        A model that tells of its training that colours were read otherwise is warned of.
        """
        from genselfdiff.objects import taken_apart

        told = info.training.get("settings")
        trained = told.get("icc") if isinstance(told, dict) else None
        if isinstance(trained, bool) and trained is not self.icc:
            words = ("with", "without") if trained else ("without", "with")
            logger.warning("the model was trained %s --icc, and slides are read %s it", *words)
        apart = taken_apart(self.instances, self.seed_distance, has_cores=info.instances)
        return replace(self, instances=apart)


class OptionArguments(TypedDict, total=False):
    """The fields of `Options` as keyword arguments: names and types for editors, nothing else."""

    mpp: float | None
    tile_size: int | None
    overlap: float | None
    region: Region | None
    batch_size: int | None
    max_memory: int | None
    tissue: bool | str | Path
    on_error: str
    icc: bool
    overlay: str | Path | bool | None
    overlay_width: int | None
    outline: bool
    geojson: bool
    table: str | Path | bool | None
    labels: bool
    instances: bool | None
    seed_distance: float | None
    min_area: float | None
    report: bool
    probabilities: bool
    zarr: bool
    device: str | None
    precision: str
    tta: int
