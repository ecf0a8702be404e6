"""``gsd view``: slides and masks in the browser."""

from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import click

from genselfdiff.errors import InputError
from genselfdiff.models.shipped import catalogue
from genselfdiff.segmenting.options import Options
from genselfdiff.storage.places import Place, Url
from gsd.options import (
    FILE,
    FILE_OR_SHIPPED,
    PLACE,
    PLACE_OR_SHIPPED,
    one_device,
    setting_option,
    verbosity,
)
from gsd.output import say

STEPS = 300
"""Of training in the page, that one may wait for."""


@click.command(
    epilog="""\b
Examples:
  gsd view slide.svs mask.tif
  gsd view slide.svs before.tif after.tif
  gsd view slides/ masks/
  gsd view slide.svs --model nuclei                (what is on the screen is predicted)
  gsd view slide.svs mask.tif --model model.ts
  gsd view masks/ --port 8000 --no-browser
  gsd view slide.svs mask.tif --corrections fields/
  gsd view s3://bucket/slides/a.svs a_mask.tif
"""
)
@click.argument("files", nargs=-1, required=True, type=PLACE, metavar="SLIDE [MASK]...")
@click.option(
    "--model",
    "models",
    multiple=True,
    type=PLACE_OR_SHIPPED,
    metavar="MODEL",
    help="Predict what is on the screen, with a model as 'gsd segment' takes it; may be repeated.",
)
@one_device
@click.option(
    "--masks",
    type=FILE,
    metavar="FOLDER",
    help="Where masks go that are begun in the page; default: beside their slides.",
)
@click.option(
    "--init",
    type=FILE_OR_SHIPPED,
    help="What training in the page starts from, as in 'gsd train finetune'; default: the first"
    " --model, if it comes with gsd.",
)
@click.option(
    "--train-config",
    type=FILE,
    metavar="TOML",
    help="Settings of training in the page, as in 'gsd train finetune --config'; default: those of"
    f" that, with {STEPS} steps.",
)
@click.option(
    "--runs",
    type=FILE,
    metavar="FOLDER",
    default=Path("runs"),
    show_default=True,
    help="Where runs go that are begun in the page.",
)
@click.option(
    "--mpp",
    type=click.FloatRange(0, min_open=True),
    help="Resolution of the slides in um/pixel, where their files do not say or are wrong.",
)
@setting_option(Options, "icc", is_flag=True)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Port that the page is served at; default: one that is free.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to serve it at. Any but this one lets others on the network see the slides who"
    " know the page's address.",
)
@click.option(
    "--corrections",
    type=FILE,
    default=Path("corrections"),
    show_default=True,
    help="Folder that keeps what is drawn; made when something is.",
)
@click.option("--browser/--no-browser", default=True, help="Open the page; default: yes.")
@verbosity
def view(
    files: tuple[Place, ...],
    models: tuple[str | Url, ...],
    device: str | None,
    masks: Path | None,
    init: str | None,
    train_config: Path | None,
    runs: Path,
    mpp: float | None,
    icc: bool,
    port: int,
    host: str,
    corrections: Path,
    browser: bool,
) -> None:
    """Show slides in the browser, with their masks over them.

    SLIDE and MASK are files, or folders of them. A mask of 'gsd segment' finds its slide among
    those that are named, by the table in its folder, or beside it; a mask of another program
    belongs to the slide before it. Files of probabilities are shown too. The page's address is
    printed, and Ctrl-C ends the server.

    What is drawn in the page is kept in a folder at once. 'gsd data corrections' makes images and
    masks of it, as the page does.
    """
    try:
        from genselfdiff.viewer.serving import serve
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("starlette", "uvicorn"):
            raise
        raise InputError(
            f"the page needs the package {missing}: pip install 'genselfdiff[view]'"
        ) from error
    from genselfdiff.viewer.collection import collect
    from genselfdiff.viewer.corrections.part import corrections_part
    from genselfdiff.viewer.library import Library

    library = Library(collect(files), mpp, icc)
    if len(library.entries) == 1:
        library.open(0)  # what is wrong with it is told here

    def announce(address: str) -> None:
        say(address)
        say(f"what is drawn is kept in {corrections}")

    with ExitStack() as stack:
        parts, predicted = [], None
        if models:
            from genselfdiff.live.jobs.job import Jobs
            from genselfdiff.live.jobs.jobs_part import jobs_part
            from genselfdiff.live.jobs.segmenting import Segmenting
            from genselfdiff.live.jobs.training import Training, TrainingPlan
            from genselfdiff.live.live_mask import LiveMask
            from genselfdiff.live.live_part import live_part
            from genselfdiff.live.predictions import Predictions, address_of

            addresses = [address_of(model) for model in models]
            slides = [entry.slide for entry in library.entries]
            options = {"mpp": mpp, "icc": icc, "device": device, "on_error": "blank"}
            jobs = stack.enter_context(closing(Jobs()))  # which take longer to end
            predictions = stack.enter_context(closing(Predictions(slides, addresses, options)))
            on_device = [] if device is None else [f"--device={device}"]
            words = on_device + ([] if mpp is None else [f"--mpp={mpp}"]) + ["--icc"] * icc
            segmenting = Segmenting(library, predictions.models, masks, words, jobs)
            start, training = init or catalogue.name_of(addresses[0]), None
            if start is not None:
                told = f"--steps={STEPS}" if train_config is None else f"--config={train_config}"
                plan = TrainingPlan(corrections, runs, start, (told, *on_device))
                training = Training(plan, predictions, jobs)
            parts += [live_part(library, predictions), jobs_part(segmenting, training)]
            predicted = partial(LiveMask, library, predictions)
        parts.insert(0, corrections_part(library, corrections, predicted))
        serve(library, parts, host=host, port=port, browser=browser, announce=announce)
