"""``gsd push``: a model as a folder to pass on, or to the Hugging Face Hub."""

import click

from genselfdiff.storage.places import Place
from genselfdiff.text import shell_command
from gsd.options import FILE_OR_SHIPPED, PLACE, overwriting, verbosity
from gsd.output import say


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
        target,
        step=step,
        licence=licence,
        private=private,
        overwrite=overwrite,
    )
    pull = shell_command(["gsd", "pull", str(target), "-o", "model.ts"])
    say(f"pushed to {target}\nnext: {pull}")
