"""``gsd data import``: labels of other programs and data sets to what training takes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from genselfdiff.choices import FIELD_CLASS
from genselfdiff.data.naming import names_in
from genselfdiff.segmenting.options import Options
from gsd.options import FILE, Command, progress, setting_option, verbosity
from gsd.output import say

if TYPE_CHECKING:
    from genselfdiff.data.importers import Import

image_mpp_option = click.option(
    "--image-mpp", type=float, help="Resolution of slides whose files do not say it, in um/px."
)


@click.group(
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
  gsd data import instances --images img/ --labels labels/ -o nuclei/
  gsd data import instances --images cells/ --labels cells/ --class-name cell -o nuclei/
"""
)
@click.option("--images", required=True, type=FILE, help="Folder of the images.")
@click.option(
    "--labels", required=True, type=FILE, help="Folder of PNGs or TIFFs of the same names."
)
@click.option("--class-name", default="nucleus", show_default=True, help="Of all objects.")
@_output
def instances(images: Path, labels: Path, class_name: str, output: Path, overwrite: bool) -> None:
    """Numbers of objects, as StarDist, Cellpose and ImageJ's label images have them.

    A mask is called as its image, or NAME_cp_masks or NAME_masks, which may lie beside the images.
    """
    from genselfdiff.data.importers.instances import read_instances

    _write(read_instances(images, labels, class_name), output, overwrite)


@import_.command(
    epilog="""\b
Examples:
  gsd data import hovernet CoNSeP/Train/Labels --images CoNSeP/Train/Images -o nuclei/
  gsd data import hovernet out/json --images tiles/ 0=ignore 1=neoplastic 2=inflammatory \\
      3=connective 4=dead 5=epithelial -o nuclei/
"""
)
@click.argument("labels", type=FILE)
@click.argument("meanings", nargs=-1, metavar="[TYPE=CLASS]...")
@click.option("--images", required=True, type=FILE, help="Folder of the images.")
@_output
def hovernet(
    labels: Path, meanings: tuple[str, ...], images: Path, output: Path, overwrite: bool
) -> None:
    """Nuclei of HoVer-Net: LABELS is a folder of .mat or .json files with the names of images.

    Data sets in its form are read too, such as CoNSeP, Kumar and CPM. Without TYPE=CLASS all nuclei
    are of one class.
    """
    from genselfdiff.data.importers.hovernet import read_hovernet

    _write(read_hovernet(labels, images, meanings), output, overwrite)


@import_.command(
    epilog="""\b
Example:
  gsd data import cvat annotations.xml --images img/ --classes tumor,stroma -o fields/
"""
)
@click.argument("export", type=FILE)
@click.option("--images", required=True, type=FILE, help="Folder of the images.")
@_classes
@_output
def cvat(export: Path, images: Path, classes: str | None, output: Path, overwrite: bool) -> None:
    """Polygons and masks of CVAT: EXPORT is the XML of its format 'CVAT for images 1.1'."""
    from genselfdiff.data.importers.cvat import read_cvat

    _write(read_cvat(export, images, _names(classes)), output, overwrite)


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
@image_mpp_option
@setting_option(Options, "icc", is_flag=True)
@_classes
@_output
def qupath(
    slides: Path,
    annotations: Path,
    mpp: float | None,
    fields: str,
    nuclei: bool,
    image_mpp: float | None,
    icc: bool,
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
        scales=Scales(mpp, image_mpp, icc),
        field_class=fields,
        classes=_names(classes),
        nuclei=nuclei,
    )
    _write(found, output, overwrite)
