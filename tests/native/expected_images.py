"""Compile what the exported segmenter launches, launch by launch, without the library's table.

Run by tests/kernels/launching/test_cuda_launch.py: expected_images.py FILE COMPILE_KERNELS. FILE
becomes a pickled dictionary: (generation, dtypes of x and its parameters, class of its channels) to
the images of each operation's launches in their order.
"""

import pickle
import sys
from pathlib import Path

from genselfdiff.kernels.ahead import launches_of
from genselfdiff.kernels.tiles import shape_class

file, compile_kernels = map(Path, sys.argv[1:])
sys.path.insert(0, str(compile_kernels.parent))
from compile_kernels import VARIANTS, operations  # noqa: E402

expected = {}
for dtype, parameters, channels in VARIANTS:
    for generation, capability in ((8, 80), (9, 90), (12, 80)):
        kind = channels % 16 == 0, shape_class(channels)
        expected[generation, dtype, parameters, *kind] = [
            [
                launch.ptx.encode() + b"\0" if generation > 9 else launch.cubin
                for launch in launches_of(operation, capability)
            ]
            for operation in operations(dtype, parameters, channels)
        ]
file.write_bytes(pickle.dumps(expected))
