"""A run on disk: settings, checkpoints, metrics and pictures, all in one folder."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from genselfdiff.errors import InputError, ModelError, OutputError
from genselfdiff.files import atomic_file, write_text, writing
from genselfdiff.input_files import parse_json
from genselfdiff.settings import require_types
from genselfdiff.training.loop.averaging import WeightAverage
from genselfdiff.training.metrics_file import METRICS, read_metrics
from genselfdiff.training.settings.run_config import CONFIG
from genselfdiff.working_files import lock, open_own, remove_abandoned

CHECKPOINT_FORMAT = "2"
WEIGHTS = "network."
AVERAGE = "average."
START = "start."
OPTIMISER = "optimiser."

_UNFINISHED = ".gsd-unfinished"
"""Folder in which a checkpoint grows: safetensors writes under names that are not ours to choose,
and what a kill leaves of them has to be known from files of the user's."""


@dataclass(frozen=True)
class RunState:
    """What a checkpoint tells beside tensors, as JSON in the file's header.

    Attributes:
        step: optimiser steps taken.
        best: the best validation score so far, or None.
        losses, norms: of the steps since the last line of the metrics.
        first_loss: largest loss of the first steps, or None.
        made_with: version of torch, device, precision, numbers of threads and processes: with
            others, results differ by rounding.

    Raises:
        InputError: not of these types, or no finite numbers.
    """

    step: int
    best: float | None = None
    losses: tuple[float, ...] = ()
    norms: tuple[float, ...] = ()
    first_loss: float | None = None
    made_with: str = ""

    def __post_init__(self) -> None:
        require_types(self)
        if self.step < 0:
            raise InputError(f"step must be at least 0, not {self.step}")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        weights: the network's state dict; the averaged one, where an average is kept, in all but
            ``latest``.
        average: averaged parameters by name, in ``latest`` only.
        start: parameters that the run began with, in ``latest`` of a run that keeps a share of
            them.
        optimiser: state of the optimiser by parameter number, in ``latest`` only.
        state: how far the run was.
    """

    weights: dict[str, torch.Tensor]
    average: dict[str, torch.Tensor]
    start: dict[str, torch.Tensor]
    optimiser: dict[int, dict[str, torch.Tensor]]
    state: RunState


_locked: set[BinaryIO] = set()
"""What keeps other processes from the folders that this one trains in."""


def _unlock_in_child() -> None:
    """Close what a forked process has inherited: it would keep the folder when this one is killed.

    A process that loads data notices only after seconds that nobody waits for it any more.
    """
    for mark in _locked:
        mark.close()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_unlock_in_child)


class RunFolder:
    """Paths and files of one run.

    ``latest.safetensors`` has all that is needed to go on, ``best.safetensors`` the weights with
    the best validation score, and ``checkpoints/`` those that were asked to stay. Each is one file,
    tensors and state together, and is replaced in one step: a killed run leaves a whole one.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / CONFIG
        self.latest = self.path / "latest.safetensors"
        self.best = self.path / "best.safetensors"
        self.metrics = self.path / METRICS
        self.curves = self.path / "curves.png"
        self.checkpoints = self.path / "checkpoints"
        self.samples = self.path / "samples"
        self.fields = self.path / "fields"
        self.tensorboard = self.path / "tensorboard"

    def files(self) -> list[Path]:
        """What training has written there, which is no output of another command."""
        parts = (self.checkpoints, self.samples, self.fields, self.tensorboard)
        inner = [path for folder in parts if folder.is_dir() for path in folder.iterdir()]
        return [self.config, self.latest, self.best, self.metrics, self.curves, *inner]

    def require_absent(self) -> None:
        """Raise OutputError where the path exists and is not an empty folder.

        Hidden files do not count: a run that was killed before it began leaves no others.
        """
        if self.path.is_dir():
            taken = any(not path.name.startswith(".") for path in self.path.iterdir())
        else:
            taken = self.path.exists()
        if taken:
            way_out = ", or --resume to go on" if self.config.exists() else ""
            raise OutputError(f"{self.path}: exists already: choose another --out{way_out}")

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Make the folder, and keep other processes from training in it during the block.

        Raises:
            OutputError: it cannot be made, or another process is training in it.
        """
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            mark = open_own(self.path / ".lock", create=True)
        with mark:
            # Where there are no locks, on some network file systems, the user has to take care.
            if lock(mark.fileno()) is False:
                raise OutputError(
                    f"{self.path}: another process is training in it: wait for that, or choose"
                    " another --out"
                )
            _locked.add(mark)
            try:
                with writing(self.path):
                    self._remove_unfinished()
                yield
            finally:
                _locked.discard(mark)

    def _remove_unfinished(self) -> None:
        """Remove what a killed process was writing."""
        for folder in (self.path, self.samples, self.fields, self.checkpoints):
            remove_abandoned(folder)
            if os.path.lexists(folder / _UNFINISHED):
                shutil.rmtree(folder / _UNFINISHED)

    def picture(self, folder: Path, name: str) -> Path:
        """Where to save a picture in ``samples`` or ``fields``; makes the folder.

        Raises:
            OutputError: the folder cannot be made.
        """
        with writing(folder):
            folder.mkdir(exist_ok=True)
        return folder / f"{name}.png"

    def weights_of(self, step: int | None) -> Path:
        """The checkpoint to use: the best, or with ``step`` one that stays.

        Raises:
            ModelError: it is not there.
        """
        path = self.best if step is None else self.kept(step)
        if not path.is_file():
            wanted = (
                "the run has to reach its first validation; go on with --resume"
                if step is None
                else "only --keep-every makes such checkpoints"
            )
            raise ModelError(f"{path}: not there: {wanted}")
        return path

    def kept(self, step: int) -> Path:
        """Where the checkpoint of ``step`` is, if it was asked to stay."""
        return self.checkpoints / f"step_{step:07d}.safetensors"

    def save_latest(
        self,
        network: nn.Module,
        average: WeightAverage,
        optimiser: torch.optim.Optimizer,
        state: RunState,
    ) -> None:
        """Write ``latest.safetensors``.

        Raises:
            OutputError: it cannot be written.
        """
        _write(self.latest, resumable_tensors(network, average, optimiser), state)

    def save_best(self, network: nn.Module, state: RunState) -> None:
        """Write ``best.safetensors``.

        Raises:
            OutputError: it cannot be written.
        """
        _write(self.best, _named(WEIGHTS, network.state_dict()), state)

    def keep(self, network: nn.Module, state: RunState) -> None:
        """Write a checkpoint that stays.

        Raises:
            OutputError: it cannot be written.
        """
        with writing(self.checkpoints):
            self.checkpoints.mkdir(exist_ok=True)
        _write(self.kept(state.step), _named(WEIGHTS, network.state_dict()), state)

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Add one line to ``metrics.jsonl``.

        Raises:
            OutputError: it cannot be written.
        """
        with writing(self.metrics), open_own(self.metrics, create=True) as file:
            file.seek(0, os.SEEK_END)
            file.write(f"{json.dumps(record)}\n".encode())

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``, up to one that is damaged: a kill cuts off the last.

        Raises:
            InputError: it cannot be read.
        """
        return read_metrics(self.metrics)

    def rewind_metrics(self, step: int) -> None:
        """Drop the lines after ``step``, which a resumed run writes again."""
        kept = [record for record in self.read_metrics() if record["step"] <= step]
        write_text(self.metrics, "".join(json.dumps(record) + "\n" for record in kept))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file of `RunFolder`.

    Raises:
        ModelError: missing, damaged, or not one of ours.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    weights: dict[str, torch.Tensor] = {}
    average: dict[str, torch.Tensor] = {}
    start: dict[str, torch.Tensor] = {}
    optimiser: dict[int, dict[str, torch.Tensor]] = {}
    try:
        # Not "pt": that wants names of files in UTF-8.
        with safe_open(path, framework="np") as file:
            about = parse_json((file.metadata() or {})["gsd"], path)
            for key in file.keys():  # noqa: SIM118 - not a dict
                value = torch.from_numpy(np.asarray(file.get_tensor(key)))
                if key.startswith(WEIGHTS):
                    weights[key.removeprefix(WEIGHTS)] = value
                elif key.startswith(AVERAGE):
                    average[key.removeprefix(AVERAGE)] = value
                elif key.startswith(START):
                    start[key.removeprefix(START)] = value
                else:
                    number, name = key.removeprefix(OPTIMISER).split(".")
                    optimiser.setdefault(int(number), {})[name] = value
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path}: damaged, or not a checkpoint of gsd train: restore it, or take another"
            " one of its run"
        ) from error
    if not isinstance(about, dict):
        raise ModelError(f"{path}: damaged: its state is not that of a run")
    if about.pop("format", None) != CHECKPOINT_FORMAT:
        raise ModelError(f"{path}: written by another version of gsd: use that one to read it")
    told: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in about.items()
    }
    try:
        return Checkpoint(weights, average, start, optimiser, RunState(**told))
    except (TypeError, InputError) as error:
        raise ModelError(f"{path}: damaged: its state is not that of a run: {error}") from error


def resumable_tensors(
    network: nn.Module, average: WeightAverage, optimiser: torch.optim.Optimizer
) -> dict[str, torch.Tensor]:
    """What ``latest.safetensors`` holds: copies, where the layout in memory is another."""
    tensors = _named(WEIGHTS, network.state_dict())
    tensors |= _named(AVERAGE, average.values) | _named(START, average.start)
    for number, values in optimiser.state_dict()["state"].items():
        tensors |= _named(f"{OPTIMISER}{number}.", values)
    return tensors


def _named(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def _write(target: Path, tensors: dict[str, torch.Tensor], state: RunState) -> None:
    about = {"format": CHECKPOINT_FORMAT, **asdict(state)}
    folder = target.with_name(_UNFINISHED)
    with writing(target):
        folder.mkdir(exist_ok=True)
    try:
        with atomic_file(target, folder) as temporary:
            save_file(tensors, temporary, metadata={"gsd": json.dumps(about)})
    except SafetensorError as error:
        raise OutputError(f"{target}: cannot be written: {error}") from error
    finally:
        with suppress(OSError):
            folder.rmdir()
