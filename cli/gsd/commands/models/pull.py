"""``gsd pull``: a model file of a folder of ``gsd push``, here or on the Hugging Face Hub."""

from pathlib import Path

import click

from genselfdiff.choices import MODEL_FORMATS
from genselfdiff.storage.places import Place
from gsd.options import FILE, PLACE, overwriting, verbosity
from gsd.output import say


@click.command(
    epilog="""\b
Examples:
  gsd pull hf://user/glands -o glands.ts
  gsd pull hf://user/glands@v2 -o glands/
"""
)
@click.argument("model", type=PLACE)
@click.option(
    "-o",
    "--output",
    required=True,
    type=FILE,
    help="Model file to write; without a suffix, a folder, which training can start from.",
)
@click.option("--portable", is_flag=True, help="See gsd export.")
@click.option("--format", type=click.Choice(MODEL_FORMATS), help="See gsd export.")
@overwriting
@verbosity
def pull(model: Place, output: Path, portable: bool, format: str | None, overwrite: bool) -> None:
    """Make a model file of MODEL, a folder of 'gsd push', or hf://USER/NAME on the Hub.

    hf://USER/NAME@REVISION names a branch, tag or commit. Nothing but weights, gsd.json and
    README.md is fetched.
    """
    from genselfdiff.training.export import pull as pull_model

    info = pull_model(model, output, portable=portable, format=format, overwrite=overwrite)
    resolution = f" at {info.mpp:g} um/px" if info.mpp is not None else ""
    say(f"{output}: {', '.join(info.classes)}{resolution}")
