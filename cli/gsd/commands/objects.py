"""``gsd objects``: a mask to polygons, tables and images of its objects."""

from pathlib import Path

import click

from gsd.object_options import object_options
from gsd.options import FILE, overwriting, verbosity
from gsd.output import say


@click.command(
    epilog="""\b
Examples:
  gsd objects mask.tif -o objects.geojson
  gsd objects mask.tif -o nuclei.geojson --min-area 10
  gsd objects mask.tif -o nuclei.geojson --instances --table nuclei.csv
  gsd objects mask.tif --instances --table nuclei.parquet --labels nuclei.tif
"""
)
@click.argument("mask", type=FILE)
@click.option(
    "-o",
    "--output",
    type=FILE,
    help="Polygons to write, a .geojson.",
)
@click.option(
    "--table",
    type=FILE,
    help="Table to write, a .csv or .parquet; a row for each object: place, size, form.",
)
@click.option(
    "--labels",
    type=FILE,
    help="Image to write, a .tif of the mask's size; pixels have the id of their object, or 0.",
)
@object_options
@click.option(
    "--mpp",
    type=click.FloatRange(0, min_open=True),
    help="Resolution of the mask in um/pixel, where its file does not say or is wrong.",
)
@overwriting
@verbosity
def objects(
    mask: Path,
    output: Path | None,
    table: Path | None,
    labels: Path | None,
    instances: bool | None,
    seed_distance: float | None,
    min_area: float | None,
    mpp: float | None,
    overwrite: bool,
) -> None:
    """Write the objects of MASK, a mask of 'gsd segment', as GeoJSON, a table or an image.

    Every object of a class but the first becomes an annotation: a polygon with holes along the
    edges of its pixels, with class, colour, area and perimeter. Drop the file onto the slide in
    QuPath to see them. Pixels of a class that only touch at a corner are two objects. Objects that
    touch are taken apart where the mask's model has learnt to tell them apart, or with --instances
    where they are thinnest.
    """
    outputs = [path for path in (output, table, labels) if path is not None]
    if not outputs:
        raise click.UsageError("nothing to write: name a file with --output, --table or --labels")
    from genselfdiff.objects import write_objects

    found = write_objects(
        mask,
        geojson=output,
        table=table,
        labels=labels,
        instances=instances,
        seed_distance=seed_distance,
        min_area=min_area,
        mpp=mpp,
        overwrite=overwrite,
    )
    counts = ", ".join(f"{count} {name}" for name, count in found.counts.items())
    say(f"{', '.join(map(str, outputs))}: {counts or 'no objects'}")
