"""``gsd segment``: slides to masks."""

import re
import sys
from pathlib import Path

import click

from genselfdiff.choices import ON_ERROR, PRECISIONS, VIEWS
from genselfdiff.inference.shipped import DEFAULT
from gsd.options import (
    FILE,
    FILE_AS_TYPED,
    FILE_OR_SHIPPED,
    instances,
    min_area,
    progress,
    verbosity,
)
from gsd.output import complain, report, say


def _region(
    ctx: click.Context, parameter: click.Parameter, given: str | None
) -> tuple[int, int, int, int] | None:
    if given is None:
        return None
    try:
        x, y, width, height = map(int, given.split(","))
    except ValueError:
        raise click.BadParameter(
            f"{given!r} is not four whole numbers such as 5000,4000,2048,1024"
        ) from None
    return x, y, width, height


def _bytes(ctx: click.Context, parameter: click.Parameter, given: str | None) -> int | None:
    if given is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)(?:i?B)?", given.strip(), re.IGNORECASE)
    if match is None:
        raise click.BadParameter(f"{given!r} is not a size such as 2G, 800M or 1.5G")
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))


def _shard(
    ctx: click.Context, parameter: click.Parameter, given: str | None
) -> tuple[int, int] | None:
    if given is None:
        return None
    try:
        index, count = map(int, given.split("/"))
    except ValueError:
        raise click.BadParameter(f"{given!r} is not two whole numbers such as 2/8") from None
    if not 1 <= index <= count:
        raise click.BadParameter(f"{given!r} must count from 1/{count} to {count}/{count}")
    return index, count


