"""Run the operations that C++ launches on a GPU, on a fake one that calls Triton's interpreter.

Run by tests/kernels/launching/test_cuda_launch.py in a process of its own, with TRITON_INTERPRET=1:
launch_on_fake_gpu.py LIBCUDA LIBTORCH_CUDA LIBRARY GENERATION IMAGES. LIBRARY is ours, made to ask
for the two fake ones; IMAGES is of expected_images.py. What C++ launches must be what Triton's
Python code launches: the same kernels on the same grids with the same numbers, as compiled for
these; and with the pointers that C++ passes, they must give the same results.
"""

import ctypes
import importlib
import pickle
import sys
import traceback
from pathlib import Path

import torch

libcuda, _ = (ctypes.CDLL(path) for path in sys.argv[1:3])
generation, images = int(sys.argv[4]), pickle.loads(Path(sys.argv[5]).read_bytes())
importlib.import_module("genselfdiff._native").__file__ = sys.argv[3]  # as if it lay there

sys.path.append(str(Path(__file__).parents[1] / "gpu"))
from interpreting import mended_interpreter  # noqa: E402
from triton.runtime.interpreter import InterpretedFunction  # noqa: E402

from genselfdiff.kernels import backends, tiles  # noqa: E402
from genselfdiff.kernels.group_norm_silu import triton as group_norm_silu  # noqa: E402
from genselfdiff.kernels.linear_attention import triton as linear_attention  # noqa: E402

tiles.assumed_capability = 90 if generation == 9 else 80
run_interpreted = mended_interpreter()(InterpretedFunction.run)
expected = []  # (kernel, arguments, grid) of the launches that Python makes
compiled = []  # their images
launched = []


def record(kernel, *arguments, grid, warmup, **options):
    expected.append((kernel, arguments, grid))
    run_interpreted(kernel, *arguments, grid=grid, warmup=warmup, **options)


def read(address, kind):
    return kind.from_address(address).value


def received(value, annotation, address):
    """What C++ passed, where Python passed `value`."""
    if isinstance(value, torch.Tensor):
        pointer = read(address, ctypes.c_uint64)
        assert pointer % 16 == 0, "Triton was promised more"
        memory = (ctypes.c_char * (value.numel() * value.element_size())).from_address(pointer)
        return torch.frombuffer(memory, dtype=value.dtype)
    if isinstance(value, float):
        number = read(address, ctypes.c_float)
        assert abs(number - value) <= 1e-6 * abs(value), (number, value)
        return number
    number = read(address, ctypes.c_int64 if "int64" in str(annotation) else ctypes.c_int32)
    assert number == value, (number, value)
    return number


def launch(name, image, sizes, given):
    try:
        kernel, arguments, grid = expected[len(launched)]
        image_expected = compiled[len(launched)]
        launched.append(name)
        assert name.decode() == kernel.fn.__name__
        assert tuple(sizes[:3]) == (*grid, 1, 1)[:3], (name, sizes[:3], grid)
        assert sizes[3] in (128, 256)
        assert tuple(sizes[4:6]) == (1, 1)
        assert ctypes.string_at(image, len(image_expected)) == image_expected
        annotations = kernel.fn.__annotations__
        passed, index = [], 0
        for name_of, value in zip(kernel.arg_names, arguments, strict=True):
            if "constexpr" in str(annotations.get(name_of)):
                passed.append(value)
                continue
            passed.append(received(value, annotations.get(name_of), given[index]))
            index += 1
        for _ in range(2):  # memory that Triton may want
            assert read(given[index], ctypes.c_uint64) == 0
            index += 1
        run_interpreted(kernel, *passed, grid=grid, warmup=False)
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def compare(operation, function, *arguments):
    x = arguments[0]
    parameters = x.dtype if arguments[1].dtype == arguments[2].dtype == x.dtype else torch.float32
    channels = x.shape[1]
    kind = channels % 16 == 0, tiles.shape_class(channels)
    by_operation = images[generation, x.dtype, parameters, *kind]
    compiled[:] = by_operation[operation == "linear_attention"]
    expected.clear()
    launched.clear()
    InterpretedFunction.run = record
    wanted = function(*arguments)
    InterpretedFunction.run = run_interpreted
    kernel = torch.library.get_kernel(f"gsd::{operation}", "CUDA")
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
    found = kernel.call_boxed(keys, *arguments)
    assert len(launched) == len(expected)
    for one, other in zip(found, wanted, strict=True):
        assert one.stride() == other.stride()
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def cases(dtype, parameters, channels):
    generator = torch.Generator().manual_seed(8)
    size = (33, 17) if channels == 20 else (7, 5)  # two runs of tokens, or one

    def normal(*size, dtype=parameters):
        return torch.randn(size, generator=generator).to(dtype)

    x = normal(2, channels, *size, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    c = [normal(channels) for _ in range(6)]
    unaligned = normal(channels + 1)[1:]
    forward = group_norm_silu.forward
    yield "group_norm_silu", forward, x, c[0], unaligned, 4, None, None, 1e-5
    shift, residual = normal(2, channels), normal(2, channels, *size, dtype=dtype)
    yield "group_norm_silu", forward, x.contiguous(), c[0], c[1].double(), 4, shift, residual, 1e-3
    qkv, out = normal(384, channels, 1, 1), normal(channels, 128, 1, 1)
    forward = linear_attention.forward
    yield "linear_attention", forward, x, c[0], c[1], qkv, out, *c[2:5], 4, 1e-5


libcuda.set_generation(generation)
Listener = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_uint),
    ctypes.POINTER(ctypes.c_void_p),
)
listener = Listener(launch)
libcuda.set_listener(listener)


def failure(case):
    try:
        compare(*case)
    except RuntimeError as error:
        return str(error).splitlines()[0]


OLD, NEW = 3, 1
F, B = torch.float32, torch.bfloat16
CASES = [(F, F, 32), (F, F, 20), (F, F, 80), (B, F, 32), (B, B, 32), (B, B, 80)]
first = next(cases(*CASES[0]))
libcuda.set_generation(7)
print(torch.ops.gsd.gpu_obstacle(0))
print(failure(first))
libcuda.set_generation(generation)
libcuda.set_refusal(222)
print(torch.ops.gsd.gpu_obstacle(0))
print(failure(first))
libcuda.set_refusal(0)
libcuda.set_capturing(OLD)
print(failure(first))
libcuda.set_capturing(NEW)
assert torch.ops.gsd.gpu_obstacle(0) == ""
for kind in CASES if generation == 9 else CASES[:1]:  # the others' images differ
    for case in cases(*kind):
        compare(*case)
        print(case[0], *(name.decode() for name in launched))
once = libcuda.preparations()
compare(*case)
assert libcuda.preparations() == once
backends.compiled_obstacle = lambda _: ""
backends.launched_from_cpp[case[0]]()
compare(*case)  # Python has taken over, and leaves it to C++
assert libcuda.left_behind() == 0
refuse = Listener(lambda *_: 1)
libcuda.set_listener(refuse)
print(failure(case))
assert libcuda.left_behind() == 0
