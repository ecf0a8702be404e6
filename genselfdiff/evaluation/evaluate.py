"""Scores of a model on a folder of labelled images, predicted whole.

As ``gsd segment --no-tissue`` predicts them: a labelled field is tissue, whatever its colour.
"""

import json
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from genselfdiff.data import Pair, find_pairs, inspect_masks, load_pair
from genselfdiff.errors import InputError
from genselfdiff.evaluation.pixel_metrics import Float64, Int64, confusion, dice, iou, ratio
from genselfdiff.files import write_csv, write_text
from genselfdiff.inference.layout import model_view
from genselfdiff.inference.model_file import LoadedModel, find_model
from genselfdiff.inference.predictor import COMPARED_TILES, Predictor
from genselfdiff.inference.resample import labels_of, resize
from genselfdiff.inference.tile_grid import TileGrid
from genselfdiff.inference.tiled import predict_image
from genselfdiff.slides import open_slide

OVERLAP = 0.25
"""Fraction of a tile shared with its neighbour, as ``segment`` has it by default."""


@dataclass(frozen=True, eq=False)
class ImageScore:
    """Scores of one image; ``matrix`` is its (C, C) confusion, rows the truth."""

    name: str
    matrix: Int64

    @property
    def dice(self) -> Float64:
        """(C,) Dice; NaN for a class that is neither in the mask nor predicted."""
        return dice(self.matrix)

    @property
    def iou(self) -> Float64:
        """(C,) intersection over union; NaN for a class neither in the mask nor predicted."""
        return iou(self.matrix)


@dataclass(frozen=True, eq=False)
class EvaluationReport:
    """Scores by image, their mean, and overall: of all pixels of all images taken together."""

    model: Path
    classes: tuple[str, ...]
    images: tuple[ImageScore, ...]

    @property
    def overall(self) -> ImageScore:
        """Scores of the pixels of all images pooled."""
        return ImageScore("overall", np.sum([image.matrix for image in self.images], axis=0))

    @property
    def mean_dice(self) -> Float64:
        """(C,) mean over the images where it is defined."""
        return _mean([image.dice for image in self.images])

    @property
    def mean_iou(self) -> Float64:
        """(C,) mean over the images where it is defined."""
        return _mean([image.iou for image in self.images])

    def table(self) -> str:
        """Aligned text: a row for each image, the mean, the whole; background is left out."""
        titles = [f"{kind} {name}" for name in self.classes[1:] for kind in ("Dice", "IoU")]
        rows = [["image", *titles]]
        for name, dices, ious in self._rows():
            scores = np.stack((dices[1:], ious[1:]), axis=1).ravel()
            rows.append([name, *("-" if isnan(score) else f"{score:.4f}" for score in scores)])
        first, *others = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            row[0].ljust(first)
            + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], others, strict=True))
            for row in rows
        ]
        rule = "-" * len(lines[0])
        return "\n".join([lines[0], rule, *lines[1:-2], rule, *lines[-2:]])

    def write_csv(self, path: str | Path) -> None:
        """Write the table with all classes.

        Raises:
            OutputError: the file cannot be written.
        """
        titles = [f"{kind}_{name}" for kind in ("dice", "iou") for name in self.classes]
        rows = ([name, *_defined(d), *_defined(i)] for name, d, i in self._rows())
        write_csv(path, ["image", *titles], rows)

    def write_json(self, path: str | Path) -> None:
        """Write all scores and confusion matrices (rows the truth, columns the prediction).

        Raises:
            OutputError: the file cannot be written.
        """
        overall = self.overall
        content = {
            "model": str(self.model),
            "classes": list(self.classes),
            "images": [
                {"image": s.name, **self._named(s.dice, s.iou), "confusion": s.matrix.tolist()}
                for s in self.images
            ],
            "mean": self._named(self.mean_dice, self.mean_iou),
            "overall": {
                **self._named(overall.dice, overall.iou),
                "confusion": overall.matrix.tolist(),
            },
        }
        write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def _rows(self) -> list[tuple[str, Float64, Float64]]:
        overall = self.overall
        return [
            *((score.name, score.dice, score.iou) for score in self.images),
            ("mean of images", self.mean_dice, self.mean_iou),
            ("overall", overall.dice, overall.iou),
        ]

    def _named(self, dice_scores: Float64, iou_scores: Float64) -> dict[str, Any]:
        return {
            "dice": dict(zip(self.classes, _defined(dice_scores), strict=True)),
            "iou": dict(zip(self.classes, _defined(iou_scores), strict=True)),
        }


