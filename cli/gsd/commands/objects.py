"""``gsd objects``: a mask to polygons, tables and images of its objects."""

import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import click

from genselfdiff.text import counted
from gsd.object_options import object_options
from gsd.options import FILE, dask_option, overwriting, progress, verbosity
from gsd.output import complain, report, say


@click.command(
    epilog="""\b
Examples:
  gsd objects mask.tif -o objects.geojson
  gsd objects mask.tif -o nuclei.geojson --min-area 10
  gsd objects mask.tif -o nuclei.geojson --instances --table nuclei.csv
  gsd objects mask.tif --instances --table nuclei.parquet --labels nuclei.tif
  gsd objects masks/ -o objects/ --table objects/ --dask local:4
"""
)
@click.argument("masks", nargs=-1, required=True, metavar="MASK...", type=FILE)
@click.option(
    "-o",
    "--output",
    type=FILE,
    help="Polygons to write, a .geojson; for several masks, or a folder of them, a folder.",
)
@click.option(
    "--table",
    type=FILE,
    help="Table to write, a .csv or .parquet, or a folder; a row for each object: place, size,"
    " form.",
)
@click.option(
    "--labels",
    type=FILE,
    help="Image to write, a .tif of the mask's size, or a folder; pixels have the id of their"
    " object, or 0.",
)
@object_options
@click.option(
    "--mpp",
    type=click.FloatRange(0, min_open=True),
    help="Resolution of the mask in um/pixel, where its file does not say or is wrong.",
)
@dask_option()
@overwriting
@verbosity
def objects(
    masks: tuple[Path, ...],
    output: Path | None,
    table: Path | None,
    labels: Path | None,
    instances: bool | None,
    seed_distance: float | None,
    min_area: float | None,
    mpp: float | None,
    dask: str | None,
    overwrite: bool,
) -> None:
    """Write the objects of each MASK, a mask of 'gsd segment', as GeoJSON, a table or an image.

    Every object of a class but the first becomes an annotation: a polygon with holes along the
    edges of its pixels, with class, colour, area and perimeter. Drop the file onto the slide in
    QuPath to see them. Pixels of a class that only touch at a corner are two objects. Objects that
    touch are taken apart where the mask's model has learnt to tell them apart, or with --instances
    or --seed-distance where they are thinnest.

    Several masks, or a folder of them, go to folders, under the names that 'gsd segment' gives to
    what lies beside a mask. A mask that fails does not stop the others; the exit status is then 1.
    """
    if not (output or table or labels):
        raise click.UsageError("nothing to write: name a file with --output, --table or --labels")
    from genselfdiff.errors import GsdError
    from genselfdiff.objects.many_masks import plan_objects, write_each

    plan = plan_objects(masks, output, table, labels)
    write = partial(
        write_each,
        plan,
        instances=instances,
        seed_distance=seed_distance,
        min_area=min_area,
        mpp=mpp,
        overwrite=overwrite,
    )
    failed: list[Path] = []
    with ExitStack() as stack:
        if dask is None:
            results = write()
        else:
            from genselfdiff.fleet.clusters import connect
            from genselfdiff.fleet.mapping import map_on

            client = stack.enter_context(connect(dask))
            results = write(mapping=partial(map_on, client, progress=progress()))
        for files, found in results:
            if not isinstance(found, GsdError):
                counts = ", ".join(f"{count} {name}" for name, count in found.counts.items())
                say(f"{', '.join(map(str, files.outputs()))}: {counts or 'no objects'}")
            elif len(plan) == 1:
                raise found
            else:
                failed.append(files.mask)
                report(found)
    if failed:
        names = ", ".join(map(str, failed))
        complain(f"{len(failed)} of {counted(len(plan), 'mask')} failed: {names}")
        sys.exit(1)
