"""``gsd unknown``: where a slide is unlike known tissue."""

from pathlib import Path

import click

from genselfdiff.segmenting.options import Options
from genselfdiff.storage.places import Place
from gsd.options import FILE, PLACE, overwriting, progress, setting_option, verbosity
from gsd.output import say


@click.command(
    epilog="""\b
Examples:
  gsd unknown slide.svs --like slides/ -o slide_unknown.tif
  gsd unknown slide.svs --like run1 --keep known.json -o slide_unknown.tif
  gsd unknown other.svs --like known.json -o other_unknown.tif
  gsd view slide.svs slide_unknown.tif
"""
)
@click.argument("slide", type=PLACE)
@click.option(
    "--like",
    required=True,
    type=PLACE,
    help="What is known: an image, a slide, a folder of them, a run of 'gsd train pretrain', whose"
    " images are meant, or a file of --keep.",
)
@click.option("-o", "--output", required=True, type=FILE, help="Map to write, a .tif.")
@click.option("--keep", type=FILE, help="Write what is known, a .json, for other slides.")
@click.option(
    "--cell-mpp",
    type=click.FloatRange(0, min_open=True),
    help="Resolution in um/pixel at which tissue is looked at; default: that of the run, else 0.5.",
)
@click.option(
    "--like-mpp",
    type=click.FloatRange(0, min_open=True),
    help="Resolution of the images of --like in um/pixel, where their files do not say.",
)
@setting_option(Options, "mpp", ranges=True)
@setting_option(Options, "on_error")
@setting_option(Options, "icc", is_flag=True)
@overwriting
@verbosity
def unknown(
    slide: Place,
    like: Place,
    output: Path,
    keep: Path | None,
    cell_mpp: float | None,
    like_mpp: float | None,
    mpp: float | None,
    on_error: str,
    icc: bool,
    overwrite: bool,
) -> None:
    """Map where SLIDE is unlike the tissue of --like: pen, bubbles, blur, other stains.

    Tissue is cut into cells of 16 um. Colours and texture of each are compared with those of
    known cells. The map has the slide's size, and 'gsd view' lays it over. A value of 128 or
    more is further from what is known than 99 of 100 known cells are from those of other images.
    """
    from genselfdiff.unknown.learning import known_tissue
    from genselfdiff.unknown.unknown_map import check_map, map_unknown

    check_map(slide, output, like=like, keep=keep, mpp=mpp, on_error=on_error, overwrite=overwrite)
    known = known_tissue(like, mpp=cell_mpp, image_mpp=like_mpp, icc=icc, progress=progress())
    if keep is not None:
        known.write(keep)
    found = map_unknown(
        slide,
        output,
        known,
        mpp=mpp,
        on_error=on_error,
        overwrite=overwrite,
        progress=progress(),
    )
    if not found.cells:
        say(f"{output}: no tissue found")
        return
    say(f"{output}: {found.unlike / found.cells:.1%} of the tissue is unlike what is known")
