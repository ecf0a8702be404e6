"""What a run would take, from a few real steps; nothing is written."""

import time
from dataclasses import dataclass
from statistics import median

import torch

from genselfdiff.machine import peak_bytes
from genselfdiff.progress import duration, progress_bar
from genselfdiff.text import counted
from genselfdiff.training.loop.step import TrainingStep
from genselfdiff.training.loop.task import Task
from genselfdiff.training.loop.train import batches
from genselfdiff.training.run_folder import resumable_tensors
from genselfdiff.training.settings.run_config import RunConfig

MEASURED_STEPS = 3

LONGEST = 30.0
"""Seconds after which no further step is begun: a dry run is no run."""


@dataclass(frozen=True)
class RunEstimate:
    """What `estimate_run` has found.

    Attributes:
        config: every setting, those filled in from the files among them.
        parameters: of the network.
        learning: those of them that are not frozen.
        device, precision: where and in what the steps are computed.
        processes: that work together.
        step_seconds: median of the measured steps, loading included.
        loading_share: of a step, spent waiting for its tiles.
        validation_seconds: of one validation, from one piece of it.
        memory: the most that this process has held, in bytes, copying what a checkpoint holds
            included.
        gpu_memory: the most that it has held on its GPU; None without one.
        checkpoint: bytes of ``latest.safetensors``.
    """

    config: RunConfig
    parameters: int
    learning: int
    device: str
    precision: str
    processes: int
    step_seconds: float
    loading_share: float
    validation_seconds: float
    memory: int
    gpu_memory: int | None
    checkpoint: int

    @property
    def seconds(self) -> float:
        """Of the whole run, the drawing of pictures left out."""
        config = self.config
        validations = -(-config.steps // config.validate_every)
        return config.steps * self.step_seconds + validations * self.validation_seconds

    def summary(self) -> str:
        """Lines for people."""
        config = self.config
        frozen = self.learning < self.parameters
        of_which = f", of which {self.learning / 1e6:.1f} M learn" if frozen else ""
        several = f" in {self.processes} processes" if self.processes > 1 else ""
        on_gpu = (
            "" if self.gpu_memory is None else f"{self.gpu_memory / 2**30:.2f} GiB on the GPU, "
        )
        return "\n".join(
            (
                f"network: {config.architecture}, width {config.width},"
                f" {self.parameters / 1e6:.1f} M parameters{of_which},"
                f" at {config.network_mpp:g} um/px, tiles of {config.tile_size} pixels",
                f"device: {self.device}, {self.precision}{several}",
                f"step: {self.step_seconds:.2f} s for {counted(config.batch_size, 'tile')}"
                f" ({self.loading_share:.0%} of it waiting for them);"
                f" validation: about {duration(self.validation_seconds)}",
                f"run: {counted(config.steps, 'step')}, about {duration(self.seconds)}",
                f"memory: {on_gpu}{self.memory / 2**30:.2f} GiB"
                f"{' in each process' if several else ''};"
                f" checkpoints of {self.checkpoint / 2**20:.0f} MiB",
            )
        )


def estimate_run(
    task: Task, step: TrainingStep, measured: int = MEASURED_STEPS, progress: bool | None = None
) -> RunEstimate:
    """Take ``measured`` steps after a first and tell what all would take; the network changes.

    Slow ones are fewer, see ``LONGEST``. ``progress`` shows a bar; None: on a terminal only.
    """
    config = step.config
    times, loading = [], []
    step.network.train()
    tiles = iter(batches(task.dataset, config, step, 0))
    started = time.perf_counter()
    numbers = range(min(measured + 1, config.steps))
    for number in progress_bar(numbers, progress=progress, desc="dry run", unit="step"):
        begin = time.perf_counter()
        if number and begin - started > LONGEST:
            break
        batch = next(tiles)
        loaded = time.perf_counter()
        step(batch, number).tolist()  # waits for the device
        times.append(time.perf_counter() - begin)
        loading.append(loaded - begin)
    # The first step prepares what the others find ready.
    times, loading = times[1:] or times, loading[1:] or loading
    step.network.eval()
    begin = time.perf_counter()
    with torch.no_grad(), step.autocast:
        task.validate(step.network, 0, task.pieces)
    validation = (time.perf_counter() - begin) * -(-task.pieces // step.world.size)
    saved = resumable_tensors(step.network, step.average, step.optimiser)
    return RunEstimate(
        config=config,
        parameters=sum(parameter.numel() for parameter in step.network.parameters()),
        learning=sum(parameter.numel() for parameter in step.parameters),
        device=str(step.device),
        precision=step.precision,
        processes=step.world.size,
        step_seconds=median(times),
        loading_share=median(loading) / median(times),
        validation_seconds=validation,
        memory=peak_bytes(),
        gpu_memory=(
            torch.cuda.max_memory_allocated(step.device) if step.device.type == "cuda" else None
        ),
        checkpoint=sum(tensor.nbytes for tensor in saved.values()),
    )
