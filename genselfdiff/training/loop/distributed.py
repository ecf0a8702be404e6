"""One run on several processes, started by torchrun: who writes, and what they tell each other."""

import atexit
import gc
import importlib
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from genselfdiff.errors import InputError, TrainingError
from genselfdiff.machine import choose_device

PATIENCE = timedelta(hours=2)
"""How long processes wait for each other: one may read many slides, or draw pictures."""


@dataclass(frozen=True)
class World:
    """The processes of a run.

    Attributes:
        rank: number of this process.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run's files and speaks to the user."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all processes have come here."""
        self.maximum([0.0])

    def maximum(self, values: Sequence[float]) -> list[float]:
        """The largest of each value over the processes."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def mean(self, values: Sequence[float]) -> list[float]:
        """The mean of each value over the processes."""
        return [value / self.size for value in self._reduced(values, dist.ReduceOp.SUM)]

    def gather(self, records: dict[int, Any]) -> dict[int, Any]:
        """The records of all processes, in the order of their numbers."""
        if self.size > 1:
            parts: list[Any] = [None] * self.size
            dist.all_gather_object(parts, records)
            records = {number: value for part in parts for number, value in part.items()}
        return dict(sorted(records.items()))

    def wrapped(self, network: nn.Module, device: torch.device) -> nn.Module:
        """``network`` with gradients averaged over the processes."""
        if self.size == 1:
            return network
        return DistributedDataParallel(
            network, device_ids=[device] if device.type == "cuda" else None
        )

    def _reduced(self, values: Sequence[float], operation: Any) -> list[float]:
        if self.size == 1:
            return list(values)
        # On the CPU: a GPU need not be waited for.
        shared = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(shared, operation)
        return list(shared.tolist())


@contextmanager
def joined_world(device: str | None) -> Iterator[tuple[World, torch.device]]:
    """The processes that torchrun has started for this run, and the device of this one.

    ``device`` is as for `choose_device`; of several GPUs each process takes that of its number.

    Raises:
        InputError: no such device, or fewer GPUs than processes.
        TrainingError: another process has ended.
    """
    chosen = choose_device(device)
    size = int(os.environ["WORLD_SIZE"]) if "LOCAL_RANK" in os.environ else 1
    if size == 1:  # others than torchrun set such variables too
        yield World(), chosen
        return
    if chosen.type == "cuda":
        if ":" in str(chosen):
            raise InputError(f"--device {chosen}: with several processes give --device cuda")
        chosen = choose_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(chosen)
    backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
    # Of a 1x1 convolution's weights both strides go through memory in one order.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    # Imported later, as by DistributedDataParallel, it keeps this group in default arguments.
    importlib.import_module("torch.distributed.nn")
    dist.init_process_group(backend, timeout=PATIENCE)
    group = dist.group.WORLD
    try:
        yield World(dist.get_rank(), size), chosen
    except (dist.DistBackendError, dist.DistNetworkError) as error:
        raise TrainingError(_lost()) from error
    except RuntimeError as error:
        # What gloo raises has no class of its own.
        if "gloo" not in str(error).lower():
            raise
        raise TrainingError(_lost()) from error
    # After an error the others may never come here, whom this would wait for.
    dist.destroy_process_group()
    atexit.register(_end_threads, [group])


def _end_threads(groups: list[Any]) -> None:
    """Drop the last reference to a process group, which ends its threads.

    Gloo's threads give back tensors after their work. The interpreter aborts where they do it while
    it ends; and they wait for it for ever where the network's reducer, which does not release the
    interpreter's lock, is the last to hold the group.
    """
    gc.collect()  # networks that hold the group
    groups.clear()


def _lost() -> str:
    return (
        "another process of this run has ended, see its message: start all of them again with"
        " --resume to go on from the last checkpoint"
    )
