"""``gsd train pretrain`` and ``gsd train finetune``."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from genselfdiff.choices import (
    ARCHITECTURES,
    AUGMENTATIONS,
    DECAYS,
    DEFAULT_ARCHITECTURE,
    FRESH_WEIGHTS,
    INPUT_SCALINGS,
    LARGEST_TILE,
    LOSS_FORMS,
    ON_ERROR,
    PRECISIONS,
    SCHEDULES,
)
from genselfdiff.training.config import FinetuneConfig, PretrainConfig, RunConfig
from gsd.options import FILE, FILE_OR_SHIPPED, Command, progress, verbosity
from gsd.output import RANK, say
from gsd.settings import Fold, Names, NamesOrPattern, settings_sources, without_contradicted

Config = TypeVar("Config", PretrainConfig, FinetuneConfig)

RESUMED_WITH = ("device", "workers", "tensorboard", "on_error", "steps")


@click.group()
def train() -> None:
    """Train a network: first on unlabelled tiles, then on a few labelled images."""


def common_options(defaults: RunConfig) -> Callable[[Command], Command]:
    """The options of both stages."""

    def setting(name: str, text: str = "", **details: Any) -> Callable[[Command], Command]:
        """An option whose default is that of the settings."""
        default = getattr(defaults, name)
        details.setdefault("type", type(default))
        option = "--" + name.replace("_", "-")
        return click.option(option, default=default, show_default=True, help=text, **details)

    options = [
        click.option("--out", type=FILE, help="Run folder to write."),
        click.option(
            "--resume",
            is_flag=True,
            help="Go on with the run in --out, with its own settings; --device, --workers, "
            "--tensorboard, --on-error and --steps (a longer run) may differ.",
        ),
        click.option(
            "--dry-run",
            is_flag=True,
            help="Take a few real steps, say what the run would take, and write nothing.",
        ),
        settings_sources,
        click.option(
            "--architecture",
            type=click.Choice(list(ARCHITECTURES)),
            help="; ".join(f"{name}: {what}" for name, what in ARCHITECTURES.items())
            + f". Default: that of --init, else {DEFAULT_ARCHITECTURE}.",
        ),
        click.option("--width", type=int, help="Channels of the first level, a multiple of 8."),
        setting(
            "fresh_weights",
            "What --init does not give; normal: as in the authors' code.",
            type=click.Choice(FRESH_WEIGHTS),
        ),
        setting(
            "tile_size",
            f"Side of the training tiles in pixels, a multiple of 8 up to {LARGEST_TILE}.",
        ),
        setting("batch_size", "Tiles an optimiser step, those of all processes together."),
        setting(
            "accumulate",
            "Parts in which a batch is computed, one after the other, to save memory; the "
            "multi-loss of stage 2 then takes its sums over each part alone.",
        ),
        setting("steps", "Optimiser steps of the whole run."),
        setting("learning_rate", "At its highest."),
        setting("warm_up", "Share of the steps over which the learning rate rises."),
        setting(
            "decay",
            "cosine: the learning rate falls to zero afterwards; none: it stays.",
            type=click.Choice(DECAYS),
        ),
        setting("beta1", "Of Adam."),
        setting("clip_norm", "Norm that gradients are scaled down to; 0: never."),
        setting(
            "ema",
            "Decay of the moving average of the weights, which is validated and exported; 0: none.",
        ),
        setting("seed"),
        setting("log_every", "Steps between lines of metrics.jsonl."),
        setting("validate_every", "Steps between validations; each leaves a checkpoint."),
        setting("keep_every", "Steps between checkpoints that stay; 0: the latest and the best."),
        setting(
            "precision",
            "auto: bfloat16 where the processor computes it.",
            type=click.Choice(PRECISIONS),
        ),
        click.option("--device", help="cpu, cuda, cuda:N or mps; default: the best there is."),
        setting(
            "workers",
            "Processes that prepare tiles beside each training process; default: none on a CPU, up "
            "to 4 for a GPU.",
            type=int,
        ),
        click.option("--tensorboard/--no-tensorboard", help="Write events for TensorBoard too."),
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
  gsd train pretrain slides/ --mpp 0.5 --dry-run
  gsd train pretrain tiles/ extra.svs --mpp 0.5 --image-mpp 0.25 --out run1 --steps 5000
  gsd train pretrain --config study.toml --seed 2 --out run2
  gsd train pretrain --out run1 --resume
  torchrun --nproc-per-node 4 -m gsd train pretrain slides/ --mpp 0.5 --out run1
"""
)
@click.argument("data", nargs=-1, type=FILE, metavar="DATA...")
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
    help="Steps between sample pictures, drawn at the next validation; 0: none.",
)
@click.option(
    "--init",
    default=PretrainConfig.init,
    show_default=True,
    help="Run folder or checkpoint of stage 1, or a .pth of the authors' code, to start from.",
)
@click.option("--timesteps", type=int, default=PretrainConfig.timesteps, show_default=True)
@click.option(
    "--p2-k", type=float, default=PretrainConfig.p2_k, show_default=True, help="Of P2 weighting."
)
@click.option(
    "--p2-gamma",
    type=float,
    default=PretrainConfig.p2_gamma,
    show_default=True,
    help="Of P2 weighting; 0 weights all time steps alike.",
)
@click.option(
    "--validation-tiles", type=int, default=PretrainConfig.validation_tiles, show_default=True
)
@click.option(
    "--on-error",
    type=click.Choice(ON_ERROR),
    default=PretrainConfig.on_error,
    show_default=True,
    help="What a damaged tile of a slide does: end with an error, or count as glass.",
)
def pretrain(
    data: tuple[Path, ...], out: Path | None, resume: bool, dry_run: bool, **options: Any
) -> None:
    """Stage 1: learn from unlabelled tiles by predicting the noise added to them.

    DATA are folders, images (PNG, JPEG, TIFF) and slides (SVS, OME-TIFF, pyramidal TIFF); random
    tiles are drawn from their tissue.
    """
    if resume:
        config = _resumed(PretrainConfig, out)
    else:
        if not data:
            raise click.UsageError("Missing argument 'DATA...'.")
        options = without_contradicted(options)
        config = PretrainConfig(data=tuple(str(path) for path in data), **options)
    _run(config, out, resume, dry_run)


