"""The ``gsd`` command: groups, logging, and errors as one line."""

import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click
from click.exceptions import NoSuchCommand

from genselfdiff.errors import GsdError, outside_cause
from genselfdiff.text import shown
from genselfdiff.version import __version__
from gsd.output import complain, log_to_stderr, open_streams, report

# Before torch is loaded: a thread of GCC's OpenMP spins while it waits for the others, and where
# the system has put two of them on one core, each takes the other's time: training was seen to
# take twenty times as long. A thirtieth of the default is as fast where they are apart.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

COMMANDS = {
    "data": "Import labels, look through them, cut slides into tiles.",
    "train": "Train a network: stage 1 (pretrain) and stage 2 (finetune).",
    "export": "Turn a finished stage-2 run into one model file.",
    "push": "Write a model as a folder to pass on, or to the Hugging Face Hub.",
    "pull": "Make a model file of such a folder, here or on the Hub.",
    "wrap": "Make a model file of a network of your own.",
    "segment": "Segment slides into masks of class indices.",
    "merge": "Make masks of the parts that several processes have left.",
    "unknown": "Map where a slide is unlike known tissue.",
    "suggest": "Choose fields of slides to annotate.",
    "view": "Show slides and masks in the browser.",
    "objects": "Turn a mask into polygons for QuPath.",
    "evaluate": "Scores of a model on labelled images: Dice, HD95, AJI, PQ, ...",
    "compare": "Runs or evaluations side by side.",
    "sample": "Draw images with a stage-1 network.",
    "models": "Models that come with gsd, and their cards.",
    "info": "Versions, processor, native kernels and GPUs.",
    "doctor": "What is wrong with machine, storage, model, slide or cluster.",
}

_FOLDERS = {
    "choosing": ("suggest", "unknown"),
    "models": ("export", "push", "pull", "wrap", "models"),
}
"""Of ``commands/``, which has the files of all other commands itself."""


class Gsd(click.Group):
    """Imports a command when it is asked for, and prints our errors without a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order a user needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command ``cmd_name``."""
        if cmd_name not in COMMANDS:
            return None
        folders = [folder for folder, names in _FOLDERS.items() if cmd_name in names]
        module = importlib.import_module(".".join(("gsd.commands", *folders, cmd_name)))
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is named; where there is none, tell what is named alike."""
        try:
            return super().resolve_command(ctx, args)
        except NoSuchCommand as error:
            names = self.list_commands(ctx)
            raise NoSuchCommand(error.command_name, possibilities=names, ctx=ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(self, *args: Any, **extra: Any) -> Any:
        """Parse and run, with streams that can be written."""
        open_streams()
        return super().main(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; print errors that are meant for the user as one line."""
        try:
            with _sigterm_interrupts():
                return super().invoke(ctx)
        except GsdError as error:
            report(error)
            sys.exit(1)
        except click.ClickException as error:
            error.message = shown(error.message)  # type: ignore[misc]  # it quotes names
            raise
        except KeyboardInterrupt as stop:
            complain("Stopped.")
            _leave(143 if isinstance(stop, _Terminated) else 130)
        except (OSError, MemoryError, RuntimeError) as error:
            cause = outside_cause(error)
            if cause is None or isinstance(error, BrokenPipeError):
                raise
            failure = GsdError(cause)
            failure.__cause__ = error
            report(failure)
            _leave(1)


def _leave(status: int) -> NoReturn:
    """Exit; at once where threads still compute what nobody waits for."""
    unawaited = ("gsd-fetch", "gsd-model", "gsd-view")
    if any(thread.name.startswith(unawaited) for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


class _Terminated(KeyboardInterrupt):
    """SIGTERM came."""


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does: it tidies up and leaves no half-written file."""

    def interrupt(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one must not interrupt the tidying
        raise _Terminated

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@click.group(
    cls=Gsd,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Nuclei of a slide, with the model that comes with gsd:
  gsd segment slide.svs -o mask.tif --overlay
\b
From your own slides and labels to a mask:
  gsd train pretrain slides/ --mpp 0.5 --out run1
  gsd train finetune --images fields/ --masks masks/ --mpp 0.5 --init run1 --out run2
  gsd export run2 -o model.ts
  gsd segment slide.svs -o mask.tif --model model.ts --overlay
""",
)
@click.version_option(__version__, prog_name="gsd")
def main() -> None:
    """Turn unlabelled H&E histology into a working segmenter."""
    log_to_stderr()
