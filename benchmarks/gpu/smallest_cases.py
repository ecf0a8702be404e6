"""Run every operation on the smallest tensors: for a tool that looks at each access to memory.

    compute-sanitizer --tool memcheck python benchmarks/gpu/smallest_cases.py [--device cuda]

From Python, as training does, and where kernels are launched from C++ by Triton as well.
"""

import argparse
from contextlib import nullcontext

import torch
from cases import smallest
from interpreting import interpreted_kernels, triton_function
from timing import synchronise, tell

from genselfdiff.kernels.backends import launched_from_cpp


def main() -> None:
    """Run them; whether their numbers are right is not looked at."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    device = torch.device(parser.parse_args().device)
    cases = [case for dtype in (torch.float32, torch.bfloat16) for case in smallest(dtype)]
    on_gpu = device.type == "cuda"
    with nullcontext() if on_gpu else interpreted_kernels():
        for case in cases if on_gpu else cases[:1]:  # the tests have interpreted them all
            case.run(case.on(device))
            synchronise(device)
        launch_by_triton(device)
    tell(cases=len(cases) if on_gpu else 1, launched_from_cpp=sorted(launched_from_cpp))


def launch_by_triton(device: torch.device) -> None:
    """What C++ launches otherwise."""
    x = torch.randn(2, 16, 5, 3, device=device).contiguous(memory_format=torch.channels_last)
    c, qkv, out = x[0, :, 0, 0].contiguous(), x.new_ones(384, 16, 1, 1), x.new_ones(16, 128, 1, 1)
    triton_function("group_norm_silu")(x, c, c, 8, x[:, :, 0, 0], x, 1e-5)
    triton_function("linear_attention")(x, c, c, qkv, out, c, c, c, 4, 1e-5)
    synchronise(device)


if __name__ == "__main__":
    main()
