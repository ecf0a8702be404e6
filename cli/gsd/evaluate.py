"""``gsd evaluate``: scores of a model on labelled images."""

from pathlib import Path

import click

from genselfdiff.evaluation.evaluate import evaluate_model
from genselfdiff.files import refuse_existing
from genselfdiff.inference.device import keep_freed_memory
from genselfdiff.inference.predictor import PRECISIONS
from gsd.options import progress, verbosity


@click.command(
    epilog="""\b
Examples:
  gsd evaluate model.ts --images test/images --masks test/masks --mpp 0.25
  gsd evaluate model.ts --images img --masks instances --foreground --csv scores.csv
"""
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--images", required=True, type=click.Path(path_type=Path), help="Folder of images.")
@click.option(
    "--masks",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of integer masks with the same file names, suffix aside.",
)
@click.option(
    "--mpp",
    type=click.FloatRange(0, min_open=True),
    help="Resolution of the images in um/pixel, where their files do not tell or are wrong.",
)
@click.option("--foreground", is_flag=True, help="Read every non-zero mask value as class 1.")
@click.option("--ignore-label", type=int, help="Mask value that is not counted.")
@click.option("--device", help="cpu, cuda, cuda:N or mps; default: the best there is.")
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="auto",
    show_default=True,
    help="auto: bfloat16 where it is fast and hardly changes the labels of some tiles.",
)
@click.option("--csv", type=click.Path(path_type=Path), help="Also write the table to it.")
@click.option("--json", type=click.Path(path_type=Path), help="Also write all figures to it.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@verbosity
def evaluate(
    model: Path,
    images: Path,
    masks: Path,
    mpp: float | None,
    foreground: bool,
    ignore_label: int | None,
    device: str | None,
    precision: str,
    csv: Path | None,
    json: Path | None,
    overwrite: bool,
) -> None:
    """Dice and intersection over union of MODEL on labelled images.

    Printed by image, as the mean of the images, and overall (all pixels pooled). A class that is
    neither in a mask nor predicted has no score there, and leaves the mean to the other images.
    """
    keep_freed_memory()
    for path in (csv, json):
        if path is not None:
            refuse_existing(path, overwrite)
    report = evaluate_model(
        model,
        images,
        masks,
        mpp=mpp,
        foreground=foreground,
        ignore_label=ignore_label,
        device=device,
        precision=precision,
        progress=progress(),
    )
    click.echo(report.table())
    if csv is not None:
        report.write_csv(csv)
    if json is not None:
        report.write_json(json)
