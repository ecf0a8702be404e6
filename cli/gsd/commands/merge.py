"""``gsd merge``: the parts of masks to masks."""

import sys
from pathlib import Path

import click

from genselfdiff.errors import GsdError
from genselfdiff.storage.places import Place, Url
from genselfdiff.text import counted
from gsd.options import FILE, PLACE, verbosity
from gsd.output import complain, report, say


@click.command(
    epilog="""\b
Examples:
  gsd merge mask.tif
  gsd merge masks/
  gsd merge s3://bucket/masks/ --scratch /shared/scratch
"""
)
@click.argument("masks", nargs=-1, required=True, metavar="MASK...", type=PLACE)
@click.option(
    "--scratch",
    type=FILE,
    metavar="FOLDER",
    help="The one that was given to 'gsd segment', for masks by URL.",
)
@verbosity
def merge(masks: tuple[Place, ...], scratch: Path | None) -> None:
    """Make masks of the parts that 'gsd segment --shard' has left.

    MASK is the mask to make, or a folder in which all are made whose parts lie there; or the URL of
    one, with a slash at the end of that of a folder. They are the files that one process would have
    made. The parts are removed. Where no slide was cut there is nothing to do.
    """
    from genselfdiff.segmenting.shards.merge import find_shared, merge_parts

    if scratch is None and any(isinstance(mask, Url) for mask in masks):
        raise click.UsageError("a URL needs --scratch, the folder where the parts lie")
    shared = find_shared(masks, scratch)
    if not shared:
        say(f"{', '.join(map(str, masks))}: nothing to merge: no slide was cut")
    failed: list[Place] = []
    for mask, elsewhere in shared.items():
        try:
            for place in merge_parts(mask, elsewhere).places():
                say(str(place))
        except GsdError as error:
            if len(shared) == 1:
                raise
            failed.append(mask if elsewhere is None else elsewhere / mask.name)
            report(error)
    if failed:
        names = ", ".join(map(str, failed))
        complain(f"not merged: {len(failed)} of {counted(len(shared), 'mask')}: {names}")
        sys.exit(1)
