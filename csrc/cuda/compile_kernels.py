"""Compile the Triton kernels of the exported segmenter for the GPUs they may meet.

CMake calls this: compile_kernels.py FOLDER prints Triton's version, and writes into FOLDER

    images.bin     the binaries, one after the other
    images.inc     a C++ table of them, for csrc/cuda/kernels.cpp
    constants.h    the kernels' names, and what C++ launches them with: some of tiles.json

Where Triton is not installed it fails, and the library is built without. What is
compiled is what the Triton implementations launch, when called on tensors of zeros.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import triton

from genselfdiff.kernels.ahead import Launch, launches_of
from genselfdiff.kernels.group_norm_silu import triton as group_norm_silu
from genselfdiff.kernels.linear_attention import triton as linear_attention
from genselfdiff.kernels.linear_attention.op import COMPILED_FEATURES as FEATURES
from genselfdiff.kernels.linear_attention.op import COMPILED_HEADS as HEADS
from genselfdiff.kernels.tiles import NARROW, entry, shape_class

CAPABILITIES = (80, 90)
TARGETS = (80, 90, 80)  # newer ones get the oldest, as PTX
CHANNELS = (76, 128, 64)  # where 16 divides their number the kernels are others, and for few
VARIANTS = [  # of x, and the parameters'. Their order is that of variant_of() in kernels.cpp.
    (dtype, parameters, channels)
    for dtype, parameters in (
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.bfloat16, torch.bfloat16),
    )
    for channels in CHANNELS
]


def operations(
    dtype: torch.dtype, parameters: torch.dtype, channels: int
) -> Iterator[Callable[[], object]]:
    """What the segmenter calls."""
    x = torch.zeros(2, channels, 16, 16, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    c, hidden = torch.ones(channels, dtype=parameters), HEADS * FEATURES
    yield lambda: group_norm_silu.forward(x, c, c, 4, None, None, 1e-5)
    qkv, out = torch.ones(3 * hidden, channels, 1, 1), torch.ones(channels, hidden, 1, 1)
    yield lambda: linear_attention.forward(x, c, c, qkv, out, c, c, c, HEADS, 1e-5)


class Images:
    """The binaries, each once."""

    def __init__(self) -> None:
        self.data = b""
        self._offsets: dict[bytes, int] = {}

    def add(self, image: bytes) -> int:
        """Where the image begins."""
        if image not in self._offsets:
            self.data += bytes(-len(self.data) % 64)
            self._offsets[image] = len(self.data)
            self.data += image
        return self._offsets[image]


def row(launch: Launch, offset: int) -> str:
    """An entry of the table: struct Image in kernels.h."""
    if launch.scratch:
        sys.exit(f"{launch.name} wants memory that the C++ launcher does not give")
    parameters = launch.ptx.partition(")")[0].count(".param ")
    sizes = f"{launch.num_warps}, {launch.shared}, {len(launch.arguments)}, {parameters}"
    return f'{{"{launch.name}", {offset}, {sizes}}},\n'


def table(images: Images) -> dict[str, str]:
    """The rows of each kernel: for every variant one a capability, then one for newer GPUs."""
    rows: dict[str, str] = {}
    times: dict[str, int] = defaultdict(int)
    calls = [
        [
            launch
            for operation in operations(*variant)
            for launch in launches_of(operation, capability)
        ]
        for variant in VARIANTS
        for capability in CAPABILITIES
    ]
    for compiled in zip(*calls, strict=True):  # one launch, by variant and capability
        text = ""
        for first in range(0, len(compiled), len(CAPABILITIES)):
            for launch in compiled[first : first + len(CAPABILITIES)]:
                text += row(launch, images.add(launch.cubin))
            # PTX of the oldest runs on whatever will come; sm_90's is its own.
            text += row(compiled[first], images.add(compiled[first].ptx.encode() + b"\0"))
        # A kernel that is launched with other constants is another one.
        if text not in rows.values():
            name = compiled[0].name
            times[name] += 1
            rows[name if times[name] == 1 else f"{name}_{times[name]}"] = text
    return rows


def tiles_row(dtype: torch.dtype, parameters: torch.dtype, channels: int, capability: int) -> str:
    """What C++ has to know of tiles.json, for a variant and GPU."""
    of = capability, str(dtype).removeprefix("torch."), shape_class(channels)
    sums, apply, context, output = (
        entry(kernel, *of)
        for kernel in (
            "group_norm_silu.sums",
            "group_norm_silu.apply",
            "linear_attention.context",
            "linear_attention.output",
        )
    )
    numbers = (
        *(sums.run, sums.block_c, apply.block_t, apply.block_c),
        *(context.run, min(context.group, HEADS), output.run),
    )
    return f"{{{', '.join(map(str, numbers))}}},\n"


def main() -> None:
    """Write the three files."""
    folder, images = Path(sys.argv[1]), Images()
    rows = table(images)
    (folder / "images.bin").write_bytes(images.data)
    (folder / "images.inc").write_text("".join(rows.values()))
    constants = {
        "kNormed": linear_attention.NORMED,
        "kMergedRows": linear_attention.MERGED_ROWS,
        "kFoldedChannels": linear_attention.FOLDED_C,
        "kHeads": HEADS,
        "kFeatures": FEATURES,
        "kNarrow": NARROW,
        "kKernels": len(rows),
        "kTargets": len(TARGETS),
        "kVariants": len(VARIANTS),
    }
    lines = [f"constexpr int64_t {name} = {value};\n" for name, value in constants.items()]
    lines.append(f"enum class Kernel {{ {', '.join(rows)} }};\n")
    lines += [
        "struct Tiles {\n"
        "    int32_t sums_run, sums_c, apply_t, apply_c, context_run, heads, output_run;\n"
        "};\n",
        "constexpr Tiles kTiles[] = {\n",
        *(tiles_row(*variant, capability) for variant in VARIANTS for capability in TARGETS),
        "};\n",
    ]
    text = f"#pragma once\n#include <cstdint>\nnamespace gsd::cuda {{\n{''.join(lines)}}}\n"
    (folder / "constants.h").write_text(text)
    print(triton.__version__)


if __name__ == "__main__":
    main()
