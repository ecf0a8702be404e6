"""``gsd doctor``: what could keep gsd from working well here."""

import sys
from pathlib import Path

import click

from genselfdiff.choices import DEFAULT_MODEL
from genselfdiff.storage.places import Place
from gsd.options import FILE, PLACE, PLACE_OR_SHIPPED, dask_option, verbosity
from gsd.output import say


@click.command(
    epilog="""\b
Examples:
  gsd doctor
  gsd doctor slide.svs --model model.ts -o masks/
  gsd doctor -o masks/ --dask tcp://host:8786
"""
)
@click.argument("slide", required=False, type=PLACE)
@click.option(
    "--model",
    type=PLACE_OR_SHIPPED,
    metavar="MODEL",
    help="Model file, its URL, a folder of 'gsd push', or a name of 'gsd models'; default: what"
    f" GSD_MODEL names, else {DEFAULT_MODEL}.",
)
@click.option(
    "-o",
    "--output",
    type=FILE,
    metavar="FOLDER",
    help="Folder that masks are to go to; default: the one that you are in.",
)
@dask_option("Look at the workers of Dask, too")
@verbosity
def doctor(slide: Place | None, model: str | None, output: Path | None, dask: str | None) -> None:
    """Look at the machine, storage, the model, a slide and a cluster, and say what is wrong.

    Each line is ok, a warning (slow, or a danger) or wrong (a run fails with it), and says what to
    do. The exit status is 1 where something is wrong. Nothing is written that stays.
    """
    from genselfdiff.doctor.examination import examine
    from genselfdiff.doctor.findings import is_wrong, page

    sections = examine(slide, model, output, dask)
    for line in page(sections):
        say(line)
    if is_wrong(sections):
        sys.exit(1)
