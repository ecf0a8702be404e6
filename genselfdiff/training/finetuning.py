"""Stage 2: the pretrained network learns classes from a few labelled images."""

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from genselfdiff.data import (
    LabelledCrops,
    LabelledImages,
    Pair,
    find_pairs,
    inspect_masks,
    split_pairs,
)
from genselfdiff.data.naming import name_some
from genselfdiff.errors import InputError, ModelError
from genselfdiff.evaluation.pixel_metrics import confusion, dice
from genselfdiff.inference.device import choose_device
from genselfdiff.inference.model_file import INPUT_SCALINGS, Segmenter
from genselfdiff.inference.tiled import predict_image
from genselfdiff.losses import MultiLoss
from genselfdiff.models import create_model, load_initial_weights
from genselfdiff.models.weights import read_authors_checkpoint
from genselfdiff.slides import open_slide
from genselfdiff.slides.resolution import BLURRED_ENLARGEMENT, MAX_ENLARGEMENT, SAME_SCALE, agree
from genselfdiff.training.config import FinetuneConfig, PretrainConfig
from genselfdiff.training.loop import train
from genselfdiff.training.run_folder import RunFolder, read_checkpoint

logger = logging.getLogger("genselfdiff")

NO_INIT = "none"


def finetune(
    config: FinetuneConfig, out: str | Path, *, resume: bool = False, progress: bool | None = None
) -> RunFolder:
    """Train a segmenter into the run folder ``out``.

    What ``config`` leaves open is taken from the stage-1 run ``config.init`` (architecture, width,
    resolution) and from the files (classes, foreground, split); the folder keeps the result. With
    ``resume`` the run goes on from its last checkpoint; ``config`` must be the one in its folder.

    Raises:
        InputError: images, masks or settings cannot be used.
        ModelError: ``config.init`` cannot be used.
        OutputError: ``out`` exists, or cannot be written.
        TrainingError: the loss diverged.
    """
    run = RunFolder(out)
    if not resume:
        run.require_absent()
    choose_device(config.device)
    pairs = find_pairs(config.images, config.masks)
    if not resume:
        config = _complete(config, pairs)
    training, validation = split_pairs(pairs, config.val, seed=config.seed)
    logger.info(
        "%d images for training, %d for validation (%s); classes: %s",
        len(training),
        len(validation),
        name_some([pair.stem for pair in validation]),
        ", ".join(config.classes),
    )
    torch.manual_seed(config.seed)
    network = segmenter_network(config)
    if config.init != NO_INIT and not run.latest.exists():
        report = load_initial_weights(network, _initial_weights(config.init), origin=config.init)
        logger.info("%s: %s", config.init, report)
    task = FinetuneTask(config, _load(config, training), _load(config, validation))
    task.warn_of_missing_classes()
    if not resume:
        run.create()
        _with_absolute_paths(config).write(run.config)
    best = train(task, network, config, run, progress=progress)
    logger.info(
        "best validation score (mean Dice of the classes without %s) %.4f; checkpoints in %s",
        config.classes[0],
        best,
        run.path,
    )
    return run


