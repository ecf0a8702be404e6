"""Every 3x3 convolution of a network, ours against torch's: forward and both gradients.

    python benchmarks/convolutions/layers.py NETWORK TILE BATCH [float32|bfloat16] [ROUNDS] [WHAT]

WHAT is some of "y dx dw pack"; whole networks: networks.py. NETWORK is a name of the
registry, or WIDTH,MULTIPLIER,...,STRIDE such as 32,1,2,4,6,2. One thread, process CPU time, the
best of some rounds in which all forms take turns, with the memory allocator set as the engine sets
it. The instruction set is that of GSD_CPU_ISA; torch's is set by ONEDNN_MAX_CPU_ISA and
ATEN_CPU_CAPABILITY.
"""

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable

import torch
from torch import nn

from genselfdiff.kernels import native
from genselfdiff.kernels.conv3x3 import reference
from genselfdiff.machine import keep_freed_memory
from genselfdiff.models.registry import create_model
from genselfdiff.models.unet import UNet

Layer = tuple[int, int, int, int]
"""Channels of input and output, height and width."""


def created(network: str) -> UNet:
    """With fresh weights."""
    if not network[0].isdigit():
        return create_model(network)
    width, *multipliers, stride = map(int, network.split(","))
    return UNet(width, multipliers, 4, stride)


def layers(network: str, tile: int) -> Counter[Layer]:
    """How often each 3x3 convolution is there."""
    found: Counter[Layer] = Counter()

    def see(module: nn.Conv2d, _: object, y: torch.Tensor) -> None:
        if module.kernel_size == (3, 3) and module.stride == (1, 1):
            found[module.in_channels, module.out_channels, y.shape[2], y.shape[3]] += 1

    with torch.device("meta"):
        model = created(network)
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(see)
        model(torch.empty(1, 3, tile, tile), torch.empty(1, dtype=torch.int64))
    return found


def forms(layer: Layer, batch: int, dtype: torch.dtype) -> dict[str, Callable[[], torch.Tensor]]:
    """What is timed, by name."""
    c_in, c_out, height, width = layer
    x, grad_y = (torch.randn(batch, c, height, width).to(dtype) for c in (c_in, c_out))
    weight, bias = torch.randn(c_out, c_in, 3, 3) / (3 * c_in**0.5), torch.randn(c_out)
    last = [t.contiguous(memory_format=torch.channels_last) for t in (x, grad_y, weight.to(dtype))]
    first = [x, grad_y, weight.to(dtype)]
    turned = weight.flip((2, 3)).transpose(0, 1)
    packed, packed_turned = torch.ops.gsd.conv3x3_pack(weight), torch.ops.gsd.conv3x3_pack(turned)
    of_type = bias.to(dtype)

    def in_torch(tensors: list[torch.Tensor]) -> Callable[[], torch.Tensor]:
        return lambda: reference.conv3x3(tensors[0], tensors[2], of_type)

    def back(tensors: list[torch.Tensor], which: int) -> Callable[[], torch.Tensor]:
        mask = [which == 0, which == 1, False]
        return lambda: torch.ops.aten.convolution_backward(
            tensors[1], tensors[0], tensors[2], None,
            [1, 1], [1, 1], [1, 1], False, [0, 0], 1, mask,
        )[which]  # fmt: skip

    ops = torch.ops.gsd
    return {
        "y ours": lambda: ops.conv3x3(last[0], weight, bias, packed),
        "y nhwc": in_torch(last),
        "y nchw": in_torch(first),
        "dx ours": lambda: ops.conv3x3(last[1], turned, None, packed_turned),
        "dx nhwc": back(last, 0),
        "dx nchw": back(first, 0),
        "dw ours": lambda: ops.conv3x3_weight_gradient(last[1], last[0]),
        "dw nhwc": back(last, 1),
        "dw by nchw": lambda: reference.weight_gradient(last[1], last[0]),
        "pack": lambda: ops.conv3x3_pack(weight),
    }


def main(network: str, tile: int, batch: int, dtype: str, rounds: int, only: str = "") -> None:
    """A row for each layer, in GFLOP/s of the direct convolution, and the sums in ms an image."""
    torch.set_num_threads(1)
    keep_freed_memory()
    print(f"{network}, {tile} pixels, batch {batch}, {dtype}, kernels of {native.selected_isa()}")
    totals: defaultdict[str, float] = defaultdict(float)
    for layer, count in layers(network, tile).items():
        runs = forms(layer, batch, getattr(torch, dtype))
        best: dict[str, float] = {}
        for _ in range(rounds):
            for name, run in runs.items():
                if name.split()[0] not in only:
                    continue
                start = time.process_time()
                run()
                best[name] = min(time.process_time() - start, best.get(name, float("inf")))
        c_in, c_out, height, width = layer
        flop = 18 * batch * c_in * c_out * height * width
        told = (f"{name} {flop / t / 1e9:.0f}" for name, t in best.items())
        print(f"{c_in:4} -> {c_out:3}, {height}x{width}, {count} times:", *told, flush=True)
        for name, t in best.items():
            totals[name] += count * t / batch
    print("ms an image:", *(f"{name} {1e3 * t:.1f}" for name, t in totals.items()))


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    of, size, images, *rest = sys.argv[1:]
    kind, times, kinds = [*rest, *("float32", "3", "y dx dw pack")[len(rest) :]]
    main(of, int(size), int(images), kind, int(times), kinds)
