"""What a run starts from: fresh weights, a shipped model, a run of ours, the authors' weights."""

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from genselfdiff.errors import InputError, ModelError
from genselfdiff.models.encoders.encoder_network import EncoderNetwork
from genselfdiff.models.encoders.vit_weights import read_vit
from genselfdiff.models.formats.choosing import SUFFIXES
from genselfdiff.models.published.model_folder import has_whole_weights, whole_weights
from genselfdiff.models.shipped import catalogue
from genselfdiff.models.unet import UNet
from genselfdiff.models.weights import (
    load_initial_weights,
    read_authors_checkpoint,
    with_decoder_of,
    with_last_layer_of,
)
from genselfdiff.slides.resolution import agree
from genselfdiff.training.run_folder import RunFolder, read_checkpoint
from genselfdiff.training.settings.run_config import NO_INIT, RunConfig
from genselfdiff.training.settings.stage_configs import (
    FinetuneConfig,
    PretrainConfig,
    read_run_config,
)

logger = logging.getLogger("genselfdiff")

Config = TypeVar("Config", bound=RunConfig)

AUTHORS_DEVIATION = 0.01

_CHECKPOINT, _AUTHORS = ".safetensors", (".pth", ".pt")
"""Endings of the files of weights that runs start from."""


def kept_init(init: str) -> str:
    """``init`` as a run keeps it: a name as it is, so that it holds on any machine; else a path."""
    name = catalogue.name_of(init)
    if name is not None:
        catalogue.warn_of_namesake(name)
    return init if init == NO_INIT or name is not None else os.path.abspath(init)


def origin_of(config: RunConfig) -> PretrainConfig | FinetuneConfig | None:
    """Settings of the run or model that ``config.init`` names; None where it names none.

    Raises:
        ModelError: there is no such run or file, or it has no weights to start from.
    """
    if config.init == NO_INIT:
        return None
    if has_whole_weights(config.init):
        return _settings_of(config.init)
    path = Path(config.init)
    if not path.exists():
        raise ModelError(f"{path}: there is no such file or folder: {_taken()}")
    folder = _run_of(path)
    return None if folder is None else read_run_config(folder.config)


def with_architecture_of(config: Config, origin: RunConfig) -> Config:
    """``config`` with the network of the run that it starts from.

    Raises:
        InputError: ``config`` asks for another.
    """
    for name in ("architecture", "width"):
        wanted, found = getattr(config, name), getattr(origin, name)
        if wanted is not None and wanted != found:
            raise InputError(
                f"{name} {wanted} contradicts {config.init}, which has {found}: leave it out, or"
                f" where --config or --preset says it, give --{name} {found}"
            )
    return replace(config, architecture=origin.architecture, width=origin.width)


def require_resolution_of(config: RunConfig, origin: RunConfig, what: str, way_out: str) -> None:
    """Raise InputError where the network was trained at another resolution than is asked for.

    ``what`` is seen at ``config.network_mpp``; ``way_out`` says how to mend it, {mpp} and
    {origin} standing for both.
    """
    mpp, origin_mpp = config.network_mpp, origin.network_mpp
    assert mpp is not None and origin_mpp is not None
    if not agree(mpp, origin_mpp):
        raise InputError(
            f"{what}: {mpp:g} um/px contradicts the {origin_mpp:g} um/px of {config.init}: "
            + way_out.format(mpp=f"{mpp:g}", origin=f"{origin_mpp:g}")
        )


