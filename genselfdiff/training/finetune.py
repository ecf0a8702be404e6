"""Stage 2: the pretrained network learns classes from a few labelled images."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

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
from genselfdiff.errors import InputError, ModelError
from genselfdiff.evaluation.metrics import confusion, dice
from genselfdiff.inference.model_file import Segmenter
from genselfdiff.inference.tiled import predict_image
from genselfdiff.losses import MultiLoss
from genselfdiff.models import create_model, load_initial_weights
from genselfdiff.models.weights import read_authors_checkpoint
from genselfdiff.slides import open_slide
from genselfdiff.training.config import FinetuneConfig, PretrainConfig
from genselfdiff.training.loop import train
from genselfdiff.training.run_folder import RunFolder, read_checkpoint

logger = logging.getLogger("genselfdiff")

NO_INIT = "none"
MPP_TOLERANCE = 0.1
"""Relative difference up to which two resolutions count as the same."""


def finetune(
    config: FinetuneConfig, out: str | Path, *, resume: bool = False, progress: bool | None = None
) -> RunFolder:
    """Train a segmenter into the run folder ``out``.

    What ``config`` leaves open is taken from the stage-1 run ``config.init`` (architecture, width,
    resolution) and from the masks (foreground); the folder keeps the result. With ``resume``
    the run goes on from its last checkpoint; ``config`` must be the one in its folder.

    Raises:
        InputError: images, masks or settings cannot be used.
        ModelError: ``config.init`` cannot be used.
        OutputError: ``out`` exists, or cannot be written.
        TrainingError: the loss diverged.
    """
    run = RunFolder(out)
    pairs = find_pairs(config.images, config.masks)
    if not resume:
        config = _complete(config, pairs)
    training, validation = split_pairs(pairs, config.val, seed=config.seed)
    logger.info(
        "%d images for training, %d for validation (%s)",
        len(training),
        len(validation),
        ", ".join(pair.stem for pair in validation[:5]) + (", ..." if len(validation) > 5 else ""),
    )
    torch.manual_seed(config.seed)
    network = create_model(
        config.architecture, out_channels=len(config.classes), width=config.width
    )
    if not resume and config.init != NO_INIT:
        report = load_initial_weights(network, _initial_weights(config.init), origin=config.init)
        logger.info("%s: %s", config.init, report)
    task = FinetuneTask(config, _load(config, training), _load(config, validation))
    if not resume:
        run.create()
        config.write(run.config)
    best = train(task, network, config, run, progress=progress)
    logger.info("best mean Dice on the validation images %.4f; checkpoints in %s", best, run.path)
    return run


class FinetuneTask:
    """Segmentation as the loop wants it."""

    higher_is_better = True

    def __init__(
        self, config: FinetuneConfig, training: LabelledImages, validation: LabelledImages
    ) -> None:
        self.config = config
        self.validation = validation
        self.dataset = LabelledCrops(
            training,
            tile_size=config.tile_size,
            seed=config.seed,
            length=config.steps * config.batch_size,
            augment=config.augmentation,
        )
        self.multi_loss = MultiLoss(config.loss_form)

    def loss(
        self, network: nn.Module, batch: tuple[torch.Tensor, torch.Tensor], first: int
    ) -> torch.Tensor:
        """Multi-loss of uint8 tiles (N, 3, T, T) and labels (N, T, T)."""
        tiles, labels = batch
        centred = self.config.input_scaling == "minus_one_one"
        x = tiles.float() / 127.5 - 1 if centred else tiles.float() / 255
        t = torch.zeros(len(tiles), dtype=torch.int64, device=tiles.device)
        logits = network(x.contiguous(memory_format=torch.channels_last), t)
        loss: torch.Tensor = self.multi_loss(logits.float(), labels)
        return loss

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Dice of each class, averaged over whole images; the score leaves the background out."""
        device = next(network.parameters()).device
        segmenter = Segmenter(network, self.config.input_scaling)
        scores = []
        for image, labels in zip(self.validation.images, self.validation.labels, strict=True):
            probabilities = predict_image(
                segmenter, image, tile_size=self.config.tile_size, device=device
            )
            matrix = confusion(labels, probabilities.argmax(0), len(self.config.classes))
            scores.append(torch.from_numpy(dice(matrix)))
        mean = torch.stack(scores).mean(0).tolist()
        named = {f"Dice {n}": v for n, v in zip(self.config.classes, mean, strict=True)}
        return {"score": sum(mean[1:]) / (len(mean) - 1), **named}

    def draw(self, network: nn.Module, step: int) -> None:
        """Stage 2 leaves no pictures while it trains."""


def _complete(config: FinetuneConfig, pairs: Sequence[Pair]) -> FinetuneConfig:
    """``config`` with everything that stage 1 and the files decide filled in, and checked."""
    summary = inspect_masks(pairs, config.foreground, num_classes=len(config.classes) or None)
    classes = config.classes or _class_names(summary.num_classes)
    if len(classes) < 2:
        raise InputError(f"{config.masks}: only background in the masks: nothing to learn")
    image_mpp = _images_mpp(pairs, config.image_mpp)
    target = config.mpp
    if config.init != NO_INIT and Path(config.init).is_dir():
        stage1 = PretrainConfig.read(RunFolder(config.init).config)
        config = replace(config, architecture=stage1.architecture, width=stage1.width)
        target = image_mpp if target is None else target
        if stage1.mpp is not None and not _agree(target, stage1.mpp):
            raise InputError(
                f"{config.images}: {target:g} um/px contradicts the {stage1.mpp:g} um/px of stage 1"
                f" ({config.init}): add --resample-to {stage1.mpp:g}, or pretrain at {target:g}"
            )
        target = stage1.mpp
    elif target is None:
        target = image_mpp
    return replace(
        config, classes=classes, foreground=summary.foreground, image_mpp=image_mpp, mpp=target
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
        if not _agree(mpp, result):
            wanted = "--mpp says" if given is not None else "other images have"
            raise InputError(
                f"{path}: has {mpp:g} um/px, but {wanted} {result:g}: all labelled images must"
                " have one resolution"
            )
    return result


def _agree(a: float, b: float) -> bool:
    return abs(a / b - 1) <= MPP_TOLERANCE


def _initial_weights(init: str) -> dict[str, torch.Tensor]:
    path = Path(init)
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
    scale = 1.0 if _agree(config.image_mpp, config.mpp) else config.image_mpp / config.mpp
    return LabelledImages(
        pairs, num_classes=len(config.classes), foreground=config.foreground, scale=scale
    )
