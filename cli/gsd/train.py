"""``gsd train pretrain`` and ``gsd train finetune``."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from genselfdiff.data.augment import POLICIES
from genselfdiff.diffusion import SCHEDULES
from genselfdiff.inference.device import keep_freed_memory
from genselfdiff.inference.predictor import PRECISIONS
from genselfdiff.kernels.multi_loss.reference import FORMS
from genselfdiff.models import ARCHITECTURES, DEFAULT_ARCHITECTURE
from genselfdiff.training import FinetuneConfig, PretrainConfig
from genselfdiff.training import finetune as run_finetune
from genselfdiff.training import pretrain as run_pretrain
from genselfdiff.training.config import RunConfig
from genselfdiff.training.run_folder import RunFolder
from gsd.options import Command, progress, verbosity

Config = TypeVar("Config", bound=RunConfig)


@click.group()
def train() -> None:
    """Train a network: first on unlabelled tiles, then on a few labelled images."""
    keep_freed_memory()


def common_options(defaults: RunConfig) -> Callable[[Command], Command]:
    """The options of both stages."""
    options = [
        click.option(
            "--out", required=True, type=click.Path(path_type=Path), help="Run folder to write."
        ),
        click.option(
            "--resume",
            is_flag=True,
            help="Go on with the run in --out, with its own settings; --device and --workers may "
            "differ.",
        ),
        click.option(
            "--architecture",
            type=click.Choice(list(ARCHITECTURES)),
            help="; ".join(f"{k}: {v.description}" for k, v in ARCHITECTURES.items())
            + f". Default: that of stage 1, else {DEFAULT_ARCHITECTURE}.",
        ),
        click.option("--width", type=int, help="Channels of the first level, a multiple of 8."),
        click.option(
            "--tile-size",
            type=int,
            default=defaults.tile_size,
            show_default=True,
            help="Side of the training tiles in pixels, a multiple of 8.",
        ),
        click.option("--batch-size", type=int, default=defaults.batch_size, show_default=True),
        click.option(
            "--steps",
            type=int,
            default=defaults.steps,
            show_default=True,
            help="Optimiser steps of the whole run.",
        ),
        click.option(
            "--learning-rate", type=float, default=defaults.learning_rate, show_default=True
        ),
        click.option("--seed", type=int, default=defaults.seed, show_default=True),
        click.option(
            "--validate-every",
            type=int,
            default=defaults.validate_every,
            show_default=True,
            help="Steps between validations; each leaves a checkpoint.",
        ),
        click.option(
            "--precision",
            type=click.Choice(PRECISIONS),
            default=defaults.precision,
            show_default=True,
            help="auto: bfloat16 where the processor computes it.",
        ),
        click.option("--device", help="cpu, cuda, cuda:N or mps; default: the best there is."),
        click.option(
            "--workers",
            type=int,
            default=defaults.workers,
            show_default=True,
            help="Processes that prepare tiles.",
        ),
    ]

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return verbosity(command)

    return decorate


@train.command(
    epilog="""\b
Examples:
  gsd train pretrain slides/ --mpp 0.5 --out run1
  gsd train pretrain tiles/ extra.svs --mpp 0.5 --image-mpp 0.25 --out run1 --steps 5000
  gsd train pretrain --out run1 --resume
"""
)
@click.argument("data", nargs=-1, type=click.Path(path_type=Path), metavar="DATA...")
@common_options(PretrainConfig())
@click.option(
    "--mpp",
    type=float,
    help="Resolution to train at, in um/px; 0.5 suits 20x. Slides and images are resampled to it.",
)
@click.option(
    "--image-mpp",
    type=float,
    help="Resolution of the images whose files do not tell it, in um/px; the file's own wins.",
)
@click.option(
    "--schedule",
    type=click.Choice(SCHEDULES),
    default=PretrainConfig.schedule,
    show_default=True,
    help="Noise schedule.",
)
@click.option(
    "--sample-every",
    type=int,
    default=PretrainConfig.sample_every,
    show_default=True,
    help="Steps between sample pictures; 0: none.",
)
def pretrain(data: tuple[Path, ...], out: Path, resume: bool, **options: Any) -> None:
    """Stage 1: learn from unlabelled tiles by predicting the noise added to them.

    DATA are folders, images (PNG, JPEG, TIFF) and slides (SVS, OME-TIFF, pyramidal TIFF); random
    tiles are drawn from their tissue.
    """
    if resume:
        config = _resumed(PretrainConfig, out)
    else:
        if not data:
            raise click.UsageError("Missing argument 'DATA...'.")
        config = PretrainConfig(data=tuple(str(path) for path in data), **options)
    run_pretrain(config, out, resume=resume, progress=progress())


def _fold(
    ctx: click.Context, parameter: click.Parameter, given: str | None
) -> tuple[int, int] | None:
    if given is None:
        return None
    found = re.fullmatch(r"(\d+)/(\d+)", given)
    if found is None:
        raise click.BadParameter(f"{given!r} is not K/N, such as 1/5")
    return int(found[1]), int(found[2])


@train.command(
    epilog="""\b
