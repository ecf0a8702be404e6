"""``gsd suggest``: fields of slides that are worth annotating next."""

from pathlib import Path

import click

from genselfdiff.choices import DEFAULT_MODEL, FIELD_RANKINGS
from genselfdiff.segmenting.options import Options
from genselfdiff.storage.places import Place
from gsd.options import (
    FILE,
    PLACE,
    PLACE_OR_SHIPPED,
    one_device,
    overwriting,
    progress,
    setting_option,
    verbosity,
)
from gsd.output import say


@click.command(
    epilog="""\b
Examples:
  gsd suggest slide.svs -n 5 -o slide.geojson
  gsd suggest slides/ -n 10 --per-slide 2 -o fields/
  gsd suggest slides/ --by model --model model.ts -n 10 -o fields/
"""
)
@click.argument("slides", nargs=-1, required=True, type=PLACE)
@click.option(
    "-o",
    "--output",
    required=True,
    type=FILE,
    help="GeoJSON to write, or of several slides a folder, with a file for each.",
)
@click.option(
    "-n", "--count", type=click.IntRange(1), default=10, show_default=True, help="Fields to choose."
)
@click.option(
    "--by",
    type=click.Choice(FIELD_RANKINGS),
    default="random",
    show_default=True,
    help="A draw; varied fields; or what the model is unsure of, and varied.",
)
@click.option(
    "--model",
    type=PLACE_OR_SHIPPED,
    help="With --by model: a model file, its URL, a folder of 'gsd push', or a name of 'gsd"
    f" models'; default: the one that GSD_MODEL names, else {DEFAULT_MODEL}.",
)
@click.option(
    "--size",
    type=click.FloatRange(0, min_open=True),
    default=250.0,
    show_default=True,
    help="Side of a field in um.",
)
@click.option("--per-slide", type=click.IntRange(1), help="Fields of one slide, at most.")
@click.option(
    "--candidates",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Fields that are looked at, of all slides together; time goes with them.",
)
@click.option(
    "--like",
    type=FILE,
    help="Tissue that fields have to be like, a file of 'gsd unknown --keep'; default: most of"
    " what these slides show.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@setting_option(Options, "mpp", ranges=True)
@setting_option(Options, "on_error")
@setting_option(Options, "icc", is_flag=True)
@overwriting
@one_device
@verbosity
def suggest(
    slides: tuple[Place, ...],
    output: Path,
    count: int,
    by: str,
    model: str | Place | None,
    size: float,
    per_slide: int | None,
    candidates: int,
    like: Path | None,
    seed: int,
    mpp: float | None,
    on_error: str,
    icc: bool,
    overwrite: bool,
    device: str | None,
) -> None:
    """Choose fields of SLIDES to annotate.

    Fields lie on tissue; what is unlike most of it, such as pen and bubbles, is left out. Of the
    others some are drawn, or chosen with --by. The files open in QuPath, as annotations of the
    class Region*: annotate all that lies in them, and give the files to 'gsd data import qupath'.
    """
    if model is not None and by != "model":
        raise click.UsageError(f"--model: has no part in --by {by}: add --by model")
    from genselfdiff.files import refuse_existing, refuse_inputs
    from genselfdiff.storage.places import local_paths
    from genselfdiff.suggesting.field_geojson import files_of, write_fields
    from genselfdiff.suggesting.suggest import slides_of, suggest_fields
    from genselfdiff.unknown.known_tissue import KnownTissue

    found = slides_of(slides)
    files = files_of(found, output)
    refuse_inputs(files.values(), local_paths(found))
    for file in files.values():
        refuse_existing(file, overwrite)
    known = None if like is None else KnownTissue.read(like)
    fields = suggest_fields(
        found,
        count,
        by=by,
        model=model,
        size=size,
        per_slide=per_slide,
        candidates=candidates,
        known=known,
        seed=seed,
        mpp=mpp,
        on_error=on_error,
        icc=icc,
        device=device,
        progress=progress(),
    )
    written = write_fields(fields, files, overwrite=overwrite)
    by_model = by == "model"
    titles = f" {'unsure':>7} {'of views':>8}" if by_model else ""
    say(f"{'field':>5} {'x':>8} {'y':>8}{titles}  slide")
    for rank, field in enumerate(fields, start=1):
        numbers = f" {field.uncertainty:7.4f} {field.disagreement:8.4f}" if by_model else ""
        say(f"{rank:5} {field.x:8} {field.y:8}{numbers}  {field.slide.name}")
    say(", ".join(map(str, written)))
