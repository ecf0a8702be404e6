"""From a finished stage-2 run to the file that `gsd segment` takes, or that gsd is shipped with."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from genselfdiff.choices import class_color
from genselfdiff.errors import InputError, ModelError
from genselfdiff.files import names_file, refuse_existing, refuse_inputs
from genselfdiff.input_files import is_regular_file
from genselfdiff.models.encoders.encoder_network import EncoderNetwork
from genselfdiff.models.formats.choosing import SUFFIXES, require_suffix
from genselfdiff.models.model_file import load_model, model_path, save_model
from genselfdiff.models.model_info import EXTRA_FILE, ModelInfo
from genselfdiff.models.published.hub import download_model, hub_address, upload_model
from genselfdiff.models.published.model_folder import (
    WEIGHTS,
    check_model_folder,
    copy_model_folder,
    has_whole_weights,
    is_model_folder,
    whole_weights,
    write_model_folder,
)
from genselfdiff.models.restoring import restored_network
from genselfdiff.models.segmenter import size_multiple_of
from genselfdiff.models.shipped import catalogue
from genselfdiff.models.shipped.weights import WholeWeights, write_weights
from genselfdiff.models.unet import UNet
from genselfdiff.models.weights import load_initial_weights
from genselfdiff.storage.places import Place, Url
from genselfdiff.text import shell_command
from genselfdiff.training.networks import segmenter_network
from genselfdiff.training.run_folder import RunFolder, read_checkpoint
from genselfdiff.training.settings.stage_configs import FinetuneConfig
from genselfdiff.version import __version__

logger = logging.getLogger("genselfdiff")


def export(
    run: str | Path,
    output: str | Path,
    *,
    step: int | None = None,
    licence: str = "",
    portable: bool = False,
    format: str | None = None,
    overwrite: bool = False,
) -> ModelInfo:
    """Write the best checkpoint of a stage-2 run as one file with its metadata.

    Args:
        run: the run folder, the name of a shipped model, a folder of `push`, or a model file.
        output: the file to write.
        step: that of a checkpoint that stays, instead of the best.
        licence: terms of use of the weights.
        portable: plain torch only; see `save_model`.
        format: see `save_model`.
        overwrite: replace ``output`` if it exists.

    Raises:
        ModelError: not a stage-2 run, or one without a checkpoint; ``step`` or ``licence`` of
            a finished model, which has its own; or a model file that cannot be converted.
        InputError: no such format, or what it needs is not installed.
        OutputError: ``output`` exists and not ``overwrite``, is a file of the run, or cannot be
            written.
    """
    output = Path(output)
    refuse_existing(output, overwrite)
    is_whole = has_whole_weights(run)
    is_finished = is_whole or is_regular_file(run)
    refuse_inputs([output], [model_path(run)] if is_finished else _run_at(run).files())
    if is_finished:
        _refuse_choices(run, licence, step)
    network: nn.Module
    if is_whole:
        weights = _finished(run)
        network, info = weights.network(), weights.info
    elif is_finished:
        model = load_model(Path(run), "cpu")
        network, info = restored_network(model), model.info
    else:
        network, info = _best_of(_run_at(run), step)
        info = replace(info, licence=licence)
        if isinstance(network, EncoderNetwork):
            logger.warning(
                "%s: holds the weights of %s, whose licence says who may get the file",
                output,
                info.architecture["encoder"]["name"],
            )
    save_model(network, info, output, portable=portable, format=format)
    return info


def push(
    model: str | Path,
    target: Place,
    *,
    step: int | None = None,
    licence: str = "",
    private: bool = False,
    overwrite: bool = False,
) -> ModelInfo:
    """Write the whole weights of a model into a folder, or upload them to the Hugging Face Hub.

    Args:
        model: the run folder, the name of a shipped model, or a folder of this function.
        target: a folder, or ``hf://USER/NAME``.
        step, licence: see `export`.
        private: of a repository on the Hub that is made.
        overwrite: replace files that exist in a folder.

    Raises:
        ModelError: as by `export`, or the run has an encoder of other people's.
        InputError: there is no licence, ``target`` has the name of a file, or the Hub cannot be
            reached.
        OutputError: a file exists and not ``overwrite``, or cannot be written.
    """
    if has_whole_weights(model):
        _refuse_choices(model, licence, step)
    if isinstance(target, Path) and names_file(target):
        raise InputError(
            f"{target}: a model is pushed into a folder: name one without an ending, or one that is"
            f" there; 'gsd export' writes model files ({', '.join(SUFFIXES)})"
        )
    if isinstance(target, Path) and is_model_folder(model):
        raise InputError(
            f"{model}: is such a folder already: copy it, or push it to hf://USER/NAME"
        )
    with ExitStack() as stack:
        folder = target
        if isinstance(folder, Url):
            name = hub_address(folder).repository.rpartition("/")[2]
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="gsd-"))) / name
        card = None
        if is_model_folder(model):
            folder = Path(model)
            info = check_model_folder(folder)  # before anybody gets it
        elif has_whole_weights(model):
            weights = _finished(model)
            info, card = weights.info, catalogue.read_card(str(model))
            write_model_folder(folder, weights.state, info, card=card, overwrite=overwrite)
        else:
            network, info = _best_of(_run_at(model), step)
            if isinstance(network, EncoderNetwork):
                raise ModelError(
                    f"{model}: the encoder in it is somebody else's model, which gsd does not pass"
                    " on: 'gsd export' makes a file, which its licence may let you share"
                )
            info = replace(info, licence=licence)
            write_model_folder(folder, network.state_dict(), info, overwrite=overwrite)
        if isinstance(target, Url):
            upload_model(folder, target, private=private)
    return info


def pull(
    model: Place,
    output: Path,
    *,
    portable: bool = False,
    format: str | None = None,
    overwrite: bool = False,
) -> ModelInfo:
    """Make a model file, or a folder, of a folder of `push` here or on the Hugging Face Hub.

    Args:
        model: the folder, ``hf://USER/NAME`` or ``hf://USER/NAME@REVISION``.
        output: a model file, or, where its name has no suffix, a folder.
        portable, format, overwrite: see `export`.

    Raises:
        ModelError: it is no such folder, or damaged.
        InputError: the Hub cannot be reached, ``output`` has another ending than model files, or
            as by `export`.
        OutputError: as by `export`.
    """
    require_suffix(output, format)
    folder = download_model(model) if isinstance(model, Url) else model
    if not is_model_folder(folder):
        raise ModelError(f"{model}: {_why_no_model_folder(folder, output)}")
    try:
        if output.suffix or format is not None:
            return export(folder, output, portable=portable, format=format, overwrite=overwrite)
        info = check_model_folder(folder)
    except ModelError as error:
        raise ModelError(f"{model}: {error}") from error
    copy_model_folder(folder, output, overwrite=overwrite)
    return info


def ship_run(
    run: str | Path,
    output: str | Path,
    *,
    licence: str,
    attributions: Sequence[str],
    tile_size: int | None = None,
    overlap: float | None = None,
) -> ModelInfo:
    """Write the best checkpoint of a stage-2 run as weights that gsd is shipped with.

    Args:
        run: the run folder.
        output: the file to write, NAME.safetensors; one that exists is replaced.
        licence: terms of use of the weights.
        attributions: see `ModelInfo`; those of the run are kept as well.
        tile_size, overlap: of segmenting; None: those of the run.

    Raises:
        ModelError: as by `export`, or the weights are too many or too large to be shipped.
        OutputError: ``output`` is a file of the run, or cannot be written.
    """
    output = Path(output)
    refuse_inputs([output], RunFolder(run).files())
    network, info = _best_of(RunFolder(run), None)
    owed = dict.fromkeys((*attributions, *info.attributions))
    info = replace(
        info,
        licence=licence,
        attributions=tuple(owed),
        tile_size=info.tile_size if tile_size is None else tile_size,
        overlap=info.overlap if overlap is None else overlap,
    )
    write_weights(network.state_dict(), info, output)
    return info


def _refuse_choices(model: str | Path, licence: str, step: int | None) -> None:
    """Raise ModelError where a model that is no run is to have what it has already."""
    if licence or step is not None:
        raise ModelError(f"{model}: has its own licence and one checkpoint: leave out both")


def _run_at(path: str | Path) -> RunFolder:
    """The run folder ``path``.

    Raises:
        ModelError: it is a file, or not there.
    """
    run = RunFolder(path)
    if run.path.suffix.lower() in SUFFIXES and run.path.is_file():
        raise ModelError(
            f"{path}: a model file has no weights to pass on: give the folder of the run that it"
            " was exported from"
        )
    if not run.path.is_dir():
        found = "is a file" if run.path.exists() else "there is no such folder"
        names = ", ".join(catalogue.names())
        raise ModelError(
            f"{path}: {found}: give a run folder of 'gsd train finetune', a name of 'gsd models'"
            f" ({names}), or a folder of 'gsd push'"
        )
    return run


def _why_no_model_folder(folder: Path, output: Path) -> str:
    """Why a model cannot be pulled from ``folder``, and what to do."""
    if folder.exists():
        return f"is no folder of 'gsd push': it has no {WEIGHTS} and {EXTRA_FILE}"
    if catalogue.name_of(str(folder)) is None:
        return "there is no such folder: give one of 'gsd push', or hf://USER/NAME"
    arguments: list[str | Path] = ["export", folder, "-o", output]
    if not output.suffix:
        arguments = ["push", folder, output]
    return f"comes with gsd: {shell_command(['gsd', *arguments])}"


def _finished(model: str | Path) -> WholeWeights:
    """The weights of a shipped model, or of a folder."""
    if catalogue.name_of(model) is not None:
        catalogue.warn_of_namesake(str(model))
    return whole_weights(model)


def _best_of(folder: RunFolder, step: int | None) -> tuple[UNet | EncoderNetwork, ModelInfo]:
    """The network of the best checkpoint, or of ``step``, and its description."""
    config = FinetuneConfig.read(folder.config)
    weights = folder.weights_of(step)
    checkpoint = read_checkpoint(weights)
    network = segmenter_network(config)
    load_initial_weights(network, checkpoint.weights, origin=weights, head=True)
    info = ModelInfo(
        classes=config.classes,
        colors=tuple(class_color(index) for index in range(len(config.classes))),
        mpp=config.resample_to,
        tile_size=config.tile_size,
        input_scaling=config.input_scaling,
        architecture={
            "name": config.architecture,
            "width": config.width,
            **({"encoder": config.encoder_shape} if config.has_encoder else {}),
        },
        training={
            "genselfdiff": __version__,
            "torch": torch.__version__,
            "step": checkpoint.state.step,
            "validation_pq" if config.instances else "validation_dice": checkpoint.state.best,
            "initial_weights": Path(config.init).name,
            "settings": config.shareable(),
        },
        instances=config.instances,
        size_multiple=size_multiple_of(network),
        attributions=config.attributions,
    )
    return network, info
