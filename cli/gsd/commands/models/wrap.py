"""``gsd wrap``: a network of one's own to a model file."""

from pathlib import Path

import click

from genselfdiff.choices import INPUT_SCALINGS
from gsd.options import FILE, overwriting, verbosity
from gsd.output import say
from gsd.settings import Names


@click.command(
    epilog="""\b
Examples:
  gsd wrap unet.pth --architecture unet --classes background,nucleus --mpp 0.25 -o model.ts
  gsd wrap best.ckpt --architecture smp:Unet:resnet34 --imagenet \\
      --classes background,tumour,stroma --mpp 0.5 -o model.ts
  gsd wrap plain.ts --classes background,nucleus --mpp 0.25 -o model.ts
  gsd segment slide.svs -o mask.tif --model model.ts
"""
)
@click.argument("network", type=FILE)
@click.option(
    "--classes",
    type=Names(),
    required=True,
    help="Names of the classes, comma-separated, background first.",
)
@click.option("--mpp", type=float, required=True, help="Resolution of its training in um/px.")
@click.option("-o", "--output", required=True, type=FILE, help="Model file to write.")
@click.option(
    "--architecture",
    help="Of a file of weights alone (.pth, .pt, .ckpt, .safetensors): unet, or"
    " smp:ARCHITECTURE:ENCODER of segmentation_models_pytorch (pip install 'genselfdiff[smp]').",
)
@click.option(
    "--tile-size", type=int, default=512, show_default=True, help="Side of the tiles in pixels."
)
@click.option(
    "--input-scaling",
    type=click.Choice(list(INPUT_SCALINGS)),
    default="zero_one",
    show_default=True,
    help="What the network sees: zero_one: 0 to 1; minus_one_one: -1 to 1.",
)
@click.option(
    "--imagenet",
    is_flag=True,
    help="Take ImageNet's mean out and divide by its deviation, as pretrained encoders want.",
)
@click.option(
    "--size-multiple",
    type=click.Choice([8, 16, 32]),
    default=32,
    show_default=True,
    help="Of what the sides of its images have to be multiples.",
)
@click.option("--licence", default="", help="Terms of use of the weights, kept in the file.")
@overwriting
@verbosity
def wrap(
    network: Path,
    classes: tuple[str, ...],
    mpp: float,
    output: Path,
    architecture: str | None,
    tile_size: int,
    input_scaling: str,
    imagenet: bool,
    size_multiple: int,
    licence: str,
    overwrite: bool,
) -> None:
    """Make a model file of NETWORK, a TorchScript file of any segmentation network, or weights.

    Its forward takes images (N, 3, H, W) alone and gives logits or probabilities (N, C, H, W). It
    is run on one tile first, and what does not fit is said.
    """
    from genselfdiff.models.wrapping import wrap_model

    model = wrap_model(
        network,
        classes=classes,
        mpp=mpp,
        architecture=architecture,
        tile_size=tile_size,
        input_scaling=input_scaling,
        imagenet=imagenet,
        size_multiple=size_multiple,
        licence=licence,
        output=output,
        overwrite=overwrite,
        device="cpu",
    )
    say(f"{output}: {', '.join(model.info.classes)} at {mpp:g} um/px")
