"""``gsd segment``: slides to masks."""

import sys
from pathlib import Path

import click

from genselfdiff.inference.device import keep_freed_memory
from genselfdiff.inference.many import Outcome, plan_outputs, segment_all
from genselfdiff.inference.predictor import PRECISIONS
from gsd.options import progress, verbosity


@click.command(
    epilog="""\b
Examples:
  gsd segment slide.svs -o mask.tif --model model.ts --overlay
  gsd segment scan.tif -o mask.tif --mpp 0.25      (a file without resolution)
  gsd segment a.svs b.svs more/ -o masks/          (model from GSD_MODEL)
"""
)
@click.argument(
    "slides", nargs=-1, required=True, metavar="SLIDE...", type=click.Path(path_type=Path)
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Mask to write; for several slides, a folder.",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Model file of 'gsd export'; default: the file that GSD_MODEL names.",
)
@click.option(
    "--mpp",
    type=click.FloatRange(0, min_open=True),
    help="Resolution of the slide in um/pixel, where its file does not tell or is wrong.",
)
@click.option(
    "--overlay",
    is_flag=False,
    flag_value="",
    metavar="[PNG]",
    help="Also draw the classes over the slide; without a name, beside the mask.",
)
@click.option("--tile-size", type=int, help="Side of the tiles in pixels; default: the model's.")
@click.option(
    "--overlap",
    type=click.FloatRange(0, 0.5),
    default=0.25,
    show_default=True,
    help="Part of a tile that it shares with its neighbour.",
)
@click.option(
    "--batch-size", type=click.IntRange(1), help="Tiles predicted at once; default: by device."
)
@click.option("--device", help="cpu, cuda, cuda:N or mps; default: the best there is.")
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="auto",
    show_default=True,
    help="auto: bfloat16 where it is fast and gives the same labels.",
)
@click.option("--no-tissue", is_flag=True, help="Predict everywhere, not only where tissue is.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@verbosity
def segment(
    slides: tuple[Path, ...],
    output: Path,
    model: Path | None,
    mpp: float | None,
    overlay: str | None,
    tile_size: int | None,
    overlap: float,
    batch_size: int | None,
    device: str | None,
    precision: str,
    no_tissue: bool,
    overwrite: bool,
) -> None:
    """Segment slides into masks of class indices.

    SLIDE is an SVS, OME-TIFF, TIFF, PNG or JPEG file, or a folder of them. A mask is a tiled,
    pyramidal TIFF with the size and resolution of the slide and a colour for each class.
    """
    if overlay and not overlay.lower().endswith(".png"):
        raise click.UsageError(f"--overlay takes a .png file, not {overlay}: put it last")
    keep_freed_memory()
    plan = plan_outputs(slides, output)
    if overlay and len(plan) > 1:
        raise click.UsageError("with several slides, --overlay takes no file name")
    failed: list[Outcome] = []
    for outcome in segment_all(
        plan,
        model,
        device=device,
        mpp=mpp,
        overlay=None if overlay is None else overlay or True,
        tile_size=tile_size,
        overlap=overlap,
        batch_size=batch_size,
        precision=precision,
        tissue=not no_tissue,
        overwrite=overwrite,
        progress=progress(),
    ):
        if outcome.result is not None:
            click.echo(outcome.result.summary())
        elif len(plan) == 1 and outcome.error is not None:
            raise outcome.error
        else:
            failed.append(outcome)
            click.echo(f"Error: {outcome.error}", err=True)
    if failed:
        names = ", ".join(str(outcome.slide) for outcome in failed)
        click.echo(f"{len(failed)} of {len(plan)} slides failed: {names}", err=True)
        sys.exit(1)
