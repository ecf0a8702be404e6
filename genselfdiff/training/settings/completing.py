"""What the files and an earlier run decide of a run's settings, filled in and checked."""

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from genselfdiff.choices import ENCODER_ARCHITECTURE
from genselfdiff.data.labelled.pairs import Pair, find_pairs, inspect_masks
from genselfdiff.data.labelled.splits import split_pairs
from genselfdiff.errors import InputError
from genselfdiff.json_records import as_json
from genselfdiff.models.encoders.vit_weights import read_vit
from genselfdiff.models.published.model_folder import has_whole_weights
from genselfdiff.slides import open_slide
from genselfdiff.slides.resolution import BLURRED_ENLARGEMENT, agree
from genselfdiff.training.initial_weights import (
    kept_init,
    origin_of,
    require_resolution_of,
    with_architecture_of,
)
from genselfdiff.training.settings.run_config import NO_INIT
from genselfdiff.training.settings.stage_configs import FinetuneConfig, PretrainConfig

logger = logging.getLogger("genselfdiff")

START_SHARE = 0.5
"""Of a shipped model: measured with 3, 5 and 10 fields, see benchmarks/nuclei/fields.py."""


def complete_pretrain(config: PretrainConfig) -> PretrainConfig:
    """``config`` with everything filled in that the run it starts from decides, and checked.

    Raises:
        InputError: no resolution, or one that contradicts ``config.init``.
        ModelError: ``config.init`` cannot be used.
    """
    if config.mpp is None:
        raise InputError("the resolution to train at is missing: give --mpp (0.5 suits 20x)")
    origin = origin_of(config)
    if origin is not None:
        if not isinstance(origin, PretrainConfig):
            raise InputError(
                f"--init {config.init}: a run of stage 2, whose network predicts classes: give"
                " one of stage 1"
            )
        config = with_architecture_of(config, origin)
        require_resolution_of(config, origin, "--mpp", "pretrain at --mpp {origin}")
    return replace(
        config,
        data=tuple(map(os.path.abspath, config.data)),
        init=kept_init(config.init),
    ).with_network()


def complete_finetune(config: FinetuneConfig) -> FinetuneConfig:
    """``config`` with everything filled in that the files and ``config.init`` decide, and checked.

    Raises:
        InputError: images, masks or settings cannot be used.
        ModelError: ``config.init`` cannot be used.
    """
    if config.sync_loss and config.loss != "multi":
        raise InputError(
            f"--sync-loss takes the sums of the multi-loss over all processes: leave it out with"
            f" --loss {config.loss}"
        )
    if config.init == NO_INIT and config.init_layers != "all":
        raise InputError(f"--init-layers {config.init_layers}: needs an --init to take them of")
    config = _with_encoder(config)
    origin = origin_of(config)  # before the masks are read, which takes its time
    if config.has_encoder and config.encoder is None and origin is None:
        raise InputError(
            f"--architecture {config.architecture}: give the weights of its encoder with --encoder"
        )
    pairs = find_pairs(config.images, config.masks)
    summary = inspect_masks(
        pairs,
        config.foreground,
        num_classes=len(config.classes) or None,
        ignore_label=config.ignore_label,
    )
    if config.instances and not summary.numbered:
        raise InputError(
            f"{config.masks}: no mask has several values besides 0, so that objects cannot be told"
            " apart: give masks of numbers of objects, or leave out --instances"
        )
    mpp = _images_mpp(pairs, config.mpp)
    _, validation = split_pairs(
        pairs, config.val, seed=config.seed, group=config.group, fold=config.fold
    )
    if isinstance(origin, FinetuneConfig) and has_whole_weights(config.init):
        config = _as_finished(config, origin, summary.num_classes, mpp)
    config = replace(
        config,
        classes=config.classes or _class_names(summary.num_classes),
        foreground=summary.foreground,
        mpp=mpp,
        resample_to=config.resample_to or mpp,
        val=tuple(pair.stem for pair in validation),
    )
    if origin is not None:
        config = _with_origin(config, origin, summary.numbered)
    config = replace(config, start_share=_start_share(config, origin))
    assert config.resample_to is not None
    if mpp > BLURRED_ENLARGEMENT * config.resample_to:
        logger.warning(
            "%g um/px is coarser than the %g to train at: the images will be blurred",
            mpp,
            config.resample_to,
        )
    return replace(
        config,
        images=os.path.abspath(config.images),
        masks=os.path.abspath(config.masks),
        init=kept_init(config.init),
    ).with_network()


