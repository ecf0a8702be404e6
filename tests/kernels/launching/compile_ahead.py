"""Compile every Triton kernel for GPUs that are not here; prints a JSON list of what came out.

Run by test_ahead.py in a process of its own, because Triton in its interpreter compiles nothing.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import torch
import triton

from genselfdiff.kernels.add_noise import triton as add_noise
from genselfdiff.kernels.ahead import launches_of
from genselfdiff.kernels.group_norm_silu import triton as group_norm_silu
from genselfdiff.kernels.linear_attention import triton as linear_attention
from genselfdiff.kernels.multi_loss import triton as multi_loss
from genselfdiff.kernels.p2_loss import triton as p2_loss

ELF_ABI_VERSION = 8  # where it is in the header
CASES = [  # capability, dtype, channels
    (80, torch.float32, 64),
    (80, torch.bfloat16, 64),
    (80, torch.bfloat16, 128),
    (80, torch.float32, 20),
    (90, torch.float32, 64),
    (90, torch.bfloat16, 64),
    (90, torch.bfloat16, 128),
]


def calls(dtype: torch.dtype, channels: int) -> Iterator[Callable[[], Any]]:
    """Every operation, forward and backward, on small tensors of zeros."""
    x = torch.zeros(2, channels, 16, 16, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    weight, statistics = torch.ones(channels, dtype=dtype), torch.ones(2, 4)
    if channels % 16 == 0:
        norm, qkv = (weight, weight), torch.ones(384, channels, 1, 1)
        out = (torch.ones(channels, 128, 1, 1), weight, *norm)
        kept = (torch.ones(2, 4), torch.ones(2, 128), torch.ones(2, 4, 32, 32))
        yield lambda: linear_attention.forward(x, *norm, qkv, *out, 4, 1e-5)
        yield lambda: linear_attention.backward(x, x, *norm, qkv, *out, *kept)
    if channels > 64:
        return  # the others are the same
    t, table = torch.zeros(2, dtype=torch.int64), torch.ones(10, dtype=torch.float64)
    yield lambda: add_noise.add_noise(x, t, table, 1, 2)
    yield lambda: add_noise.add_noise(x.to(torch.uint8), t, table, -1, 2**40)
    yield lambda: p2_loss.p2_loss(x, x, t, table, True)
    labels = torch.zeros(2, 16, 16, dtype=torch.int64)
    logits = x[:, :4]
    yield lambda: multi_loss.multi_loss(logits, labels, None, False, 2.0, None)
    yield lambda: multi_loss.multi_loss(logits.contiguous(), labels, None, True, 1.5, 3)
    yield lambda: group_norm_silu.forward(x, weight, weight, 4, torch.ones(2, channels), x, 1e-5)
    yield lambda: group_norm_silu.backward(x, x, weight, weight, statistics, statistics)


def usage(cubin: bytes) -> dict[str, int]:
    """A thread's registers, and its bytes in memory because there are no more of them."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    words = {"registers": "REG:", "stack": "STACK:"}
    return {name: int(text.partition(word)[2].split()[0]) for name, word in words.items()}


def main() -> None:
    found = [
        {
            "kernel": launch.name,
            "capability": capability,
            "dtype": str(dtype),
            "shared": launch.shared,
            "scratch": launch.scratch,
            "warps": launch.num_warps,
            **usage(launch.cubin),
            "ptx": launch.ptx.partition(".version ")[2].split()[0],
            "format": launch.cubin[ELF_ABI_VERSION],
            "target": launch.ptx.partition(".target ")[2].split()[0],
        }
        for capability, dtype, channels in CASES
        for call in calls(dtype, channels)
        for launch in launches_of(call, capability)
    ]
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
