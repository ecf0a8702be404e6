"""``gsd segment``: slides to masks."""

import re
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Unpack

import click

from genselfdiff.choices import DEFAULT_MODEL
from genselfdiff.segmenting.options import OptionArguments, Options
from genselfdiff.storage.places import Place, Url
from genselfdiff.text import counted
from gsd.object_options import object_options
from gsd.options import (
    FILE,
    PLACE,
    PLACE_AS_TYPED,
    PLACE_OR_SHIPPED,
    dask_option,
    overwriting,
    progress,
    setting_option,
    verbosity,
)
from gsd.output import complain, report, say


def _region(
    ctx: click.Context, parameter: click.Parameter, text: str | None
) -> tuple[int, int, int, int] | None:
    if text is None:
        return None
    try:
        x, y, width, height = map(int, text.split(","))
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not four whole numbers such as 5000,4000,2048,1024"
        ) from None
    return x, y, width, height


def _bytes(ctx: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise click.BadParameter(f"{text!r} is not a size such as 2G, 800M or 1.5G")
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))


def _shard(
    ctx: click.Context, parameter: click.Parameter, text: str | None
) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        index, count = map(int, text.split("/"))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not two whole numbers such as 2/8") from None
    if not 1 <= index <= count:
        raise click.BadParameter(f"{text!r} must count from 1/{count} to {count}/{count}")
    return index, count


setting = partial(setting_option, Options, ranges=True)
flag = partial(setting, is_flag=True, default=False)


@click.command(
    epilog="""\b
Examples:
  gsd segment slide.svs -o mask.tif                (nuclei, with the model that comes with gsd)
  gsd segment slide.svs -o mask.tif --model model.ts --overlay --geojson
  gsd segment slide.svs -o mask.tif --instances --geojson --table --labels --report
  gsd segment scan.tif -o mask.tif --mpp 0.25      (a file without resolution)
  gsd segment slide.svs -o part.tif --region 5000,4000,2048,1024
  gsd segment a.svs b.svs more/ -o masks/          (model from GSD_MODEL)
  gsd segment s3://bucket/slides/ -o masks/        (where they lie, or by https:// and others)
  gsd segment slides/ -o s3://bucket/masks/        (sent there when they are finished)
  gsd segment slides/ -o masks/ --shard 2/8        (one of 8 processes; then gsd merge masks/)
  gsd segment slides/ -o masks/ --dask tcp://host:8786
"""
)
@click.argument("slides", nargs=-1, required=True, metavar="SLIDE...", type=PLACE)
@click.option(
    "-o",
    "--output",
    required=True,
    type=PLACE_AS_TYPED,
    help="Mask to write, a .tif; for several slides, or with a slash at its end, a folder; or a"
    " URL.",
)
@click.option(
    "--model",
    type=PLACE_OR_SHIPPED,
    metavar="MODEL",
    help="Model file of 'gsd export', its URL, a folder of 'gsd push', or a name of 'gsd models';"
    f" default: what GSD_MODEL names, else {DEFAULT_MODEL}.",
)
@setting("mpp")
@flag("overlay")
@click.option(
    "--overlay-to",
    type=FILE,
    metavar="PNG",
    help="Where the overlay goes; default: beside the mask.",
)
@setting("overlay_width")
@flag("outline")
@flag("geojson")
@flag("table")
@flag("labels")
@object_options
@flag("report")
@flag("probabilities")
@flag("zarr")
@click.option(
    "--ome", is_flag=True, help="Write masks as OME-TIFF; so does a name that ends in .ome.tif."
)
@setting("tile_size")
@setting("overlap")
@setting("region", callback=_region, metavar="X,Y,WIDTH,HEIGHT")
@setting("batch_size")
@setting("max_memory", callback=_bytes, metavar="SIZE")
@setting("device")
@setting("tta")
@setting("precision")
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
    help="Only say what it would take: tiles, memory, and the time from a few of them.",
)
@setting("on_error")
@setting("icc", is_flag=True)
@click.option(
    "--shard",
    callback=_shard,
    metavar="I/N",
    help="Do the I-th of N parts of the work; other processes, on other machines, do the others.",
)
@dask_option()
@click.option(
    "--scratch",
    type=FILE,
    metavar="FOLDER",
    help="Where masks grow that go to a URL; default: gsd/scratch in the user's folder for caches.",
)
@overwriting
@verbosity
def segment(
    slides: tuple[Place, ...],
    output: str | Url,
    model: str | Url | None,
    overlay_to: Path | None,
    ome: bool,
    no_tissue: bool,
    tissue_mask: Path | None,
    dry_run: bool,
    shard: tuple[int, int] | None,
    dask: str | None,
    scratch: Path | None,
    overwrite: bool,
    **options: Unpack[OptionArguments],
) -> None:
    """Segment slides into masks of class indices.

    SLIDE is an SVS, OME-TIFF, TIFF, PNG or JPEG file, the folder of an OME-Zarr or of the DICOM
    files of a series, with OpenSlide installed a MIRAX, NDPI, SCN or BIF, or a folder of them; also
    by URL (s3://, https://). A mask is a tiled, pyramidal TIFF with the size and resolution of
    the slide and a colour for each class. What was interrupted goes on when the same command is
    given again; finished masks are not made again.
    """
    if tissue_mask and no_tissue:
        raise click.UsageError("--tissue-mask and --no-tissue exclude each other")
    if shard and overwrite:
        raise click.UsageError("--shard does not replace files that other shards may be making")
    if dask and (shard or overwrite or dry_run):
        other = "--shard" if shard else "--overwrite" if overwrite else "--dry-run"
        raise click.UsageError(f"--dask and {other} exclude each other")
    if (shard or dask) and isinstance(output, Url) and scratch is None:
        shared = "--shard" if shard else "--dask"
        raise click.UsageError(
            f"{shared} and a URL need --scratch, a folder that all processes see: parts lie there"
            " until they are joined and sent"
        )
    from genselfdiff.segmenting.plan import plan_outputs

    plan = plan_outputs(slides, output, ome=ome, scratch=scratch)
    if overlay_to and len(plan.pairs) > 1:
        raise click.UsageError("--overlay-to names one file: with several slides use --overlay")
    if tissue_mask and len(plan.pairs) > 1:
        raise click.UsageError("--tissue-mask is of one slide: segment the others by themselves")
    from genselfdiff.machine import keep_freed_memory
    from genselfdiff.segmenting.many_slides import segment_all
    from genselfdiff.segmenting.outcome import Outcome
    from genselfdiff.segmenting.shards.part import Shard

    if options["max_memory"] is None:  # what is kept is in pieces that may not fit the next tile
        keep_freed_memory()
    failed: list[Outcome] = []
    if overlay_to or options["overlay_width"] is not None or options["outline"]:
        options["overlay"] = overlay_to or True
    options["tissue"] = tissue_mask or not no_tissue
    if dask:
        from genselfdiff.fleet.clusters import connect
    with connect(dask) if dask else nullcontext() as client:
        for outcome in segment_all(
            plan,
            model,
            overwrite=overwrite,
            progress=progress(),
            dry_run=dry_run,
            shard=shard and Shard(*shard),
            client=client,
            **options,
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
        complain(f"{len(failed)} of {counted(len(plan.pairs), 'slide')} failed: {names}")
        sys.exit(1)
