"""What a run tells: ``metrics.jsonl`` always, TensorBoard and the user's function where asked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from genselfdiff.errors import InputError
from genselfdiff.training.run_folder import RunFolder

OnLog = Callable[[dict[str, float]], object]
"""Is called with the figures of a line by name, such as "training/loss", and with its "step"."""


class Tracker:
    """Writes figures and pictures of the steps after ``step``.

    Raises:
        InputError: TensorBoard is asked for and not installed.
    """

    def __init__(
        self, run: RunFolder, *, step: int, tensorboard: bool, on_log: OnLog | None = None
    ) -> None:
        self._run = run
        self._events = _event_writer(run.tensorboard, step) if tensorboard else None
        self._on_log = on_log
        self._untold: list[dict[str, float]] = []
        run.rewind_metrics(step or -1)  # from the start also what there is to train on

    def data(self, counts: dict[str, int], files: str) -> None:
        """Keep how much there is to train on, and a digest of its names, once."""
        if not self._run.read_metrics():
            self._run.append_metrics({"step": 0, "data": counts, "files": files})

    def training(self, step: int, figures: dict[str, float]) -> None:
        """Keep the figures of a line: loss, learning rate and speed."""
        self._run.append_metrics({"step": step, **figures})
        self._scalars("training", step, figures)

    def validation(self, step: int, figures: dict[str, float], images: dict[str, float]) -> None:
        """Keep the figures of a validation, and the score of each image where there are any."""
        record: dict[str, Any] = {"step": step, "validation": figures}
        if images:
            record["images"] = images
        self._run.append_metrics(record)
        self._scalars("validation", step, figures)

    def picture(self, step: int, path: Path) -> None:
        """Show a picture that the run has saved."""
        if self._events is not None:
            with Image.open(path) as file:
                pixels = np.asarray(file.convert("RGB"))
            self._events.add_image(path.parent.name, pixels, step, dataformats="HWC")

    def tell(self) -> None:
        """Call ``on_log`` with each line since the last time; what it raises is not caught."""
        lines, self._untold = self._untold, []
        for line in lines:
            if self._on_log is not None:
                self._on_log(line)

    def flush(self) -> None:
        """Have on disk what belongs to the steps that a checkpoint is about to contain."""
        if self._events is not None:
            self._events.flush()

    def close(self) -> None:
        """Write what is left."""
        if self._events is not None:
            self._events.close()

    def _scalars(self, group: str, step: int, figures: dict[str, float]) -> None:
        named = {f"{group}/{name}": value for name, value in figures.items()}
        self._untold.append({"step": step, **named})
        if self._events is not None:
            for name, value in named.items():
                self._events.add_scalar(name, value, step)


def require_tensorboard() -> None:
    """Raise InputError unless TensorBoard is installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise InputError(
            "--tensorboard needs TensorBoard: pip install 'genselfdiff[tensorboard]'"
        ) from error


def _event_writer(folder: Path, step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1)