def _with_encoder(config: FinetuneConfig) -> FinetuneConfig:
    """``config`` with the network that the weights of ``config.encoder`` ask for.

    Raises:
        InputError: it contradicts other settings.
        ModelError: it cannot be used.
    """
    if config.encoder is None:
        return config
    if config.init != NO_INIT:
        raise InputError(
            f"--encoder {config.encoder}: is what the run starts from: leave out --init"
            f" {config.init}"
        )
    if config.architecture is not None and not config.has_encoder:
        raise InputError(
            f"--encoder {config.encoder}: is no part of architecture {config.architecture}: leave"
            " out --architecture"
        )
    if config.input_scaling != FinetuneConfig.input_scaling:
        raise InputError(
            f"--encoder {config.encoder}: has a scaling of its own: leave out --input-scaling, or"
            " the preset that sets it"
        )
    (architecture,) = ENCODER_ARCHITECTURE
    return replace(
        config,
        architecture=architecture,
        encoder=os.path.abspath(config.encoder),
        encoder_shape=as_json(read_vit(config.encoder).shape),
    )


def _as_finished(
    config: FinetuneConfig, origin: FinetuneConfig, num_classes: int, mpp: float
) -> FinetuneConfig:
    """``config`` with what a finished model decides where it is left open, of images at ``mpp``."""
    assert origin.resample_to is not None
    if config.resample_to is None and not agree(mpp, origin.resample_to):
        logger.info(
            "images of %g um/px are resampled to the %g of %s", mpp, origin.resample_to, config.init
        )
    names = origin.classes if len(origin.classes) == num_classes else ()
    return replace(
        config,
        classes=config.classes or names,
        resample_to=config.resample_to or origin.resample_to,
    )


def _with_origin(
    config: FinetuneConfig, origin: PretrainConfig | FinetuneConfig, numbered: bool
) -> FinetuneConfig:
    """``config`` with what a run or model decides in any case.

    ``numbered`` says that the masks hold numbers of objects.
    """
    way_out = "add --resample-to {origin}, or pretrain at {mpp}"
    if has_whole_weights(config.init):
        way_out = "leave out --resample-to"
    require_resolution_of(config, origin, config.images, way_out)
    config = with_architecture_of(config, origin)
    if isinstance(origin, FinetuneConfig):
        if config.input_scaling != origin.input_scaling:
            raise InputError(
                f"--init {config.init}: has learnt with --input-scaling {origin.input_scaling}:"
                f" give that, not {config.input_scaling}"
            )
        if config.icc is not origin.icc:
            words = ("with", "without") if origin.icc else ("without", "with")
            logger.warning("%s was trained %s --icc, and this run is %s it", config.init, *words)
        config = replace(
            config, attributions=origin.attributions, encoder_shape=origin.encoder_shape
        )
        if origin.instances and numbered and not config.instances:
            logger.info(
                "%s tells touching objects apart, and the masks hold their numbers: this run"
                " learns classes only; --instances keeps both",
                config.init,
            )
    return replace(config, resample_to=origin.network_mpp, origin=origin.shareable())


def _start_share(config: FinetuneConfig, origin: PretrainConfig | FinetuneConfig | None) -> float:
    """How much of the weights of ``config.init`` is kept, which must find the same.

    Raises:
        InputError: a share is asked for of one that does not.
    """
    alike = (
        isinstance(origin, FinetuneConfig)
        and len(origin.classes) == len(config.classes)
        and origin.instances == config.instances
        and config.init_layers == "all"
    )
    if config.start_share and not alike:
        raise InputError(
            f"--start-share {config.start_share:g}: needs all layers of an --init that was"
            " fine-tuned for as many classes, with --instances as here: leave it out"
        )
    if config.start_share is None and alike and has_whole_weights(config.init):
        return START_SHARE
    return config.start_share or 0.0


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
        raise InputError(f"{path}: does not state its resolution: give it with --mpp (um/px)")
    result = next(iter(own.values())) if given is None else given
    for path, mpp in own.items():
        if not agree(mpp, result):
            wanted = "--mpp says" if given is not None else "other images have"
            raise InputError(
                f"{path}: has {mpp:g} um/px, but {wanted} {result:g}: all labelled images must"
                " have one resolution (--resample-to says at which to train)"
            )
    return result