@click.command(
    epilog="""\b
Examples:
  gsd segment slide.svs -o mask.tif                (nuclei, with the model that comes with gsd)
  gsd segment slide.svs -o mask.tif --model model.ts --overlay --geojson
  gsd segment slide.svs -o mask.tif --instances --geojson --table --labels --report
  gsd segment scan.tif -o mask.tif --mpp 0.25      (a file without resolution)
  gsd segment slide.svs -o part.tif --region 5000,4000,2048,1024
  gsd segment a.svs b.svs more/ -o masks/          (model from GSD_MODEL)
  gsd segment slides/ -o masks/ --shard 2/8        (one of 8 processes; then gsd merge masks/)
"""
)
@click.argument("slides", nargs=-1, required=True, metavar="SLIDE...", type=FILE)
@click.option(
    "-o",
    "--output",
    required=True,
    type=FILE_AS_TYPED,
    help="Mask to write, a .tif; for several slides, or with a slash at its end, a folder.",
)
@click.option(
    "--model",
    type=FILE_OR_SHIPPED,
    metavar="MODEL",
    help="Model file of 'gsd export', or a name of 'gsd models'; default: what GSD_MODEL names,"
    f" else {DEFAULT}.",
)
@click.option(
    "--mpp",
    type=click.FloatRange(0, min_open=True),
    help="Resolution of the slide in um/pixel, where its file does not tell or is wrong.",
)
@click.option("--overlay", is_flag=True, help="Also draw the classes over the slide.")
@click.option(
    "--overlay-to",
    type=FILE,
    metavar="PNG",
    help="Where the overlay goes; default: beside the mask.",
)
@click.option(
    "--overlay-width",
    type=click.IntRange(1),
    help="Of the overlay in pixels; default: 2048 for the longer side.",
)
@click.option(
    "--geojson",
    is_flag=True,
    help="Also write the objects as polygons for QuPath, beside the mask as .geojson.",
)
@click.option(
    "--table",
    is_flag=True,
    help="Also write a row for each object, beside the mask as ..._objects.csv: place, size, form.",
)
@click.option(
    "--labels",
    is_flag=True,
    help="Also write an image of the objects' ids, beside the mask as ..._instances.tif.",
)
@instances
@min_area
@click.option(
    "--report",
    "report_page",
    is_flag=True,
    help="Also write a page about the slide, beside the mask as .html.",
)
@click.option(
    "--probabilities",
    is_flag=True,
    help="Also write the probability of each class, 0 to 255, beside the mask.",
)
@click.option(
    "--ome", is_flag=True, help="Write masks as OME-TIFF; so does a name that ends in .ome.tif."
)
@click.option("--tile-size", type=int, help="Side of the tiles in pixels; default: the model's.")
@click.option(
    "--overlap",
    type=click.FloatRange(0, 0.5),
    help="Part of a tile that it shares with its neighbour; default: the model's, mostly 0.25.",
)
@click.option(
    "--region",
    callback=_region,
    metavar="X,Y,WIDTH,HEIGHT",
    help="Predict this part only, in pixels of level 0; the mask keeps the slide's size.",
)
@click.option(
    "--batch-size", type=click.IntRange(1), help="Tiles predicted at once; default: by device."
)
@click.option(
    "--max-memory",
    callback=_bytes,
    metavar="SIZE",
    help="Memory to keep within, such as 2G or 800M, at the cost of speed.",
)
@click.option(
    "--device",
    help="cpu, cuda, cuda:N, several GPUs as cuda:0,cuda:1, or mps; default: the best there is.",
)
@click.option(
    "--tta",
    type=click.Choice([str(count) for count in VIEWS]),
    default="1",
    show_default=True,
    help="Average so many flips and turns of each tile, at as many times the cost.",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="auto",
    show_default=True,
    help="auto: bfloat16 where it is fast and hardly changes the labels of some tiles.",
)
@click.option("--no-tissue", is_flag=True, help="Predict everywhere, not only where tissue is.")
@click.option(
    "--tissue-mask",
    type=FILE,
    metavar="IMAGE",
    help="Predict where this image of the slide, of any size, is not 0.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only tell what it would take: tiles, memory, and the time from a few of them.",
)
@click.option(
    "--on-error",
    type=click.Choice(ON_ERROR),
    default="fail",
    show_default=True,
    help="What a damaged tile of the slide does: end with an error, or count as glass.",
)
@click.option(
    "--shard",
    callback=_shard,
    metavar="I/N",
    help="Do the I-th of N parts of the work; other processes, on other machines, do the others.",
)
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@verbosity
def segment(
    slides: tuple[Path, ...],
    output: str,
    model: str | None,
    mpp: float | None,
    overlay: bool,
    overlay_to: Path | None,
    overlay_width: int | None,
    geojson: bool,
    table: bool,
    labels: bool,
    instances: bool | None,
    seed_distance: float | None,
    min_area: float,
    report_page: bool,
    probabilities: bool,
    ome: bool,
    tile_size: int | None,
    overlap: float | None,
    region: tuple[int, int, int, int] | None,
    batch_size: int | None,
    max_memory: int | None,
    device: str | None,
    precision: str,
    tta: str,
    no_tissue: bool,
    tissue_mask: Path | None,
    dry_run: bool,
    on_error: str,
    shard: tuple[int, int] | None,
    overwrite: bool,
) -> None:
    """Segment slides into masks of class indices.

    SLIDE is an SVS, OME-TIFF, TIFF, PNG or JPEG file, the folder of an OME-Zarr, with OpenSlide
    installed a MIRAX, NDPI, SCN or BIF, or a folder of them. A mask is a tiled, pyramidal TIFF
    with the size and resolution of the slide and a colour for each class. What was
    interrupted goes on when the same command is given again; finished masks are not made again.
    """
    if tissue_mask and no_tissue:
        raise click.UsageError("--tissue-mask and --no-tissue exclude each other")
    if shard and overwrite:
        raise click.UsageError("--shard does not replace files that other shards may be making")
    from genselfdiff.inference.plan import plan_outputs

    plan = plan_outputs(slides, output, ome=ome)
    if overlay_to and len(plan.pairs) > 1:
        raise click.UsageError("--overlay-to names one file: with several slides use --overlay")
    if tissue_mask and len(plan.pairs) > 1:
        raise click.UsageError("--tissue-mask is of one slide: segment the others by themselves")
    from genselfdiff.inference.device import keep_freed_memory
    from genselfdiff.inference.many import Outcome, segment_all
    from genselfdiff.inference.shards import Shard

    if max_memory is None:  # what is kept is in pieces that may not fit the next tile
        keep_freed_memory()
    failed: list[Outcome] = []
    for outcome in segment_all(
        plan,
        model,
        device=device,
        mpp=mpp,
        overlay=overlay_to or overlay or overlay_width is not None,
        overlay_width=overlay_width,
        geojson=geojson,
        table=table,
        labels=labels,
        instances=instances,
        seed_distance=seed_distance,
        report=report_page,
        min_area=min_area,
        probabilities=probabilities,
        tile_size=tile_size,
        overlap=overlap,
        region=region,
        batch_size=batch_size,
        max_memory=max_memory,
        precision=precision,
        tta=int(tta),
        tissue=tissue_mask or not no_tissue,
        on_error=on_error,
        overwrite=overwrite,
        dry_run=dry_run,
        shard=shard and Shard(*shard),
        progress=progress(),
    ):
        if outcome.result is not None:
            say(outcome.result.summary())
        elif len(plan.pairs) == 1 and outcome.error is not None:
            raise outcome.error
        elif outcome.error is not None:
            failed.append(outcome)
            report(outcome.error)
    if failed:
        names = ", ".join(str(outcome.slide) for outcome in failed)
        complain(f"{len(failed)} of {len(plan.pairs)} slides failed: {names}")
        sys.exit(1)
