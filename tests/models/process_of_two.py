"""One of two processes that share a batch: torchrun ... process_of_two.py FOLDER.

FOLDER gets the gradients, and the names of the threads that are left as the interpreter ends.
"""

import atexit
import sys
from pathlib import Path

import torch

from genselfdiff.models.registry import create_model
from genselfdiff.training.loop.distributed import joined_world


def batch():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(4, 3, 16, 24, generator=generator)
    return x.contiguous(memory_format=torch.channels_last), torch.tensor([0, 10, 500, 999])


def network():
    torch.manual_seed(0)
    return create_model("tiny", out_channels=2).to(memory_format=torch.channels_last)


def gradients(model, x, t):
    model(x, t).square().mean().backward()
    return {name.removeprefix("module."): p.grad for name, p in model.named_parameters()}


def main(folder: Path) -> None:
    with joined_world("cpu") as (world, device):
        atexit.register(tell_threads, folder / f"threads{world.rank}")
        x, t = batch()
        half = slice(2 * world.rank, 2 * world.rank + 2)
        wrapped = world.wrapped(network(), device)
        found = gradients(wrapped, x[half], t[half])
        if world.is_first:
            torch.save(found, folder / "gradients.pt")


def tell_threads(file: Path) -> None:
    names = Path("/proc/self/task").glob("*/comm")
    file.write_text("".join(sorted(name.read_text() for name in names)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
