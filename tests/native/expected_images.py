"""Compile what the exported segmenter launches, launch by launch, without the library's table.

Run by tests/kernels/launching/test_cuda_launch.py: expected_images.py FILE COMPILE_KERNELS. FILE
becomes a pickled dictionary: (generation, dtype of x, whether 16 divides its channels) to the
images of each operation's launches in their order.
"""

import pickle
import sys
from pathlib import Path

from genselfdiff.kernels.ahead import launches_of

file, compile_kernels = map(Path, sys.argv[1:])
sys.path.insert(0, str(compile_kernels.parent))
from compile_kernels import VARIANTS, operations  # noqa: E402

expected = {}
for dtype, channels in VARIANTS:
    for generation, capability in ((8, 80), (9, 90), (12, 80)):
        expected[generation, dtype, channels % 16 == 0] = [
            [
                launch.ptx.encode() + b"\0" if generation > 9 else launch.cubin
                for launch in launches_of(operation, capability)
            ]
            for operation in operations(dtype, channels)
        ]
file.write_bytes(pickle.dumps(expected))
