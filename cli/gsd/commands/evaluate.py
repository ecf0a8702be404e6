"""``gsd evaluate``: scores of a model on labelled images."""

from contextlib import nullcontext
from pathlib import Path

import click

from genselfdiff.files import refuse_existing, refuse_inputs
from genselfdiff.segmenting.options import Options
from gsd.object_options import object_options
from gsd.options import (
    FILE,
    FILE_OR_SHIPPED,
    dask_option,
    one_device,
    overwriting,
    progress,
    setting_option,
    verbosity,
)
from gsd.output import say


@click.command(
    epilog="""\b
Examples:
  gsd evaluate nuclei --images test/images --masks test/masks --mpp 0.25 --foreground --instances
  gsd evaluate model.ts --images test/images --masks test/masks --mpp 0.25
  gsd evaluate model.ts --images img --masks instances --foreground --instances
  gsd evaluate model.ts --images img --masks masks --json scores.json --html scores.html
"""
)
@click.argument("model", type=FILE_OR_SHIPPED)
@click.option("--images", required=True, type=FILE, help="Folder of images.")
@click.option(
    "--masks",
    required=True,
    type=FILE,
    help="Folder of integer masks with the same file names, suffix aside.",
)
@click.option(
    "--mpp",
    type=click.FloatRange(0, min_open=True),
    help="Resolution of the images in um/pixel, where their files do not say or are wrong.",
)
@setting_option(Options, "icc", is_flag=True)
@click.option("--foreground", is_flag=True, help="Read every non-zero mask value as class 1.")
@click.option("--ignore-label", type=int, help="Mask value that is not counted.")
@click.option(
    "--truth-objects",
    type=FILE,
    help="Folder of masks whose values are numbers of objects, such as instances/ of 'gsd data"
    " import'; default: the values of --foreground masks if there are several, else what hangs"
    " together of a class.",
)
@object_options
@one_device
@setting_option(Options, "precision")
@click.option("--csv", type=FILE, help="Table of all metrics to write.")
@click.option("--json", type=FILE, help="All figures to write.")
@click.option(
    "--html",
    type=FILE,
    help="Page to write: summaries, and the images from worst to best with outlines.",
)
@dask_option()
@overwriting
@verbosity
def evaluate(
    model: str,
    images: Path,
    masks: Path,
    mpp: float | None,
    icc: bool,
    foreground: bool,
    ignore_label: int | None,
    truth_objects: Path | None,
    instances: bool | None,
    seed_distance: float | None,
    min_area: float | None,
    device: str | None,
    precision: str,
    csv: Path | None,
    json: Path | None,
    html: Path | None,
    dask: str | None,
    overwrite: bool,
) -> None:
    """Compare what MODEL makes of labelled images with their labels.

    MODEL is a model file, a folder of 'gsd push', or a name of 'gsd models'.

    Images are predicted whole, as 'gsd segment' does. For each class: Dice, IoU, precision, recall,
    accuracy, Hausdorff distance and HD95; of objects AJI, AJI+, PQ, SQ and DQ, which is F1 at an
    IoU of 0.5; and F1, Dice and Hausdorff distance of objects as the GlaS challenge counts them.
    Those of objects suit nuclei and glands; of tissue such as stroma they say little. A class that
    is neither in a mask nor predicted has no score there, and leaves the mean to the other images.
    Files have every metric; what each one counts is in gsd's documentation, under 'Evaluating a
    model'.

    --instances, --seed-distance and --min-area are those of 'gsd objects', for the objects of the
    prediction; pixels are compared as predicted.
    """
    from genselfdiff.data.labelled.pairs import images_in
    from genselfdiff.evaluation.case_pictures import CasePictures
    from genselfdiff.evaluation.evaluate import evaluate
    from genselfdiff.evaluation.evaluation_file import write_evaluation
    from genselfdiff.evaluation.page import write_page
    from genselfdiff.evaluation.scoring import ObjectOptions
    from genselfdiff.evaluation.tables import text_table, write_scores_csv
    from genselfdiff.machine import keep_freed_memory
    from genselfdiff.models.model_file import model_path

    keep_freed_memory()
    outputs = [path for path in (csv, json, html) if path is not None]
    folders = [path for path in (images, masks, truth_objects) if path is not None]
    refuse_inputs(outputs, [model_path(model), *images_in(folders)])
    for path in outputs:
        refuse_existing(path, overwrite)
    pictures = CasePictures()
    if dask is not None:
        from genselfdiff.fleet.clusters import connect
    with connect(dask) if dask is not None else nullcontext() as client:
        report = evaluate(
            model,
            images,
            masks,
            mpp=mpp,
            icc=icc,
            foreground=foreground,
            ignore_label=ignore_label,
            truth_objects=truth_objects,
            objects=ObjectOptions(instances, seed_distance, min_area),
            device=device,
            precision=precision,
            progress=progress(),
            watch=None if html is None else pictures.add,
            client=client,
        )
    say(text_table(report))
    if csv is not None:
        write_scores_csv(csv, report)
    if json is not None:
        write_evaluation(json, report)
    if html is not None:
        write_page(html, report, pictures.addresses)
