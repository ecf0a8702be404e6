"""``gsd merge``: the parts of masks to masks."""

from pathlib import Path

import click

from genselfdiff.inference.shards import find_shared, merge_parts
from gsd.options import verbosity


@click.command(
    epilog="""\b
Examples:
  gsd merge mask.tif
  gsd merge masks/
"""
)
@click.argument(
    "masks", nargs=-1, required=True, metavar="MASK...", type=click.Path(path_type=Path)
)
@verbosity
def merge(masks: tuple[Path, ...]) -> None:
    """Make masks of the parts that 'gsd segment --shard' has left.

    MASK is the mask to make, or a folder in which all are made whose parts lie there. They are the
    files that one process would have made. The parts are removed.
    """
    for mask in find_shared(masks):
        for path in merge_parts(mask).all():
            click.echo(str(path))