class FinetuneTask:
    """Segmentation as the loop wants it."""

    higher_is_better = True

    def __init__(
        self, config: FinetuneConfig, training: LabelledImages, validation: LabelledImages
    ) -> None:
        self.config = config
        self.training = training
        self.validation = validation
        self.dataset = LabelledCrops(
            training,
            tile_size=config.tile_size,
            seed=config.seed,
            length=config.steps * config.batch_size,
            augment=config.augmentation,
        )
        self.multi_loss = MultiLoss(config.loss_form, ignore_label=config.ignore_label)

    def warn_of_missing_classes(self) -> None:
        """Name the classes that no training or no validation mask holds."""
        for kind, images in (("training", self.training), ("validation", self.validation)):
            found = set().union(*(np.unique(labels).tolist() for labels in images.labels))
            missing = [name for i, name in enumerate(self.config.classes) if i not in found]
            if missing:
                logger.warning("no %s image holds: %s", kind, ", ".join(missing))

    def loss(
        self, network: nn.Module, batch: tuple[torch.Tensor, torch.Tensor], first: int
    ) -> torch.Tensor:
        """Multi-loss of uint8 tiles (N, 3, T, T) and labels (N, T, T)."""
        tiles, labels = batch
        factor, shift = INPUT_SCALINGS[self.config.input_scaling]
        x = tiles.float() * factor + shift
        t = torch.zeros(len(tiles), dtype=torch.int64, device=tiles.device)
        logits = network(x.contiguous(memory_format=torch.channels_last), t)
        loss: torch.Tensor = self.multi_loss(logits, labels)
        return loss

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Dice of each class, averaged over the whole images whose masks hold it.

        The score is the mean of the classes, background left out.
        """
        device = next(network.parameters()).device
        segmenter = Segmenter(network, self.config.input_scaling)
        classes = self.config.classes
        scores: dict[str, list[float]] = {name: [] for name in classes}
        for image, labels in zip(self.validation.images, self.validation.labels, strict=True):
            probabilities = predict_image(
                segmenter, image, tile_size=self.config.tile_size, device=device
            )
            predicted = probabilities.argmax(0)
            matrix = confusion(labels, predicted, len(classes), self.config.ignore_label)
            for name, pixels, score in zip(classes, matrix.sum(1), dice(matrix), strict=True):
                if pixels:
                    scores[name].append(float(score))
        means = {name: sum(found) / len(found) for name, found in scores.items() if found}
        objects = [mean for name, mean in means.items() if name != classes[0]]
        return {
            "score": sum(objects) / len(objects) if objects else 0.0,
            **{f"Dice {name}": mean for name, mean in means.items()},
        }

    def draw(self, network: nn.Module, step: int) -> None:
        """Stage 2 leaves no pictures while it trains."""


def _complete(config: FinetuneConfig, pairs: Sequence[Pair]) -> FinetuneConfig:
    """``config`` with everything that stage 1 and the files decide filled in, and checked."""
    summary = inspect_masks(
        pairs,
        config.foreground,
        num_classes=len(config.classes) or None,
        ignore_label=config.ignore_label,
    )
    image_mpp = _images_mpp(pairs, config.image_mpp)
    if config.mpp is not None and image_mpp > BLURRED_ENLARGEMENT * config.mpp:
        logger.warning(
            "%g um/px is coarser than --resample-to %g: the images will be blurred",
            image_mpp,
            config.mpp,
        )
    _, validation = split_pairs(
        pairs, config.val, seed=config.seed, group=config.group, fold=config.fold
    )
    config = replace(
        config,
        classes=config.classes or _class_names(summary.num_classes),
        foreground=summary.foreground,
        image_mpp=image_mpp,
        mpp=config.mpp or image_mpp,
        val=tuple(pair.stem for pair in validation),
    )
    if config.init != NO_INIT and Path(config.init).is_dir():
        config = _with_stage1(config, PretrainConfig.read(RunFolder(config.init).config))
    return config.with_network()


def _with_absolute_paths(config: FinetuneConfig) -> FinetuneConfig:
    """``config`` as it can be resumed from any working directory."""
    return replace(
        config,
        images=os.path.abspath(config.images),
        masks=os.path.abspath(config.masks),
        init=config.init if config.init == NO_INIT else os.path.abspath(config.init),
    )


def _with_stage1(config: FinetuneConfig, stage1: PretrainConfig) -> FinetuneConfig:
    """``config`` with what it must have in common with the stage-1 run that it starts from."""
    assert config.mpp is not None and stage1.mpp is not None
    if not agree(config.mpp, stage1.mpp):
        raise InputError(
            f"{config.images}: {config.mpp:g} um/px contradicts the {stage1.mpp:g} um/px of stage 1"
            f" ({config.init}): add --resample-to {stage1.mpp:g}, or pretrain at {config.mpp:g}"
        )
    for name in ("architecture", "width"):
        wanted, there = getattr(config, name), getattr(stage1, name)
        if wanted is not None and wanted != there:
            raise InputError(
                f"{name} {wanted} contradicts stage 1 ({config.init}: {there}): leave it out"
            )
    return replace(
        config,
        architecture=stage1.architecture,
        width=stage1.width,
        mpp=stage1.mpp,
        stage1=stage1.shareable(),
    )


def _class_names(count: int) -> tuple[str, ...]:
    if count == 2:
        return ("background", "foreground")
    return ("background", *(f"class {index}" for index in range(1, count)))


def _images_mpp(pairs: Sequence[Pair], given: float | None) -> float:
    """The one resolution of all images, from the files or as given."""
    own: dict[Path, float] = {}
    for pair in pairs:
        with open_slide(pair.image) as slide:
            if slide.mpp is not None:
                own[pair.image] = slide.mpp
    if given is None and len(own) < len(pairs):
        path = next(pair.image for pair in pairs if pair.image not in own)
        raise InputError(f"{path}: does not tell its resolution: give it with --mpp (um/px)")
    result = next(iter(own.values())) if given is None else given
    for path, mpp in own.items():
        if not agree(mpp, result):
            wanted = "--mpp says" if given is not None else "other images have"
            raise InputError(
                f"{path}: has {mpp:g} um/px, but {wanted} {result:g}: all labelled images must"
                " have one resolution"
            )
    return result


def segmenter_network(config: FinetuneConfig) -> nn.Module:
    """The network of a complete ``config``, with fresh weights."""
    assert config.architecture is not None
    return create_model(config.architecture, out_channels=len(config.classes), width=config.width)


def _initial_weights(init: str) -> dict[str, torch.Tensor]:
    path = Path(init)
    if not path.exists():
        raise ModelError(
            f"{init}: no such run folder or checkpoint; --init none trains from scratch"
        )
    if path.is_dir():
        return read_checkpoint(RunFolder(path).best).weights
    if path.suffix in (".pth", ".pt"):
        return read_authors_checkpoint(path)
    raise ModelError(
        f"{init}: neither a run folder of gsd train pretrain nor a .pth checkpoint:"
        " give one, or --init none to train from scratch"
    )


def _load(config: FinetuneConfig, pairs: Sequence[Pair]) -> LabelledImages:
    assert config.image_mpp is not None and config.mpp is not None
    same = agree(config.image_mpp, config.mpp, SAME_SCALE)
    enlargement = config.image_mpp / config.mpp
    if enlargement > MAX_ENLARGEMENT:
        raise InputError(
            f"{config.images}: {config.image_mpp:g} um/px would be enlarged {enlargement:.0f} times"
            f" to reach {config.mpp:g}: check --mpp and --resample-to"
        )
    return LabelledImages(
        pairs,
        num_classes=len(config.classes),
        foreground=config.foreground,
        ignore_label=config.ignore_label,
        scale=1.0 if same else enlargement,
    )
