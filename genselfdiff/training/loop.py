"""The training loop of both stages."""

import logging
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from genselfdiff.errors import InputError, TrainingError
from genselfdiff.inference.device import choose_device, has_fast_bfloat16
from genselfdiff.models import load_initial_weights
from genselfdiff.training.config import RunConfig
from genselfdiff.training.curves import draw_curves
from genselfdiff.training.run_folder import RunFolder, read_checkpoint

logger = logging.getLogger("genselfdiff")

GRADIENT_NORM = 1.0
WARM_UP = 0.05
"""Share of the steps over which the learning rate rises."""

LOG_EVERY = 10
SAVE_SECONDS = 300.0
"""A killed run loses at most this much work."""


class Task(Protocol):
    """What differs between the stages."""

    higher_is_better: bool

    @property
    def dataset(self) -> Dataset[Any]:
        """Item i is the i-th sample of the run, whoever asks."""

    def loss(self, network: nn.Module, batch: Any, first: int) -> torch.Tensor:
        """Loss of a batch, already on the device, whose first sample has number ``first``."""

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Figures on held-out data; "score" decides which checkpoint is the best."""

    def draw(self, network: nn.Module, step: int) -> None:
        """Leave pictures in the run folder, if it is time to."""


def train(
    task: Task,
    network: nn.Module,
    config: RunConfig,
    run: RunFolder,
    *,
    progress: bool | None = None,
) -> float:
    """Run ``task`` up to ``config.steps``, from where ``run`` has got to.

    ``progress`` shows a bar; None: only on a terminal.

    Returns:
        The best validation score.

    Raises:
        TrainingError: loss or gradient became infinite or not a number, the last checkpoint being
            untouched; or no validation score was finite.
        InputError: the device has too little memory.
        OutputError: a checkpoint cannot be written.
    """
    device = choose_device(config.device)
    autocast = _autocast(device, config.precision)
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    step, best = _restore(network, optimiser, run)
    if step:
        logger.info("going on after step %d of %d", step, config.steps)

    size = config.batch_size
    loader = DataLoader(
        task.dataset,
        batch_size=size,
        sampler=range(step * size, config.steps * size),
        num_workers=config.workers,
        pin_memory=device.type == "cuda",
    )
    saved = time.monotonic()
    cpu_start = time.process_time()
    network.train()
    bar = tqdm(
        loader,
        total=config.steps,
        initial=step,
        unit="step",
        disable=None if progress is None else not progress,
        dynamic_ncols=True,
    )
    started, first_step = time.monotonic(), step
    with bar, logging_redirect_tqdm(), _stop_request() as stop:
        for batch in bar:
            rate = _learning_rate(config, step)
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.zero_grad(set_to_none=True)
            with _too_little_memory(device, size), autocast:
                loss = task.loss(network, _to(batch, device), step * size)
            with _too_little_memory(device, size):
                loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_NORM)
            value = loss.item()
            for what, figure in (("loss", value), ("gradient", norm.item())):
                if not math.isfinite(figure):
                    raise TrainingError(
                        f"{run.path}: the {what} became {figure} at step {step + 1} (the"
                        " checkpoints are from before): start anew with a lower --learning-rate or"
                        " --precision float32"
                    )
            optimiser.step()
            step += 1

            if step % LOG_EVERY == 0 or step == config.steps:
                speed = (step - first_step) * size / (time.monotonic() - started)
                bar.set_postfix_str(f"loss {value:.4f}, {speed:.1f} images/s")
                run.append_metrics(
                    {
                        "step": step,
                        "loss": value,
                        "learning_rate": rate,
                        "images_per_s": round(speed, 2),
                        "cpu_s": round(time.process_time() - cpu_start, 1),
                    }
                )
            if step % config.validate_every == 0 or step == config.steps:
                best = _validate(task, network, run, step, best, autocast)
                run.save_latest(network, optimiser, step, best)
                saved = time.monotonic()
            elif time.monotonic() - saved > SAVE_SECONDS:
                run.save_latest(network, optimiser, step, best)
                saved = time.monotonic()
            with autocast:
                task.draw(network, step)
            if step % config.validate_every == 0:
                started, first_step = time.monotonic(), step  # the speed is that of training alone
            if stop.is_set():
                run.save_latest(network, optimiser, step, best)
                logger.info("stopped after step %d; --resume goes on from there", step)
                raise KeyboardInterrupt
    if best is None:
        raise TrainingError(
            f"{run.path}: no validation gave a finite score: start anew with a lower"
            " --learning-rate or --precision float32"
        )
    return best


@contextmanager
def _too_little_memory(device: torch.device, batch_size: int) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"{device} has too little memory for {batch_size} tiles a step: start anew with a"
            " smaller --batch-size, --tile-size or --width"
        ) from error


@contextmanager
def _stop_request() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that the step under way is finished and saved.

    A second Ctrl-C stops at once.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before: dict[int, Any] = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: object) -> None:
        event.set()
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, handle)
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _validate(
    task: Task,
    network: nn.Module,
    run: RunFolder,
    step: int,
    best: float | None,
    autocast: torch.autocast,
) -> float | None:
    network.eval()
    with torch.no_grad(), autocast:
        figures = task.validate(network)
    network.train()
    run.append_metrics({"step": step, "validation": figures})
    score = figures["score"]
    told = ", ".join(f"{name} {value:.4f}" for name, value in figures.items() if name != "score")
    logger.info("step %d: validation %s", step, told)
    if math.isfinite(score) and (
        best is None or (score > best if task.higher_is_better else score < best)
    ):
        best = score
        run.save_best(network, step, best)
    draw_curves(run)
    return best


def _restore(
    network: nn.Module, optimiser: torch.optim.Optimizer, run: RunFolder
) -> tuple[int, float | None]:
    """Step and best score of ``run``, whose weights and optimiser state are put in place."""
    if not run.latest.exists():
        run.rewind_metrics(0)
        return 0, None
    checkpoint = read_checkpoint(run.latest)
    load_initial_weights(network, checkpoint.weights, origin=run.latest, head=True)
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": checkpoint.optimiser, "param_groups": groups})
    run.rewind_metrics(checkpoint.step)
    return checkpoint.step, checkpoint.best


def _learning_rate(config: RunConfig, step: int) -> float:
    """Linear warm-up, then half a cosine that would reach zero one step after the last."""
    warm_up = max(1, round(WARM_UP * config.steps))
    if step < warm_up:
        return config.learning_rate * (step + 1) / warm_up
    share = (step - warm_up) / max(1, config.steps - warm_up)
    return config.learning_rate * (1 + math.cos(math.pi * share)) / 2


def _autocast(device: torch.device, precision: str) -> torch.autocast:
    wanted = precision == "bfloat16" or (precision == "auto" and has_fast_bfloat16(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)


def _to(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    return tuple(part.to(device, non_blocking=True) for part in batch)
