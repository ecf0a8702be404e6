"""``gsd push`` and ``gsd pull``: models as folders, and on the Hugging Face Hub."""

from pathlib import Path

import click

from genselfdiff.choices import MODEL_FORMATS
from genselfdiff.errors import InputError
from genselfdiff.storage.places import Place, Url
from genselfdiff.text import shell_command
from gsd.options import FILE, FILE_OR_SHIPPED, PLACE, overwriting, verbosity
from gsd.output import say


def _known(place: Place) -> Place:
    if isinstance(place, Url) and place.scheme != "hf":
        raise InputError(
            f"{place}: models are passed on in folders, and on the Hub: hf://USER/NAME"
        )
    return place


@click.command(
    epilog="""\b
Examples:
  gsd push run2 glands/ --licence CC-BY-4.0
  gsd push glands/ hf://user/glands
"""
)
@click.argument("model", type=FILE_OR_SHIPPED)
@click.argument("target", type=PLACE)
@click.option(
    "--step", type=int, help="Take the checkpoint of this step, of a run with --keep-every."
)
@click.option("--licence", default="", help="Terms of use of the weights of a run.")
@click.option("--private", is_flag=True, help="On the Hub, if the repository is not there yet.")
@overwriting
@verbosity
def push(
    model: str, target: Place, step: int | None, licence: str, private: bool, overwrite: bool
) -> None:
    """Write MODEL as a folder that others can use and train further, or upload it to the Hub.

    MODEL is a run, a model of 'gsd models', or such a folder. It gets model.safetensors, gsd.json
    and a README.md with the model's card, to be completed. TARGET is a folder, or hf://USER/NAME
    (pip install 'genselfdiff[hub]'; 'hf auth login' first).
    """
    from genselfdiff.training.export import push as push_model

    push_model(
        model,
        _known(target),
        step=step,
        licence=licence,
        private=private,
        overwrite=overwrite,
    )
    pull = shell_command(["gsd", "pull", str(target), "-o", "model.ts"])
    say(f"pushed to {target}\nnext: {pull}")


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

    info = pull_model(_known(model), output, portable=portable, format=format, overwrite=overwrite)
    resolution = f" at {info.mpp:g} um/px" if info.mpp is not None else ""
    say(f"{output}: {', '.join(info.classes)}{resolution}")
