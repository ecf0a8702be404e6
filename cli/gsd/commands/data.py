"""``gsd data``: slides, and labels of other programs and data sets, to what training takes."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from genselfdiff.choices import FIELD_CLASS
from genselfdiff.data.naming import names_in
from genselfdiff.files import refuse_existing, refuse_inputs
from gsd.options import FILE, Command, dask_option, overwriting, progress, verbosity
from gsd.output import say

if TYPE_CHECKING:
    from genselfdiff.data.importers import Import

_image_mpp = click.option(
    "--image-mpp", type=float, help="Resolution of slides whose files do not say it, in um/px."
)


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


@data.group(
    "import",
    epilog="""\b
Examples:
  gsd data import monuseg MoNuSeg/ -o nuclei/
  gsd data import qupath slides/ --annotations geojson/ --mpp 0.5 -o fields/
""",
)
def import_() -> None:
    """Turn labels of other programs and data sets into a folder of images and masks.

    It gets images/, masks/ with the index of a class in each pixel, instances/ with numbers of
    objects where they are known, classes.csv and fields.csv.
    """


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
@_image_mpp
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
    dask: str | None,
) -> None:
    """Cut SLIDES, files or folders, into PNG tiles that hold tissue.

    'gsd train pretrain' needs none: it draws tiles from slides itself. Given again after it was
    stopped, the command goes on. Slides that cannot be read and tiles that are damaged are named
    and left out; the exit status is 1 if there are such slides.
    """
    from genselfdiff.data.cutting import CutSettings, cut_tiles
    from genselfdiff.slides import find_slides

    settings = CutSettings(mpp, tile_size, tissue, limit, seed, image_mpp)
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
        say(f"{path}: {count} tiles")
    failed = len(counts) - len(cut)
    without = f"; {failed} slides could not be read" if failed else ""
    say(f"{output}: {sum(cut.values())} tiles of {len(cut)} slides{without}")
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


def _output(command: Command) -> Command:
    """Add --output, --overwrite, -v and -q."""
    output = click.option("-o", "--output", required=True, type=FILE, help="Folder to write.")
    overwrite = click.option(
        "--overwrite", is_flag=True, help="Replace what an earlier import has left in the folder."
    )
    return output(overwrite(verbosity(command)))


def _classes(command: Command) -> Command:
    option = click.option(
        "--classes",
        help="Classes to take, comma-separated (names with commas in double quotes), in the order"
        " of their indices from 1; default: all there are, by the alphabet.",
    )
    return option(command)


def _names(classes: str | None) -> Sequence[str] | None:
    return None if classes is None else names_in(classes)


def _write(found: "Import", output: Path, overwrite: bool) -> None:
    from genselfdiff.data.labelled_folder import write_fields

    written = write_fields(
        output,
        found.class_names,
        found.fields,
        total=found.count,
        overwrite=overwrite,
        progress=progress(),
    )
    if found.left_out.summary():
        say(found.left_out.summary())
    say(written.summary())


@import_.command(
    epilog="""\b
Examples:
  gsd data import monuseg MoNuSeg/ -o nuclei/
  gsd data import monuseg MoNuSeg/Annotations --images 'MoNuSeg/Tissue Images' -o nuclei/
"""
)
@click.argument("folder", type=FILE)
@click.option("--images", type=FILE, help="Folder of the images; default: FOLDER.")
@_output
def monuseg(folder: Path, images: Path | None, output: Path, overwrite: bool) -> None:
    """Nuclei of MoNuSeg, and what else was outlined with Aperio ImageScope.

    FOLDER holds, in any folders below it, an XML file for each image that has its name. Images
    without one are left out.
    """
    from genselfdiff.data.importers.monuseg import read_monuseg

    _write(read_monuseg(folder, images), output, overwrite)


@import_.command(
    epilog="""\b
Examples:
  gsd data import glas Warwick_QU_Dataset/ -o glands/
"""
)
@click.argument("folder", type=FILE)
@_output
def glas(folder: Path, output: Path, overwrite: bool) -> None:
    """Glands of GlaS: FOLDER holds NAME.bmp and NAME_anno.bmp."""
    from genselfdiff.data.importers.glas import read_glas

    _write(read_glas(folder), output, overwrite)


@import_.command(
    epilog="""\b
Examples:
  gsd data import labelbox export.json --images pictures/ -o fields/
  gsd data import labelbox export.ndjson --images pictures/ --classes tumor,stroma -o fields/
"""
)
@click.argument("export", type=FILE)
@click.option("--images", required=True, type=FILE, help="Folder of the images.")
@_classes
@_output
def labelbox(
    export: Path, images: Path, classes: str | None, output: Path, overwrite: bool
) -> None:
    """Polygons in EXPORT, a JSON or NDJSON file of Labelbox."""
    from genselfdiff.data.importers.labelbox import read_labelbox

    _write(read_labelbox(export, images, _names(classes)), output, overwrite)


@import_.command(
    epilog="""\b
Examples:
  gsd data import folder --images img/ --masks msk/ 0=background 255=gland -o fields/
  gsd data import folder --images img/ --masks msk/ '#000000=background' '#ff0000=tumor' \\
      '#ffffff=ignore' -o fields/
"""
)
@click.argument("meanings", nargs=-1, required=True, metavar="VALUE=CLASS...")
@click.option("--images", required=True, type=FILE, help="Folder of the images.")
@click.option("--masks", required=True, type=FILE, help="Folder of masks of the same names.")
@_output
def folder(
    meanings: tuple[str, ...], images: Path, masks: Path, output: Path, overwrite: bool
) -> None:
    """Masks whose values, or colours, mean classes.

    VALUE is a number, or for masks of colours #rrggbb. Classes are numbered as they are named;
    'background' is 0, and 'ignore' is for pixels that nobody has labelled.
    """
    from genselfdiff.data.importers.mask_folder import read_mask_folder

    _write(read_mask_folder(images, masks, meanings), output, overwrite)


@import_.command(
    epilog="""\b
Examples:
  gsd data import qupath slides/ --annotations geojson/ --mpp 0.5 -o fields/
  gsd data import qupath slide.svs --annotations slide.geojson --classes tumor,stroma -o fields/
"""
)
@click.argument("slides", type=FILE)
@click.option(
    "--annotations", required=True, type=FILE, help="GeoJSON of the slide, or a folder of them."
)
@click.option("--mpp", type=float, help="Resolution of the fields in um/px; default: the slides'.")
@click.option(
    "--fields",
    default=FIELD_CLASS,
    show_default=True,
    help="Class of the rectangles in which all is annotated; without any, the whole slide.",
)
@click.option("--nuclei", is_flag=True, help="Of cells, take the nuclei, not their own outlines.")
@_image_mpp
@_classes
@_output
def qupath(
    slides: Path,
    annotations: Path,
    mpp: float | None,
    fields: str,
    nuclei: bool,
    image_mpp: float | None,
    classes: str | None,
    output: Path,
    overwrite: bool,
) -> None:
    """Annotations that QuPath exported as GeoJSON, over SLIDES: a slide, or a folder of them.

    Draw rectangles of the class Region* around what you annotate completely: each becomes an image.
    Other classes whose names end in * (Ignore*) are not labelled. In QuPath: File, Export objects
    as GeoJSON.
    """
    from genselfdiff.data.importers.qupath import read_qupath
    from genselfdiff.data.importers.qupath_fields import Scales

    found = read_qupath(
        slides,
        annotations,
        scales=Scales(mpp, image_mpp),
        field_class=fields,
        classes=_names(classes),
        nuclei=nuclei,
    )
    _write(found, output, overwrite)
