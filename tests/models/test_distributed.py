"""The network under DistributedDataParallel: gradients of two processes are those of one."""

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from genselfdiff.models import create_model


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


def one_process(rank, folder):
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    x, t = batch()
    half = slice(2 * rank, 2 * rank + 2)
    found = gradients(DistributedDataParallel(network()), x[half], t[half])
    if rank == 0:
        torch.save(found, folder / "gradients.pt")
    dist.destroy_process_group()


def test_gradients_of_two_processes_are_those_of_one(tmp_path):
    mp.spawn(one_process, (tmp_path,), nprocs=2)
    found = torch.load(tmp_path / "gradients.pt", weights_only=True)
    expected = gradients(network(), *batch())
    assert found.keys() == expected.keys()
    for name, grad in expected.items():
        scale = grad.abs().max().clamp(min=1e-6)
        torch.testing.assert_close(found[name] / scale, grad / scale, atol=1e-4, rtol=0, msg=name)
