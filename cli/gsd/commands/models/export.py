"""``gsd export``: a stage-2 run or a model to one model file."""

from pathlib import Path

import click

from genselfdiff.choices import MODEL_FORMATS
from gsd.options import FILE, FILE_OR_SHIPPED, overwriting, verbosity
from gsd.output import say


@click.command(
    epilog="""\b
Example:
  gsd export run2 -o model.ts --licence CC-BY-4.0
  gsd export run2 -o elsewhere.ts --portable
  gsd export nuclei -o nuclei.ts
  gsd export model.ts -o model.onnx
"""
)
@click.argument("run", type=FILE_OR_SHIPPED)
@click.option("-o", "--output", required=True, type=FILE, help="Model file to write.")
@click.option(
    "--step", type=int, help="Take the checkpoint of this step, of a run with --keep-every."
)
@click.option("--licence", default="", help="Terms of use of the weights, kept in the file.")
@click.option(
    "--portable",
    is_flag=True,
    help="Plain torch only: slower, but loads wherever torch is, without gsd.",
)
@click.option(
    "--format",
    type=click.Choice(MODEL_FORMATS),
    help="Of the model file; default: by the name, .onnx, .pt2 or .zip (bioimageio), else"
    " torchscript.",
)
@overwriting
@verbosity
def export(
    run: str,
    output: Path,
    step: int | None,
    licence: str,
    portable: bool,
    format: str | None,
    overwrite: bool,
) -> None:
    """Turn the best checkpoint of RUN, a model of 'gsd models', or a model file, into a model file.

    TorchScript calls gsd's own kernels, so it needs gsd to be installed where it is used, on
    whatever device; with --portable it needs nothing but torch. ONNX (pip install
    'genselfdiff[onnx]') needs nothing but onnxruntime, pt2 (torch.export) nothing but torch; both
    take float32 images. bioimageio is a package of BioImage.IO, for other programs alone.

    The file takes images of any size as uint8 or floating point in 0..255 and gives class
    probabilities; classes, colours, resolution and provenance are in it as gsd.json.
    """
    from genselfdiff.training.export import export

    info = export(
        run,
        output,
        step=step,
        licence=licence,
        portable=portable,
        format=format,
        overwrite=overwrite,
    )
    resolution = f" at {info.mpp:g} um/px" if info.mpp is not None else ""
    say(f"{output}: {', '.join(info.classes)}{resolution}")
