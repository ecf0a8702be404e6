"""Scores of a model on a folder of labelled images, predicted whole.

As ``gsd segment --no-tissue`` predicts them: a labelled field is tissue, whatever its colour.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from genselfdiff.data.labelled.masks import has_soft_edges, read_mask
from genselfdiff.data.labelled.pairs import Pair, find_pairs, inspect_masks, load_pair
from genselfdiff.errors import InputError
from genselfdiff.evaluation.scores import EvaluationReport, ImageScores
from genselfdiff.evaluation.scoring import (
    USUAL,
    ImageComparison,
    ObjectOptions,
    Prediction,
    Truth,
    score_image,
)
from genselfdiff.inference.image import predict_image
from genselfdiff.inference.model_view import model_view
from genselfdiff.inference.predictor import COMPARED_TILES, Predictor
from genselfdiff.inference.resample import is_core, labels_of, resize
from genselfdiff.inference.tile_grid import TileGrid
from genselfdiff.models.model_file import LoadedModel, find_model
from genselfdiff.objects import check_min_area, seed_distance_in_pixels, taken_apart
from genselfdiff.progress import progress_bar
from genselfdiff.slides import open_slide
from genselfdiff.text import counted

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger("genselfdiff")


@dataclass(frozen=True, eq=False)
class Case:
    """An evaluated image, to be looked at.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        truth: (H, W) uint8 classes, or the ignored label.
        prediction: (H, W) uint8 classes.
        comparison: its scores and objects.
    """

    image: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    prediction: NDArray[np.uint8]
    comparison: ImageComparison


def evaluate(
    model: LoadedModel | str | Path,
    images_dir: str | Path,
    masks_dir: str | Path,
    *,
    mpp: float | None = None,
    icc: bool = False,
    foreground: bool = False,
    ignore_label: int | None = None,
    truth_objects: str | Path | None = None,
    objects: ObjectOptions = USUAL,
    device: str | None = None,
    precision: str = "auto",
    progress: bool | None = None,
    watch: Callable[[Case], None] | None = None,
    client: "Client | None" = None,
) -> EvaluationReport:
    """Predict every labelled image whole at the model's resolution and compare at the image's own.

    Args:
        model: a model, the file of one, or the name of a shipped one.
        images_dir: folder of images.
        masks_dir: folder of integer masks with the images' file names, suffix aside.
        mpp: micrometres per pixel of the images, where their files do not tell or are wrong.
        icc: see ``open_slide``.
        foreground: read every non-zero mask value as class 1; 0/255 masks are recognised without.
            If there are several such values, they are the numbers of the objects.
        ignore_label: mask value whose pixels are not counted.
        truth_objects: folder of masks whose values are numbers of objects; None: those of
            ``foreground`` masks, else what hangs together of a class.
        objects: how the objects of a prediction are found; of a model that tells their cores, they
            are taken apart by these if nothing else is asked for.
        device: as for ``genselfdiff.segment``.
        precision: as for ``genselfdiff.segment``.
        progress: show a progress bar on stderr; None: only on a terminal.
        watch: called with every image as it is done.
        client: of a Dask cluster, whose workers predict and compare, an image at a time each.

    Raises:
        GsdError: the cluster has no worker that fits, or its scheduler is gone.
        InputError: folders, images or masks that do not fit each other or the model's classes, or
            images without mpp where the model has one, or an option that is out of range.
        ModelError: not one of our model files.
    """
    if objects.min_area is not None:
        check_min_area(objects.min_area)
    seed_distance_in_pixels(objects.seed_distance, mpp)
    loaded = find_model(model, device if client is None else "cpu")
    classes = loaded.info.classes
    apart = taken_apart(objects.instances, objects.seed_distance, has_cores=loaded.info.instances)
    objects = replace(objects, instances=apart)
    if foreground and len(classes) != 2:
        raise InputError(
            f"{loaded.source}: has {len(classes)} classes: masks read as foreground fit only two"
        )
    pairs = find_pairs(images_dir, masks_dir)
    found = inspect_masks(pairs, foreground, num_classes=len(classes), ignore_label=ignore_label)
    numbered = {pair.stem: pair.mask for pair in pairs} if found.numbered else {}
    if truth_objects is not None:
        numbered = {pair.stem: pair.mask for pair in find_pairs(images_dir, truth_objects)}
    source = "numbers" if numbered else "connected"
    if found.numbered and truth_objects is None:
        logger.info("the masks hold several values: they are taken for numbers of objects")
    for pair in pairs:  # before hours of predictions, not in their middle
        with open_slide(pair.image, mpp=mpp) as slide:
            slide.at_mpp(loaded.info.mpp)
    compare = _Comparison(
        len(classes),
        mpp,
        icc,
        found.foreground,
        ignore_label,
        objects,
        keeps_cases=watch is not None,
    )
    compared: Iterator[_Compared]
    fields = [_Field(pair, numbered.get(pair.stem)) for pair in pairs]
    if client is None:
        predictor = Predictor(loaded, precision)
        bar = progress_bar(fields, unit="image", progress=progress)
        compared = (compare(predictor, field) for field in bar)
    else:
        from genselfdiff.fleet.mapping import predict_on

        compared = predict_on(
            client,
            loaded,
            compare,
            [(field.pair.image, field.absolute()) for field in fields],
            folder=Path(images_dir).absolute(),
            device=device,
            precision=precision,
            unit="image",
            progress=progress,
        )
    scores, are_apart, used = list[ImageScores](), False, loaded.device.type
    for each in compared:
        scores.append(each.scores)
        are_apart, used = are_apart or each.are_apart, each.device
        if watch is not None and each.case is not None:
            watch(each.case)
    if truth_objects is not None and not are_apart:
        logger.warning(
            "%s: none of %s holds more than one number: what is labelled in each counts as"
            " one object",
            truth_objects,
            counted(len(pairs), "mask"),
        )
    settings: dict[str, object] = {
        "icc": icc,
        "foreground": found.foreground,
        "ignore_label": ignore_label,
        "true_objects": source,
        **asdict(objects),
        "device": used,
        "precision": precision,
    }
    return EvaluationReport(Path(loaded.source), classes, settings, tuple(scores))


@dataclass(frozen=True)
class _Field:
    """A labelled image, and the file with the numbers of its objects, if there is one."""

    pair: Pair
    numbers: Path | None

    def absolute(self) -> "_Field":
        """The same for processes that work in other folders."""
        pair = replace(self.pair, image=self.pair.image.absolute(), mask=self.pair.mask.absolute())
        return _Field(pair, None if self.numbers is None else self.numbers.absolute())


@dataclass(frozen=True, eq=False)
class _Compared:
    """What a prediction has come to.

    Attributes:
        scores: of the image.
        are_apart: its true objects have numbers, several of them.
        device: that predicted.
        case: the image to be looked at, if anybody wants to.
    """

    scores: ImageScores
    are_apart: bool
    device: str
    case: Case | None


@dataclass(frozen=True)
class _Comparison:
    """How images are predicted and compared, in any process; see ``evaluate``."""

    num_classes: int
    mpp: float | None
    icc: bool
    foreground: bool
    ignore_label: int | None
    objects: ObjectOptions
    keeps_cases: bool

    def __call__(self, predictor: Predictor, field: _Field) -> _Compared:
        pair = field.pair
        image, labels = load_pair(
            pair,
            num_classes=self.num_classes,
            foreground=self.foreground,
            ignore_label=self.ignore_label,
            icc=self.icc,
        )
        numbers = _numbers(field.numbers, labels)
        prediction, known_mpp = _predict(predictor, pair, image, self.mpp, self.icc)
        comparison = score_image(
            pair.stem,
            Truth(labels, self.ignore_label, numbers),
            prediction,
            self.num_classes,
            mpp=known_mpp,
            objects=self.objects,
        )
        case = Case(image, labels, prediction.labels, comparison) if self.keeps_cases else None
        are_apart = numbers is not None and _differ(numbers)
        return _Compared(comparison.scores, are_apart, predictor.model.device.type, case)


def _numbers(path: Path | None, labels: NDArray[np.uint8]) -> NDArray[np.integer] | None:
    """The numbers of the true objects; None where no file holds them."""
    if path is None:
        return None
    numbers = read_mask(path)
    if numbers.shape != labels.shape:
        raise InputError(
            f"{path}: {numbers.shape[1]} x {numbers.shape[0]} pixels, but the image has"
            f" {labels.shape[1]} x {labels.shape[0]}: give the objects of this image"
        )
    if has_soft_edges(numbers):
        raise InputError(f"{path}: has soft edges, where each object should have its number")
    return numbers


def _differ(numbers: NDArray[np.integer]) -> bool:
    """Whether there are several objects."""
    inside = numbers[numbers != 0]
    return bool((inside != inside[:1]).any())


def _predict(
    predictor: Predictor, pair: Pair, image: NDArray[np.uint8], mpp: float | None, icc: bool
) -> tuple[Prediction, float | None]:
    """What is predicted of ``image``, the content of ``pair.image``, and its um per pixel."""
    info = predictor.model.info
    with open_slide(pair.image, mpp=mpp, icc=icc) as slide:
        view, scale = model_view(slide, info.mpp)
        seen = image if scale == 1 else view.read(0, 0, view.width, view.height)
        rows, columns = range(view.height), range(view.width)
        multiple = info.size_multiple
        grid = TileGrid.of(view, info.tile_size, info.overlap, rows, columns, multiple)
        known_mpp = slide.mpp
        predictor.choose_precision(grid.sample(view, COMPARED_TILES))
    probabilities = predict_image(
        predictor, seen, tile_size=info.tile_size, overlap=info.overlap, multiple=multiple
    )
    height, width = image.shape[:2]
    probabilities = resize(probabilities, height, width, scale)
    labels = labels_of(probabilities[: len(info.classes)])
    cores = is_core(probabilities[-1]) if info.instances else None
    return Prediction(labels, cores), known_mpp