Examples:
  gsd train finetune --images fields/ --masks masks/ --mpp 0.5 --init run1 --out run2
  gsd train finetune --images tif/ --masks instances/ --foreground --mpp 0.25 \\
      --resample-to 0.5 --val 'TCGA-A7-*' --init run1 --out run2
  gsd train finetune --images fields/ --masks masks/ --mpp 0.5 --group 'TCGA-..-....' \\
      --fold 1/5 --init run1 --out fold1
  gsd train finetune --out run2 --resume
"""
)
@common_options(FinetuneConfig())
@click.option("--images", type=click.Path(path_type=Path), help="Folder of labelled images.")
@click.option(
    "--masks",
    type=click.Path(path_type=Path),
    help="Folder of integer masks with the same file names, suffix aside.",
)
@click.option(
    "--init",
    help="Run folder of stage 1, a .pth of the authors' code, or none to train from scratch.",
)
@click.option("--classes", help="Names of the classes, comma-separated, background first.")
@click.option("--foreground", is_flag=True, help="Read every non-zero mask value as class 1.")
@click.option(
    "--ignore-label", type=int, help="Mask value that counts neither in the loss nor in the scores."
)
@click.option(
    "--val",
    help="Validation images: names, groups or patterns, comma-separated, or a file with one a "
    "line; default: a fifth of the images.",
)
@click.option(
    "--group",
    help="What says which images are of one patient or slide, and go to one side together: a "
    "regular expression for the beginning of their names, or a .csv with the columns name, group.",
)
@click.option(
    "--fold",
    callback=_fold,
    metavar="K/N",
    help="Of N parts of the images the K-th validates: N runs, with the same --seed, see them all.",
)
@click.option(
    "--mpp",
    type=float,
    help="Resolution of the labelled images in um/px, where their files do not tell it; an error "
    "where they tell another.",
)
@click.option(
    "--resample-to",
    type=float,
    help="Resolution to train at, in um/px: images and masks are resampled to it. Default: that "
    "of the images, which must be that of stage 1.",
)
@click.option(
    "--augmentation",
    type=click.Choice(list(POLICIES)),
    default=FinetuneConfig.augmentation,
    show_default=True,
)
@click.option(
    "--loss-form",
    type=click.Choice(FORMS),
    default=FinetuneConfig.loss_form,
    show_default=True,
    help="scalar: as in the authors' code; pixel: the published equation.",
)
def finetune(
    out: Path,
    resume: bool,
    images: Path | None,
    masks: Path | None,
    init: str | None,
    classes: str | None,
    mpp: float | None,
    resample_to: float | None,
    **options: Any,
) -> None:
    """Stage 2: learn classes from a few labelled images."""
    if resume:
        config = _resumed(FinetuneConfig, out)
    else:
        if images is None or masks is None or init is None:
            raise click.UsageError("--images, --masks and --init are needed (--init none: scratch)")
        names = tuple(name.strip() for name in classes.split(",")) if classes else ()
        config = FinetuneConfig(
            images=str(images),
            masks=str(masks),
            init=init,
            classes=names,
            image_mpp=mpp,
            mpp=resample_to,
            **options,
        )
    run_finetune(config, out, resume=resume, progress=progress())


def _resumed(kind: type[Config], out: Path) -> Config:
    """The settings of the run in ``out``; of others only what the result does not depend on."""
    ctx = click.get_current_context()
    given = {
        name: value
        for name, value in ctx.params.items()
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE and value != ()
    }
    free = {name: given.pop(name) for name in ("device", "workers") if name in given}
    for name in given.keys() - {"out", "resume"}:
        option = "DATA" if name == "data" else "--" + name.replace("_", "-")
        raise click.UsageError(f"--resume takes its settings from {out}: leave out {option}")
    return replace(kind.read(RunFolder(out).config), **free)
