"""From a finished stage-2 run to the one file that `gsd segment` takes."""

from pathlib import Path

import torch

import genselfdiff
from genselfdiff.data.class_colors import class_color
from genselfdiff.files import refuse_existing, refuse_inputs
from genselfdiff.inference.model_file import save_model, size_multiple_of
from genselfdiff.inference.model_info import ModelInfo
from genselfdiff.models import load_initial_weights
from genselfdiff.training.config import FinetuneConfig
from genselfdiff.training.networks import segmenter_network
from genselfdiff.training.run_folder import RunFolder, read_checkpoint


def export_run(
    run: str | Path,
    output: str | Path,
    *,
    step: int | None = None,
    licence: str = "",
    portable: bool = False,
    overwrite: bool = False,
) -> ModelInfo:
    """Write the best checkpoint of a stage-2 run as TorchScript with its metadata.

    Args:
        run: the run folder.
        output: the file to write.
        step: that of a checkpoint that stays, instead of the best.
        licence: terms of use of the weights.
        portable: plain torch only; see `save_model`.
        overwrite: replace ``output`` if it exists.

    Raises:
        ModelError: not a stage-2 run, or one without a checkpoint.
        OutputError: ``output`` exists and not ``overwrite``, is a file of the run, or cannot be
            written.
    """
    folder = RunFolder(run)
    output = Path(output)
    refuse_existing(output, overwrite)
    refuse_inputs([output], folder.files())
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
        architecture={"name": config.architecture, "width": config.width},
        training={
            "genselfdiff": genselfdiff.__version__,
            "torch": torch.__version__,
            "step": checkpoint.state.step,
            "validation_dice": checkpoint.state.best,
            "initial_weights": Path(config.init).name,
            "settings": config.shareable(),
        },
        licence=licence,
        instances=config.instances,
        size_multiple=size_multiple_of(network),
    )
    save_model(network, info, output, portable=portable)
    return info
