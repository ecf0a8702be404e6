"""One of two processes that share a batch: python process_of_two.py RANK FOLDER."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from genselfdiff.models.registry import create_model


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


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    x, t = batch()
    half = slice(2 * rank, 2 * rank + 2)
    found = gradients(DistributedDataParallel(network()), x[half], t[half])
    if rank == 0:
        torch.save(found, folder / "gradients.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
