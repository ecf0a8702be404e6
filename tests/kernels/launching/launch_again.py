"""Launch a kernel without a GPU, by `Kernel` and by Triton itself: both must choose the same.

Run by test_launching.py in a process of its own: Triton in its interpreter compiles nothing.
Prints, of each case, how often Triton was asked in two launches.
"""

import torch
import triton
import triton.language as tl
from host_cost import Nothing
from triton.runtime.jit import JITFunction

from genselfdiff.kernels.launching import launched

asked = []
seen = []


class Recorder(Nothing):
    def __init__(self):
        super().__init__()
        self.launcher_cls = lambda _, metadata: lambda *_: seen.append(metadata.hash)


@launched
@triton.jit(do_not_specialize=["count", "far"])
def kernel(x, y, factor, count, width, far: tl.int64, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    values = tl.load(x + i + far, mask=i < count, other=0.0)
    tl.store(y + i * width, values.to(tl.float32) * factor)


def noted(function, *arguments, warmup, **options):
    if not warmup:
        asked.append(arguments)
    return run(function, *arguments, warmup=warmup, **options)


run = JITFunction.run
JITFunction.run = noted
triton.runtime.driver.set_active(Recorder())
x, y = torch.zeros(64), torch.zeros(64)
CASES = {
    "first": (x, y, 1.5, 5, 3, 0, 16),
    "another factor": (x, y, 2.0, 5, 3, 0, 16),
    "another count": (x, y, 2.0, 32, 3, 0, 16),
    "count of 64 bits": (x, y, 1.5, 2**40, 3, 0, 16),
    "far of 64 bits": (x, y, 1.5, 5, 3, 2**40, 16),
    "width of 16": (x, y, 1.5, 5, 16, 0, 16),
    "width of 1": (x, y, 1.5, 5, 1, 0, 16),
    "bfloat16": (x.bfloat16(), y, 1.5, 5, 3, 0, 16),
    "float64": (x, y.double(), 1.5, 5, 3, 0, 16),
    "unaligned": (x, y[1:], 1.5, 5, 3, 0, 16),
    "another block": (x, y, 1.5, 5, 3, 0, 32),
    "first once more": (x, y, 1.5, 5, 3, 0, 16),
}
for name, arguments in CASES.items():
    for options in ({}, {"num_warps": 8}):
        asked.clear()
        for _ in range(2):
            kernel[(3, 2)](*arguments, **options)
        wanted = kernel.function.warmup(*arguments, grid=(3, 2), **options)
        assert seen[-2:] == [wanted.metadata.hash] * 2, name
        print(name, len(asked), sep=": ")