def _mean(scores: list[Float64]) -> Float64:
    """(C,) mean of what is defined; NaN where nothing is."""
    return ratio(np.nansum(scores, axis=0), np.isfinite(scores).sum(axis=0))


def _defined(scores: Float64) -> list[float | None]:
    return [None if isnan(score) else score for score in scores.tolist()]


def evaluate_model(
    model: LoadedModel | str | Path,
    images_dir: str | Path,
    masks_dir: str | Path,
    *,
    mpp: float | None = None,
    foreground: bool = False,
    ignore_label: int | None = None,
    device: str | None = None,
    precision: str = "auto",
    progress: bool | None = None,
) -> EvaluationReport:
    """Predict every labelled image whole at the model's resolution and compare at the image's own.

    Args:
        model: a model, or the file of one.
        images_dir: folder of images.
        masks_dir: folder of integer masks with the images' file names, suffix aside.
        mpp: micrometres per pixel of the images, where their files do not tell or are wrong.
        foreground: read every non-zero mask value as class 1; 0/255 masks are recognised without.
        ignore_label: mask value whose pixels are not counted.
        device: as for ``genselfdiff.segment``.
        precision: as for ``genselfdiff.segment``.
        progress: show a progress bar on stderr; None: only on a terminal.

    Raises:
        InputError: folders, images or masks that do not fit each other or the model's classes, or
            images without mpp where the model has one.
        ModelError: not one of our model files.
    """
    loaded = find_model(model, device)
    classes = loaded.info.classes
    if foreground and len(classes) != 2:
        raise InputError(
            f"{loaded.path}: has {len(classes)} classes: masks read as foreground fit only two"
        )
    pairs = find_pairs(images_dir, masks_dir)
    foreground = inspect_masks(
        pairs, foreground, num_classes=len(classes), ignore_label=ignore_label
    ).foreground
    predictor = Predictor(loaded, precision)
    scores = []
    bar = tqdm(pairs, unit="image", disable=None if progress is None else not progress)
    for pair in bar:
        image, labels = load_pair(
            pair, num_classes=len(classes), foreground=foreground, ignore_label=ignore_label
        )
        prediction = _predict(predictor, pair, image, mpp)
        matrix = confusion(labels, prediction, len(classes), ignore_label)
        scores.append(ImageScore(pair.stem, matrix))
    return EvaluationReport(loaded.path, classes, tuple(scores))


def _predict(
    predictor: Predictor, pair: Pair, image: NDArray[np.uint8], mpp: float | None
) -> NDArray[np.uint8]:
    """Labels (H, W) of ``image``, the content of ``pair.image``."""
    info = predictor.model.info
    with open_slide(pair.image, mpp=mpp) as slide:
        view, scale = model_view(slide, info.mpp)
        seen = image if scale == 1 else view.read(0, 0, view.width, view.height)
        rows, columns = range(view.height), range(view.width)
        grid = TileGrid.of(view, info.tile_size, OVERLAP, rows, columns)
        predictor.choose_precision(grid.sample(view, COMPARED_TILES))
    probabilities = predict_image(predictor, seen, tile_size=info.tile_size, overlap=OVERLAP)
    height, width = image.shape[:2]
    return labels_of(resize(probabilities, height, width, scale))