@train.command(
    epilog="""\b
Examples:
  gsd train finetune --images fields/ --masks masks/ --mpp 0.5 --init run1 --out run2
  gsd train finetune --images fields/ --masks instances/ --foreground --instances --mpp 0.25 \\
      --init nuclei --out run2
  gsd train finetune --images tif/ --masks instances/ --foreground --mpp 0.25 \\
      --resample-to 0.5 --val 'TCGA-A7-*' --init run1 --out run2
  gsd train finetune --images fields/ --masks masks/ --mpp 0.5 --group 'TCGA-..-....' \\
      --fold 1/5 --init run1 --out fold1
  gsd train finetune --config run2/config.toml --seed 2 --out run3
  gsd train finetune --out run2 --resume
  torchrun --nproc-per-node 4 -m gsd train finetune --sync-loss --config study.toml --out run2
"""
)
@common_options(FinetuneConfig())
@click.option("--images", type=FILE, help="Folder of labelled images.")
@click.option(
    "--masks",
    type=FILE,
    help="Folder of integer masks with the same file names, suffix aside.",
)
@click.option(
    "--init",
    type=FILE_OR_SHIPPED,
    help="What to start from: a name of 'gsd models', a run folder or checkpoint of an earlier "
    "run, a .pth of the authors' code, or none to train from scratch.",
)
@click.option(
    "--classes",
    type=Names(),
    help="Names of the classes, comma-separated, background first; names with commas in double"
    " quotes.",
)
@click.option("--foreground/--no-foreground", help="Read every non-zero mask value as class 1.")
@click.option(
    "--instances/--no-instances",
    help="With --foreground: mask values are numbers of objects, and the network learns to tell"
    " apart those that touch.",
)
@click.option(
    "--ignore-label", type=int, help="Mask value that counts neither in the loss nor in the scores."
)
@click.option(
    "--val",
    type=NamesOrPattern(),
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
    type=Fold(),
    help="Of N parts of the images the K-th validates: N runs, with the same --seed, see them all.",
)
@click.option(
    "--train-images",
    type=int,
    help="Train on so many of the images only, to learn what more labels bring; the fewer are "
    "among the more.",
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
    "of the model of 'gsd models' that --init names, else of the images, which must be that of "
    "stage 1.",
)
@click.option(
    "--augmentation",
    type=click.Choice(AUGMENTATIONS),
    default=FinetuneConfig.augmentation,
    show_default=True,
)
@click.option(
    "--loss-form",
    type=click.Choice(LOSS_FORMS),
    default=FinetuneConfig.loss_form,
    show_default=True,
    help="scalar: as in the authors' code; pixel: the published equation.",
)
@click.option(
    "--sync-loss/--no-sync-loss",
    help="With several processes: the multi-loss takes its sums over all their tiles, as one "
    "process with the same --batch-size would; else each normalises alone.",
)
@click.option(
    "--input-scaling",
    type=click.Choice(list(INPUT_SCALINGS)),
    default=FinetuneConfig.input_scaling,
    show_default=True,
    help="minus_one_one: as in stage 1; zero_one: as in the authors' code.",
)
def finetune(
    out: Path | None,
    resume: bool,
    dry_run: bool,
    images: Path | None,
    masks: Path | None,
    init: str | None,
    classes: tuple[str, ...] | None,
    **options: Any,
) -> None:
    """Stage 2: learn classes from a few labelled images."""
    if resume:
        config = _resumed(FinetuneConfig, out)
    else:
        needed = {"--images": images, "--masks": masks, "--init": init}
        missing = [name for name, value in needed.items() if value is None]
        if missing:
            raise click.UsageError(
                f"missing: {', '.join(missing)}"
                + (" (--init none trains from scratch)" if init is None else "")
            )
        options = without_contradicted(options)
        config = FinetuneConfig(
            images=str(images), masks=str(masks), init=str(init), classes=classes or (), **options
        )
    _run(config, out, resume, dry_run)