def start_weights(network: UNet | EncoderNetwork, config: RunConfig) -> None:
    """Give ``network`` fresh weights, and those that ``config.init`` or ``config.encoder`` has.

    The output head is taken along between runs of one stage, in stage 2 as far as it fits: the
    classes if there are as many, and the cores if both learn them. Without the decoder it is not.

    Raises:
        ModelError: not weights, or of another network.
    """
    if config.fresh_weights == "normal":
        _draw_as_the_authors(network)
    if isinstance(config, FinetuneConfig) and config.encoder is not None:
        report = load_initial_weights(
            network.get_submodule("encoder"),
            read_vit(config.encoder).state,
            origin=config.encoder,
            head=True,
        )
        logger.info("%s: %s, which stay as they are", config.encoder, report)
    if config.init == NO_INIT:
        return
    state, head, output = _state_of(config.init), isinstance(config, PretrainConfig), ""
    if isinstance(config, FinetuneConfig):
        origin = origin_of(config)
        if config.init_layers == "encoder":
            state, output = with_decoder_of(network, state), "; the decoder is fresh, too"
        elif isinstance(origin, FinetuneConfig):
            state, output = _fitted(network, state, config, origin)
            head = True
    report = load_initial_weights(network, state, origin=config.init, head=head)
    logger.info("%s: %s%s", config.init, report, output)


def _state_of(init: str) -> Mapping[str, torch.Tensor]:
    """The state dict that ``init`` names."""
    if has_whole_weights(init):
        return whole_weights(init).state
    path = Path(init)
    if path.is_dir():
        return read_checkpoint(RunFolder(path).weights_of(None)).weights
    if path.suffix == _CHECKPOINT:
        return read_checkpoint(path).weights
    return read_authors_checkpoint(path)


def _fitted(
    network: UNet | EncoderNetwork,
    state: Mapping[str, torch.Tensor],
    config: FinetuneConfig,
    origin: FinetuneConfig,
) -> tuple[Mapping[str, torch.Tensor], str]:
    """``state`` with a last layer for ``config``, and what of it is that of ``origin``."""
    classes, origin_classes = len(config.classes), len(origin.classes)
    same, cores = classes == origin_classes, config.instances and origin.instances
    taken = {number: number for number in range(classes) if same}
    taken |= {classes + number: origin_classes + number for number in range(2) if cores}
    fits = {"classes": same, "cores of objects": cores}
    parts = ["classes", *(["cores of objects"] if config.instances else [])]
    outputs = ", ".join(f"{part} {'taken along' if fits[part] else 'fresh'}" for part in parts)
    return with_last_layer_of(network, state, origin.outputs, taken), f"; output: {outputs}"


def _settings_of(model: str) -> FinetuneConfig:
    """Those that a shipped model, or one in a folder, was trained with."""
    info = whole_weights(model).info
    try:
        settings: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in info.training["settings"].items()
        }
        return FinetuneConfig(**settings, attributions=info.attributions)
    except (KeyError, TypeError, AttributeError, InputError) as error:
        raise ModelError(f"{model}: does not tell how it was trained: take another") from error


def _run_of(path: Path) -> RunFolder | None:
    """The run that a folder is, or that a checkpoint lies in; None for one of the authors."""
    if path.is_dir():
        run = RunFolder(path)
        if not run.config.exists():
            raise ModelError(
                f"{path}: not a run folder of gsd train (no {run.config.name} in it): {_taken()}"
            )
        return run
    if path.suffix in _AUTHORS:
        return None
    if path.suffix.lower() in SUFFIXES:
        raise ModelError(
            f"{path}: a model file has no weights to train on: give the folder of the run that it"
            " was exported from"
        )
    if path.suffix != _CHECKPOINT:
        raise ModelError(f"{path}: no file of weights: {_taken()}")
    for folder in (path.parent, path.parent.parent):
        if RunFolder(folder).config.exists():
            return RunFolder(folder)
    raise ModelError(
        f"{path}: does not lie in a run folder of gsd train, whose config.toml is needed too:"
        " leave it there"
    )


def _taken() -> str:
    """What ``--init`` can be, for people."""
    return (
        f"--init takes a name of 'gsd models' ({', '.join(catalogue.names())}), a run folder, a"
        f" checkpoint in one (*{_CHECKPOINT}), a folder of 'gsd push', a .pth of the authors' code,"
        " or none, to train from scratch"
    )


def _draw_as_the_authors(network: nn.Module) -> None:
    """Draw weights of convolutions and gains of norms about 0, from torch's own generator."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.GroupNorm)):
            nn.init.normal_(module.weight, 0.0, AUTHORS_DEVIATION)
