"""What a run starts from: fresh weights, a run of ours, or a checkpoint of the authors' code."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from torch import nn

from genselfdiff.errors import InputError, ModelError
from genselfdiff.models import load_initial_weights
from genselfdiff.models.weights import read_authors_checkpoint
from genselfdiff.slides.resolution import agree
from genselfdiff.training.config import (
    NO_INIT,
    FinetuneConfig,
    PretrainConfig,
    RunConfig,
    read_run_config,
)
from genselfdiff.training.run_folder import RunFolder, read_checkpoint

logger = logging.getLogger("genselfdiff")

Config = TypeVar("Config", bound=RunConfig)

AUTHORS_DEVIATION = 0.01


def origin_of(config: RunConfig) -> PretrainConfig | FinetuneConfig | None:
    """Settings of the run that ``config.init`` names; None where it names none.

    Raises:
        ModelError: there is no such run or file.
    """
    if config.init == NO_INIT:
        return None
    path = Path(config.init)
    if not path.exists():
        raise ModelError(
            f"{path}: no such run folder or checkpoint; --init none trains from scratch"
        )
    folder = _run_of(path)
    return None if folder is None else read_run_config(folder.config)


def with_architecture_of(config: Config, origin: RunConfig) -> Config:
    """``config`` with the network of the run that it starts from.

    Raises:
        InputError: ``config`` asks for another.
    """
    for name in ("architecture", "width"):
        wanted, there = getattr(config, name), getattr(origin, name)
        if wanted is not None and wanted != there:
            raise InputError(
                f"{name} {wanted} contradicts {config.init}, which has {there}: leave it out, or"
                f" where --config or --preset says it, give --{name} {there}"
            )
    return replace(config, architecture=origin.architecture, width=origin.width)


def require_resolution_of(config: RunConfig, origin: RunConfig, what: str, way_out: str) -> None:
    """Raise InputError where the network was trained at another resolution than is asked for.

    ``what`` is seen at ``config.network_mpp``; ``way_out`` says how to mend it, {mpp} and {there}
    standing for both.
    """
    mpp, there = config.network_mpp, origin.network_mpp
    assert mpp is not None and there is not None
    if not agree(mpp, there):
        raise InputError(
            f"{what}: {mpp:g} um/px contradicts the {there:g} um/px of {config.init}: "
            + way_out.format(mpp=f"{mpp:g}", there=f"{there:g}")
        )


def start_weights(network: nn.Module, config: RunConfig, *, head: bool) -> None:
    """Give ``network`` fresh weights, and those that ``config.init`` has.

    ``head`` takes the output head along, of a network that gives the same.

    Raises:
        ModelError: not weights, or of another network.
    """
    if config.fresh_weights == "normal":
        _draw_as_the_authors(network)
    if config.init == NO_INIT:
        return
    path = Path(config.init)
    if path.is_dir():
        state = read_checkpoint(RunFolder(path).weights_of(None)).weights
    elif path.suffix == ".safetensors":
        state = read_checkpoint(path).weights
    elif path.suffix in (".pth", ".pt"):
        state = read_authors_checkpoint(path)
    else:
        raise ModelError(
            f"{path}: neither a run folder nor a checkpoint of gsd train (.safetensors), nor a"
            " .pth of the authors' code: give one, or --init none to train from scratch"
        )
    logger.info("%s: %s", path, load_initial_weights(network, state, origin=path, head=head))


def _run_of(path: Path) -> RunFolder | None:
    """The run that a folder is, or that a checkpoint lies in."""
    if path.is_dir():
        return RunFolder(path)
    if path.suffix != ".safetensors":
        return None
    for folder in (path.parent, path.parent.parent):
        if RunFolder(folder).config.exists():
            return RunFolder(folder)
    raise ModelError(
        f"{path}: does not lie in a run folder of gsd train, whose config.toml is needed too:"
        " leave it there"
    )


def _draw_as_the_authors(network: nn.Module) -> None:
    """Draw weights of convolutions and gains of norms about 0, from torch's own generator."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.GroupNorm)):
            nn.init.normal_(module.weight, 0.0, AUTHORS_DEVIATION)
