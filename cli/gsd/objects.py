"""``gsd objects``: a mask to polygons."""

from pathlib import Path

import click

from genselfdiff.slides import write_objects
from gsd.options import min_area, verbosity


@click.command(
    epilog="""\b
Examples:
  gsd objects mask.tif -o objects.geojson
  gsd objects mask.tif -o nuclei.geojson --min-area 10
"""
)
@click.argument("mask", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="File to write, a .geojson.",
)
@min_area
@click.option(
    "--mpp",
    type=click.FloatRange(0, min_open=True),
    help="Resolution of the mask in um/pixel, where its file does not tell or is wrong.",
)
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
@verbosity
def objects(mask: Path, output: Path, min_area: float, mpp: float | None, overwrite: bool) -> None:
    """Write the objects of MASK, a mask of 'gsd segment', as GeoJSON.

    Every object of a class but the first becomes an annotation: a polygon with holes along the
    edges of its pixels, with class, colour, area and perimeter. Drop the file onto the slide in
    QuPath to see them. Pixels of a class that only touch at a corner are two objects.
    """
    counts = write_objects(
        mask, geojson=output, min_area=min_area, mpp=mpp, overwrite=overwrite
    ).counts
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    click.echo(f"{output}: {told or 'no objects'}")
