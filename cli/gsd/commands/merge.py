"""``gsd merge``: the parts of masks to masks."""

import sys
from pathlib import Path

import click

from genselfdiff.errors import GsdError
from gsd.options import FILE, verbosity
from gsd.output import complain, report, say


@click.command(
    epilog="""\b
Examples:
  gsd merge mask.tif
  gsd merge masks/
"""
)
@click.argument("masks", nargs=-1, required=True, metavar="MASK...", type=FILE)
@verbosity
def merge(masks: tuple[Path, ...]) -> None:
    """Make masks of the parts that 'gsd segment --shard' has left.

    MASK is the mask to make, or a folder in which all are made whose parts lie there. They are the
    files that one process would have made. The parts are removed. Where no slide was cut there is
    nothing to do.
    """
    from genselfdiff.segmenting.shards.merge import find_shared, merge_parts

    shared = find_shared(masks)
    if not shared:
        say(f"{', '.join(map(str, masks))}: nothing to merge: no slide was cut")
    failed: list[Path] = []
    for mask in shared:
        try:
            for path in merge_parts(mask).files.all():
                say(str(path))
        except GsdError as error:
            if len(shared) == 1:
                raise
            failed.append(mask)
            report(error)
    if failed:
        names = ", ".join(map(str, failed))
        complain(f"{len(failed)} of {len(shared)} masks are not merged: {names}")
        sys.exit(1)
