"""A run on disk: settings, checkpoints, metrics and pictures, all in one folder."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from genselfdiff.errors import ModelError, OutputError
from genselfdiff.files import atomic_file, write_text

CHECKPOINT_FORMAT = "1"
WEIGHTS = "network."
OPTIMISER = "optimiser."


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        weights: the network's state dict.
        optimiser: state of the optimiser by parameter number, empty in ``best``.
        step: optimiser steps taken.
        best: the best validation score so far, or None.
    """

    weights: dict[str, torch.Tensor]
    optimiser: dict[int, dict[str, torch.Tensor]]
    step: int
    best: float | None


class RunFolder:
    """Paths and files of one run.

    ``latest.safetensors`` has all that is needed to go on, ``best.safetensors`` the weights with
    the best validation score. Both are replaced in one step, so that a killed run leaves a whole
    one.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.latest = self.path / "latest.safetensors"
        self.best = self.path / "best.safetensors"
        self.metrics = self.path / "metrics.jsonl"
        self.curves = self.path / "curves.png"
        self.samples = self.path / "samples"

    def require_absent(self) -> None:
        """Raise OutputError where the path exists and is not an empty folder."""
        if self.path.exists() and not (self.path.is_dir() and not any(self.path.iterdir())):
            way_out = ", or --resume to go on" if self.config.exists() else ""
            raise OutputError(f"{self.path}: exists already: choose another --out{way_out}")

    def create(self) -> None:
        """Make the folder.

        Raises:
            OutputError: it cannot be made.
        """
        with _writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)

    def sample_picture(self, step: int) -> Path:
        """Where to save the sample images of ``step``; makes their folder.

        Raises:
            OutputError: the folder cannot be made.
        """
        with _writing(self.samples):
            self.samples.mkdir(exist_ok=True)
        return self.samples / f"step_{step:07d}.png"

    def save_latest(
        self, network: nn.Module, optimiser: torch.optim.Optimizer, step: int, best: float | None
    ) -> None:
        """Write ``latest.safetensors``.

        Raises:
            OutputError: it cannot be written.
        """
        tensors = _weights(network)
        for number, state in optimiser.state_dict()["state"].items():
            for name, value in state.items():
                tensors[f"{OPTIMISER}{number}.{name}"] = value.detach().cpu().contiguous()
        self._write(self.latest, tensors, step, best)

    def save_best(self, network: nn.Module, step: int, best: float) -> None:
        """Write ``best.safetensors``.

        Raises:
            OutputError: it cannot be written.
        """
        self._write(self.best, _weights(network), step, best)

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Add one line to ``metrics.jsonl``.

        Raises:
            OutputError: it cannot be written.
        """
        with _writing(self.metrics), open(self.metrics, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``; a last line cut off by a kill is left out."""
        if not self.metrics.exists():
            return []
        records = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                break
        return records

    def rewind_metrics(self, step: int) -> None:
        """Drop the lines after ``step``, which a resumed run writes again."""
        kept = [record for record in self.read_metrics() if record["step"] <= step]
        write_text(self.metrics, "".join(json.dumps(record) + "\n" for record in kept))

    def _write(
        self, target: Path, tensors: dict[str, torch.Tensor], step: int, best: float | None
    ) -> None:
        about = {"format": CHECKPOINT_FORMAT, "step": step, "best": best}
        with atomic_file(target) as temporary:
            try:
                save_file(tensors, temporary, metadata={"gsd": json.dumps(about)})
            except SafetensorError as error:
                raise OutputError(f"{target}: cannot be written: {error}") from error


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file of `RunFolder`.

    Raises:
        ModelError: missing, damaged, or not one of ours.
    """
    if not path.is_file():
        raise ModelError(
            f"{path}: not there yet: the run has to reach its first validation; go on with --resume"
        )
    weights: dict[str, torch.Tensor] = {}
    optimiser: dict[int, dict[str, torch.Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["gsd"])
            for key in file.keys():  # noqa: SIM118 - not a dict
                if key.startswith(WEIGHTS):
                    weights[key.removeprefix(WEIGHTS)] = file.get_tensor(key)
                else:
                    number, name = key.removeprefix(OPTIMISER).split(".")
                    optimiser.setdefault(int(number), {})[name] = file.get_tensor(key)
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise ModelError(f"{path}: damaged, or not a checkpoint of gsd train") from error
    if about.get("format") != CHECKPOINT_FORMAT:
        raise ModelError(f"{path}: written by a newer gsd: update genselfdiff to read it")
    return Checkpoint(weights, optimiser, about["step"], about["best"])


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error


def _weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return {
        WEIGHTS + key: value.detach().cpu().contiguous()
        for key, value in network.state_dict().items()
    }
