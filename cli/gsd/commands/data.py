"""``gsd data``: slides, and labels of other programs and data sets, to what training takes."""

import sys
from functools import partial
from pathlib import Path

import click

from genselfdiff.files import refuse_existing, refuse_inputs
from genselfdiff.segmenting.options import Options
from genselfdiff.text import counted
from gsd.label_imports import image_mpp_option, import_
from gsd.options import FILE, dask_option, overwriting, progress, setting_option, verbosity
from gsd.output import say


@click.group(
    epilog="""\b
Examples:
  gsd data import monuseg MoNuSeg/ -o nuclei/
  gsd data check nuclei/ --sheet nuclei.png
  gsd data tiles slides/ --mpp 0.5 -o tiles/
"""
)
def data() -> None:
    """Bring slides and labels into the form that training takes, and look through them."""


data.add_command(import_)


@data.command(
    epilog="""\b
Examples:
  gsd data tiles slides/ --mpp 0.5 -o tiles/
  gsd data tiles a.svs b.svs --mpp 0.5 --tile-size 512 --limit 200 -o tiles/
"""
)
@click.argument("slides", nargs=-1, required=True, type=FILE)
@click.option("-o", "--output", required=True, type=FILE, help="Folder to write.")
@click.option("--mpp", required=True, type=float, help="Resolution of the tiles in um/px.")
@click.option("--tile-size", type=int, default=256, show_default=True, help="Side in pixels.")
@click.option(
    "--tissue",
    type=float,
    default=0.5,
    show_default=True,
    help="Least part of a tile that is tissue, 0 to 1.",
)
@click.option("--limit", type=int, help="Of tiles of each slide, drawn with --seed; default: all.")
@click.option("--seed", type=int, default=0, show_default=True)
@image_mpp_option
@setting_option(Options, "icc", is_flag=True)
@dask_option()
@verbosity
def tiles(
    slides: tuple[Path, ...],
    output: Path,
    mpp: float,
    tile_size: int,
    tissue: float,
    limit: int | None,
    seed: int,
    image_mpp: float | None,
    icc: bool,
    dask: str | None,
) -> None:
    """Cut SLIDES, files or folders, into PNG tiles that hold tissue.

    'gsd train pretrain' needs none: it draws tiles from slides itself. Given again after it was
    stopped, the command goes on. Slides that cannot be read and tiles that are damaged are named
    and left out; the exit status is 1 if there are such slides.
    """
    from genselfdiff.data.cutting import CutSettings, cut_tiles
    from genselfdiff.slides import find_slides

    settings = CutSettings(mpp, tile_size, tissue, limit, seed, image_mpp, icc)
    found = find_slides(slides, output)
    if dask is None:
        counts = cut_tiles(found, output, settings, progress())
    else:
        from genselfdiff.fleet.clusters import connect
        from genselfdiff.fleet.mapping import map_on

        found, output = [path.absolute() for path in found], output.absolute()
        with connect(dask) as client:
            mapping = partial(map_on, client, progress=progress())
            counts = cut_tiles(found, output, settings, progress=False, mapping=mapping)
    cut = {path: count for path, count in counts.items() if count is not None}
    for path, count in cut.items():
        say(f"{path}: {counted(count, 'tile')}")
    failed = len(counts) - len(cut)
    without = f"; {counted(failed, 'slide')} could not be read" if failed else ""
    tiles = counted(sum(cut.values()), "tile")
    say(f"{output}: {tiles} of {counted(len(cut), 'slide')}{without}")
    if failed:
        sys.exit(1)


@data.command(
    epilog="""\b
Examples:
  gsd data check fields/ --sheet fields.png
  gsd data check --images img/ --masks msk/
"""
)
@click.argument("folder", required=False, type=FILE)
@click.option("--images", type=FILE, help="Folder of the images; default: FOLDER/images.")
@click.option("--masks", type=FILE, help="Folder of the masks; default: FOLDER/masks.")
@click.option(
    "--foreground",
    is_flag=True,
    help="Read every non-zero mask value as class 1, as training does.",
)
@click.option("--sheet", type=FILE, help="A .png to draw: all images with their masks laid over.")
@overwriting
@verbosity
def check(
    folder: Path | None,
    images: Path | None,
    masks: Path | None,
    foreground: bool,
    sheet: Path | None,
    overwrite: bool,
) -> None:
    """Look through labelled images: sizes, classes, and what is wrong with them.

    FOLDER holds images/ and masks/, as 'gsd data import' leaves them. Files without a partner, that
    cannot be read, do not fit, are there twice or are not read as they are stored are named, and
    the exit status is 1.
    """
    if folder is None and (images is None or masks is None):
        raise click.UsageError("name a folder, or --images and --masks")
    from genselfdiff.data.labelled.checking import check_folders
    from genselfdiff.data.labelled.pairs import images_in

    base = folder or Path()
    images, masks = images or base / "images", masks or base / "masks"
    if sheet is not None:
        refuse_inputs([sheet], images_in([images, masks]))
        refuse_existing(sheet, overwrite)
    found = check_folders(images, masks, foreground=foreground, sheet=sheet, progress=progress())
    say(found.summary())
    if found.problems:
        sys.exit(1)


@data.command(
    epilog="""\b
Examples:
  gsd data corrections corrections/
  gsd data corrections corrections/ --slides /mnt/slides
"""
)
@click.argument("folder", type=FILE)
@click.option(
    "--slides", multiple=True, type=FILE, help="Slides, or a folder of them, that were moved."
)
@verbosity
def corrections(folder: Path, slides: tuple[Path, ...]) -> None:
    """Make images and masks of what was drawn with 'gsd view', as its page does.

    FOLDER gets images/, masks/, instances/, classes.csv and fields.csv, as those that 'gsd data
    import' writes, and geojson/ with a file for each slide, which QuPath opens. Those of an
    earlier time are replaced.
    """
    from genselfdiff.slides import find_slides
    from genselfdiff.viewer.corrections.folder import Corrections
    from genselfdiff.viewer.corrections.results import write_results

    found = find_slides(slides) if slides else []
    say(write_results(Corrections(folder), found, progress=progress()).summary())
