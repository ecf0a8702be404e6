"""``gsd info``: what is installed, and what it will run with."""

import click

from gsd.options import verbosity
from gsd.output import say


@click.command(
    epilog="""\b
Example:
  gsd info
"""
)
@verbosity
def info() -> None:
    """Print versions, processor, kernels and GPUs; how to get native kernels where they lack."""
    from genselfdiff.info import describe

    lines = describe()
    width = max(len(what) for what, _ in lines)
    for what, value in lines:
        say(f"{what:{width}}  {value}")