def _run(config: Config, out: Path | None, resume: bool, dry_run: bool) -> None:
    if out is None and not dry_run:
        raise click.UsageError("Missing option '--out'.")
    from genselfdiff.inference.device import keep_freed_memory
    from genselfdiff.training import runs

    keep_freed_memory()
    if out is None or dry_run:
        estimate = runs.estimate(config)
        if RANK == 0:
            say(estimate.summary())
    elif isinstance(config, PretrainConfig):
        runs.pretrain(config, out, resume=resume, progress=progress())
    else:
        runs.finetune(config, out, resume=resume, progress=progress())


def _resumed(kind: type[Config], out: Path | None) -> Config:
    """The settings of the run in ``out``; of others only what a run may go on with."""
    if out is None:
        raise click.UsageError("--resume needs the run's folder: --out")
    ctx = click.get_current_context()
    if ctx.params.get("dry_run"):
        raise click.UsageError("--dry-run is for runs that have not begun: leave out --resume")
    given: dict[str, Any] = {
        parameter.name: ctx.params.get(parameter.name)
        for parameter in ctx.command.params
        if parameter.name is not None
        and ctx.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
        and ctx.params.get(parameter.name) != ()
    }
    free = {name: given.pop(name) for name in RESUMED_WITH if name in given}
    for name in given.keys() - {"out", "resume", "dry_run", "verbose", "quiet"}:
        option = "DATA" if name == "data" else "--" + name.replace("_", "-")
        raise click.UsageError(f"--resume takes its settings from {out}: leave out {option}")
    from genselfdiff.training.run_folder import RunFolder

    return replace(kind.read(RunFolder(out).config), **free)
