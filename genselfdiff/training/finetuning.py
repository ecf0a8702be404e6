"""Stage 2: the pretrained network learns classes from a few labelled images."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from genselfdiff.choices import INPUT_SCALINGS
from genselfdiff.data.labelled.crops import LabelledCrops
from genselfdiff.data.labelled.images import CORE_LABEL, LabelledImages
from genselfdiff.data.labelled.pairs import Pair, find_pairs
from genselfdiff.data.labelled.splits import budgeted, split_pairs
from genselfdiff.data.naming import name_some
from genselfdiff.errors import InputError
from genselfdiff.evaluation.outlines_picture import draw_outlines
from genselfdiff.evaluation.pixel_metrics import confusion, dice
from genselfdiff.evaluation.scoring import Prediction, count_all
from genselfdiff.files import atomic_file
from genselfdiff.inference.image import predict_image
from genselfdiff.inference.resample import is_core, labels_of
from genselfdiff.losses import MultiLoss, SingleLoss
from genselfdiff.models.segmenter import Segmenter, size_multiple_of
from genselfdiff.slides.resolution import MAX_ENLARGEMENT, SAME_SCALE, agree
from genselfdiff.text import counted, file_name
from genselfdiff.training.networks import segmenter_network
from genselfdiff.training.run_folder import RunFolder
from genselfdiff.training.settings.stage_configs import FinetuneConfig

logger = logging.getLogger("genselfdiff")


@dataclass(frozen=True)
class FieldScore:
    """How well one validation image is segmented.

    Attributes:
        stem: its name.
        dice: by class, of those that its mask or the prediction holds.
        objects: where cores are learnt, the panoptic quality of the objects, and their AJI; none
            where there are no objects.
    """

    stem: str
    dice: dict[str, float]
    objects: dict[str, float]


class FinetuneTask:
    """Segmentation as the loop wants it.

    Args:
        config: complete, see `completing.complete_finetune`.
        run: where pictures go.

    Attributes:
        dataset: the crops that are trained on.
        training, validation: the labelled images of either side.
        counts: how many these are.
        names: of these, without suffix.

    Raises:
        InputError: images or masks cannot be used.
    """

    higher_is_better = True

    def __init__(self, config: FinetuneConfig, run: RunFolder) -> None:
        self.config = config
        self.run = run
        pairs = find_pairs(config.images, config.masks)
        training, validation = split_pairs(pairs, config.val, seed=config.seed)
        training = budgeted(training, config.train_images, config.seed)
        logger.info(
            "%s for training, %d for validation (%s); classes: %s",
            counted(len(training), "image"),
            len(validation),
            name_some([pair.stem for pair in validation]),
            ", ".join(config.classes),
        )
        self.counts = {"training images": len(training), "validation images": len(validation)}
        self.names = [pair.stem for pair in training], [pair.stem for pair in validation]
        self.training = _load(config, training)
        self.validation = _load(config, validation)
        self.dataset = LabelledCrops(
            self.training,
            tile_size=config.tile_size,
            seed=config.seed,
            length=config.steps * config.batch_size,
            augment=config.augmentation,
        )
        self.objective = _objective(config)
        if config.train_images is not None:
            logger.info("these train: %s", ", ".join(self.training.stems))
        self._warn_of_missing_classes()
        self._warn_of_small_images()

    @property
    def score_name(self) -> str:
        """What the score is, for the user."""
        if self.config.instances:
            return "validation score (mean panoptic quality)"
        return f"validation score (mean Dice of the classes without {self.config.classes[0]})"

    @property
    def pieces(self) -> int:
        """Images that validate."""
        return len(self.validation)

    @property
    def naive_loss(self) -> float:
        """That of calling all classes equally likely, where each fills its share of a tile."""
        counts = [len(self.config.classes), *([2] if self.config.instances else [])]
        return sum(_naive(self.config.loss, count) for count in counts)

    def create_network(self) -> nn.Module:
        """The network of the settings, with fresh weights."""
        return segmenter_network(self.config)

    def describe(self, first: int, count: int) -> str:
        """The numbers of the crops and the images that they are of."""
        stems = dict.fromkeys(self.dataset.stem(index) for index in range(first, first + count))
        return f"crops {first} to {first + count - 1} of {name_some(list(stems))}"

    def _warn_of_missing_classes(self) -> None:
        """Name the classes that no training or no validation mask holds."""
        for kind, images in (("training", self.training), ("validation", self.validation)):
            found = set().union(*(np.unique(labels).tolist() for labels in images.labels))
            missing = [name for i, name in enumerate(self.config.classes) if i not in found]
            if missing:
                logger.warning("no %s image holds: %s", kind, ", ".join(missing))

    def _warn_of_small_images(self) -> None:
        """Name the training images that a tile reaches beyond."""
        side = self.config.tile_size
        sizes = zip(self.training.stems, self.training.labels, strict=True)
        small = [stem for stem, labels in sizes if min(labels.shape) < side]
        if small:
            logger.warning(
                "smaller than a tile of %d pixels, and reflected to fill it: %s",
                side,
                name_some(small),
            )

    def loss(
        self, network: nn.Module, batch: tuple[torch.Tensor, torch.Tensor], first: int
    ) -> torch.Tensor:
        """Loss of uint8 tiles (N, 3, T, T) and labels (N, T, T)."""
        tiles, labels = batch
        factor, shift = INPUT_SCALINGS[self.config.input_scaling]
        x = tiles.float() * factor + shift
        t = torch.zeros(len(tiles), dtype=torch.int64, device=tiles.device)
        logits = network(x.contiguous(memory_format=torch.channels_last), t)
        if not self.config.instances:
            loss: torch.Tensor = self.objective(logits, labels)
            return loss
        in_core = labels == CORE_LABEL
        classes = torch.where(in_core, 1, labels)
        cores = torch.where(in_core, 1, torch.where(labels == 1, 0, labels))
        loss = self.objective(logits[:, :-2], classes) + self.objective(logits[:, -2:], cores)
        return loss

    def validate(self, network: nn.Module, rank: int, size: int) -> dict[int, FieldScore]:
        """Scores of every ``size``-th whole image from ``rank`` on."""
        classes = self.config.classes
        results = {}
        for number in range(rank, len(self.validation), size):
            prediction, cores = self._predict(network, number)
            truth, ignored = self._truth(number), self.config.ignore_label
            matrix = confusion(truth, prediction, len(classes), ignored)
            scores = zip(classes, dice(matrix).tolist(), strict=True)
            objects: dict[str, float] = {}
            if cores is not None:
                counted = np.where(truth == ignored, 0, prediction)
                numbers, mpp = self.validation.numbers[number], self.config.resample_to
                counts = count_all(numbers, Prediction(counted, cores), mpp)
                objects = {"PQ": counts.pq, "AJI": counts.aji}
            results[number] = FieldScore(
                self.validation.stems[number],
                {name: score for name, score in scores if not math.isnan(score)},
                {name: score for name, score in objects.items() if not math.isnan(score)},
            )
        return results

    def summarise(
        self, results: dict[int, FieldScore]
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Dice of each class, averaged over the whole images that hold it or where it is found.

        As in `gsd evaluate`. The score is the mean of the classes, background left out, or where
        cores are learnt the mean panoptic quality.
        """
        fields = results.values()
        means = {
            name: fmean(found)
            for name in self.config.classes
            if (found := [field.dice[name] for field in fields if name in field.dice])
        }
        scored = [mean for name, mean in means.items() if name != self.config.classes[0]]
        of_objects = {
            name: fmean(field.objects[name] for field in fields if name in field.objects)
            for name in dict.fromkeys(name for field in fields for name in field.objects)
        }
        if self.config.instances:
            scored = [value for name, value in of_objects.items() if name == "PQ"]
        figures = {
            "score": fmean(scored) if scored else 0.0,
            **{f"Dice {name}": mean for name, mean in means.items()},
            **of_objects,
        }
        scores = {field.stem: self._field_score(field) for field in fields}
        return figures, {stem: score for stem, score in scores.items() if score is not None}

    def draw(
        self, network: nn.Module, step: int, results: dict[int, FieldScore] | None
    ) -> list[Path]:
        """Draw truth and prediction over the worst and the best field of a new best checkpoint."""
        scored = [
            (score, number)
            for number, field in (results or {}).items()
            if (score := self._field_score(field)) is not None
        ]
        if not scored:
            return []
        paths = []
        drawn = (("worst", min(scored)), ("best", max(scored)))
        for kind, (_, number) in drawn[-len(scored) :]:
            picture = draw_outlines(
                self.validation.images[number],
                self._truth(number),
                self._predict(network, number)[0],
                ignore_label=self.config.ignore_label,
            )
            name = file_name(f"step_{step:07d}_{kind}_{self.validation.stems[number]}")
            path = self.run.picture(self.run.fields, name)
            with atomic_file(path) as temporary:
                Image.fromarray(picture).save(temporary, format="png")
            paths.append(path)
        return paths

    def _truth(self, number: int) -> NDArray[np.uint8]:
        """Classes (H, W) that a validation image has."""
        labels = self.validation.labels[number]
        return np.where(labels == CORE_LABEL, 1, labels) if self.config.instances else labels

    def _predict(
        self, network: nn.Module, number: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
        """Classes (H, W) of a validation image, and where cores of objects are, if it is learnt."""
        probabilities = predict_image(
            Segmenter(network, self.config.input_scaling, self.config.instances),
            self.validation.images[number],
            tile_size=self.config.tile_size,
            multiple=size_multiple_of(network),
            device=next(network.parameters()).device,
        )
        classes = labels_of(probabilities[: len(self.config.classes)])
        return classes, is_core(probabilities[-1]) if self.config.instances else None

    def _field_score(self, field: FieldScore) -> float | None:
        """The score of one image; None if it has no objects."""
        if self.config.instances:
            return field.objects.get("PQ")
        objects = [value for name, value in field.dice.items() if name != self.config.classes[0]]
        return fmean(objects) if objects else None


def _objective(config: FinetuneConfig) -> nn.Module:
    """What is minimised, of logits and labels."""
    if config.loss == "multi":
        return MultiLoss(config.loss_form, ignore_label=config.ignore_label, sync=config.sync_loss)
    return SingleLoss(config.loss, config.loss_form, config.ignore_label)


def _naive(loss: str, classes: int) -> float:
    """What a loss is where all classes are called equally likely."""
    cross_entropy = math.log(classes)
    focal = cross_entropy * (1 - 1 / classes) ** 2
    return {"multi": cross_entropy + focal, "focal": focal}.get(loss, cross_entropy)


def _load(config: FinetuneConfig, pairs: Sequence[Pair]) -> LabelledImages:
    assert config.mpp is not None and config.resample_to is not None
    same = agree(config.mpp, config.resample_to, SAME_SCALE)
    enlargement = config.mpp / config.resample_to
    if enlargement > MAX_ENLARGEMENT:
        raise InputError(
            f"{config.images}: {config.mpp:g} um/px would be enlarged {enlargement:.0f} times"
            f" to reach {config.resample_to:g}: check --mpp and --resample-to"
        )
    return LabelledImages(
        pairs,
        num_classes=len(config.classes),
        foreground=config.foreground,
        ignore_label=config.ignore_label,
        instances=config.instances,
        scale=1.0 if same else enlargement,
        icc=config.icc,
    )
