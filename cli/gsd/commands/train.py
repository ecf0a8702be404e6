"""``gsd train pretrain`` and ``gsd train finetune``."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from genselfdiff.training.settings.run_config import NO_INIT, RunConfig
from genselfdiff.training.settings.stage_configs import FinetuneConfig, PretrainConfig
from gsd.options import FILE, FILE_OR_SHIPPED, Command, progress, setting_option, verbosity
from gsd.output import RANK, say
from gsd.settings import Fold, Names, NamesOrPattern, settings_sources, without_contradicted

Config = TypeVar("Config", PretrainConfig, FinetuneConfig)

RESUMED_WITH = ("device", "workers", "tensorboard", "on_error", "steps")


@click.group()
def train() -> None:
    """Train a network: first on unlabelled tiles, then on a few labelled images."""


def common_options(kind: type[RunConfig]) -> Callable[[Command], Command]:
    """The options of both stages."""
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
        *(setting_option(kind, part.name) for part in fields(RunConfig) if part.name != "init"),
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
@common_options(PretrainConfig)
@setting_option(PretrainConfig, "mpp")
@setting_option(PretrainConfig, "image_mpp")
@setting_option(PretrainConfig, "schedule")
@setting_option(PretrainConfig, "sample_every")
@setting_option(PretrainConfig, "init")
@setting_option(PretrainConfig, "timesteps")
@setting_option(PretrainConfig, "p2_k")
@setting_option(PretrainConfig, "p2_gamma")
@setting_option(PretrainConfig, "validation_tiles")
@setting_option(PretrainConfig, "on_error")
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
  gsd train finetune corrections/ --init nuclei --instances --steps 300 --out run2
  gsd train finetune --images fields/ --masks masks/ --mpp 0.5 --init run1 --out run2
  gsd train finetune --images fields/ --masks instances/ --foreground --instances --mpp 0.25 \\
      --init nuclei --steps 300 --out run2
  gsd train finetune --images tif/ --masks instances/ --foreground --mpp 0.25 \\
      --resample-to 0.5 --val 'TCGA-A7-*' --init run1 --out run2
  gsd train finetune --images fields/ --masks masks/ --mpp 0.5 --group 'TCGA-..-....' \\
      --fold 1/5 --init run1 --out fold1
  gsd train finetune corrections/ --encoder uni2-h/ --tile-size 256 --out run2
  gsd train finetune --config run2/config.toml --seed 2 --out run3
  gsd train finetune --out run2 --resume
  torchrun --nproc-per-node 4 -m gsd train finetune --sync-loss --config study.toml --out run2
"""
)
@click.argument("folder", required=False, type=FILE)
@common_options(FinetuneConfig)
@setting_option(FinetuneConfig, "images", type=FILE, default=None)
@setting_option(FinetuneConfig, "masks", type=FILE, default=None)
@setting_option(FinetuneConfig, "init", type=FILE_OR_SHIPPED, default=None)
@setting_option(FinetuneConfig, "encoder", type=FILE, default=None)
@setting_option(FinetuneConfig, "start_share")
@setting_option(FinetuneConfig, "init_layers")
@setting_option(FinetuneConfig, "classes", type=Names(), default=None)
@setting_option(FinetuneConfig, "foreground")
@setting_option(FinetuneConfig, "instances")
@setting_option(FinetuneConfig, "ignore_label")
@setting_option(FinetuneConfig, "val", type=NamesOrPattern())
@setting_option(FinetuneConfig, "group")
@setting_option(FinetuneConfig, "fold", type=Fold())
@setting_option(FinetuneConfig, "train_images")
@setting_option(FinetuneConfig, "mpp")
@setting_option(FinetuneConfig, "resample_to")
@setting_option(FinetuneConfig, "augmentation")
@setting_option(FinetuneConfig, "loss")
@setting_option(FinetuneConfig, "loss_form")
@setting_option(FinetuneConfig, "sync_loss")
@setting_option(FinetuneConfig, "input_scaling")
def finetune(
    folder: Path | None, out: Path | None, resume: bool, dry_run: bool, **options: Any
) -> None:
    """Stage 2: learn classes from a few labelled images.

    FOLDER is one that 'gsd data import' or the page of 'gsd view' has written. It says where images
    and masks are, the names of the classes, and that 255 is not labelled; with --instances its
    numbers of objects are taken. Or name --images and --masks. --init takes folders of 'gsd push'
    as well.
    """
    if resume:
        config = _resumed(FinetuneConfig, out)
    else:
        options = without_contradicted({"folder": folder, **options})
        del options["folder"]
        if folder is not None:
            _take_folder(folder, options)
        if options["encoder"] is not None:
            options["encoder"] = str(options["encoder"])
            options["init"] = options["init"] or NO_INIT
        needed = ("images", "masks", "init")
        missing = [f"--{name}" for name in needed if options[name] is None]
        if missing:
            raise click.UsageError(
                f"missing: {', '.join(missing)}"
                + (" (--init none trains from scratch)" if "--init" in missing else "")
            )
        options |= {name: str(options[name]) for name in needed}
        config = FinetuneConfig(**options | {"classes": options["classes"] or ()})
    _run(config, out, resume, dry_run)


def _take_folder(folder: Path, options: dict[str, Any]) -> None:
    """Add what ``folder`` says to ``options``, but for what the command line says."""
    if options["images"] is not None or options["masks"] is not None:
        raise click.UsageError("name FOLDER, or --images and --masks")
    from genselfdiff.data.folder_settings import folder_settings

    told = folder_settings(folder, instances=options["instances"])
    options |= {name: value for name, value in told.items() if not options[name]}


def _run(config: Config, out: Path | None, resume: bool, dry_run: bool) -> None:
    if out is None and not dry_run:
        raise click.UsageError("Missing option '--out'.")
    from genselfdiff.machine import keep_freed_memory
    from genselfdiff.training import runs

    keep_freed_memory()
    if out is None or dry_run:
        estimate = runs.estimate(config, progress=progress() if RANK == 0 else False)
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
    typed: dict[str, Any] = {
        parameter.name: ctx.params.get(parameter.name)
        for parameter in ctx.command.params
        if parameter.name is not None
        and ctx.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
        and ctx.params.get(parameter.name) != ()
    }
    free = {name: typed.pop(name) for name in RESUMED_WITH if name in typed}
    for name in typed.keys() - {"out", "resume", "dry_run", "verbose", "quiet"}:
        is_argument = name in ("data", "folder")
        option = name.upper() if is_argument else "--" + name.replace("_", "-")
        raise click.UsageError(f"--resume takes its settings from {out}: leave out {option}")
    from genselfdiff.training.run_folder import RunFolder

    return replace(kind.read(RunFolder(out).config), **free)
