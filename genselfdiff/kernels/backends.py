"""Which implementation of an operation runs: the environment variable GSD_KERNELS, or the best.

``auto`` (the default) takes the fastest implementation for the tensor's device and dtype and is
plain torch where there is none. Any other choice runs as named or is an error that says why not.
With ``reference`` from the start, the native library is not even loaded: the graph of an exported
model calls the operations by name and runs on what torch has for them.
"""

import importlib
import importlib.util
import logging
import os
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import torch

from genselfdiff.errors import InputError
from genselfdiff.kernels import native
from genselfdiff.kernels.autograd import differentiable
from genselfdiff.kernels.checks import check_devices

CHOICES = ("auto", "reference", "cpp", "triton", "cuda")
OLDEST_GPU = (8, 0)
"""Compute capability that the Triton kernels are compiled and checked for."""

triton_devices = {"cuda"}
"""Device types that Triton kernels take; the tests add the CPU, for Triton's interpreter."""

launched_from_cpp: dict[str, Callable[[], None]] = {}
"""Operations whose Triton kernels the native library has compiled in, and launches itself; each
with what makes others serve where these cannot: Triton in Python, or else plain torch."""

Function = TypeVar("Function", bound=Callable[..., Any])

logger = logging.getLogger("genselfdiff")
_taking_over_lock = threading.Lock()
_library = torch.library.Library("gsd", "FRAGMENT")  # type: ignore[no-untyped-call]


def constant_when_compiled(function: Function) -> Function:
    """Let torch.compile take what the function returns for a constant.

    ``torch.compiler.assume_constant_result`` does no more, but imports the compiler for it: 70 MB
    and a second of every start. A compiled function that it did not work for fails in the tests.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@dataclass(frozen=True, eq=False)  # one is like no other, and found by its address
class Operation:
    """An operation of the ``gsd`` namespace and what it has native implementations for.

    Attributes:
        name: as in ``torch.ops.gsd.<name>``.
        dtypes: those that the C++ CPU kernel and the Triton GPU kernel take.
        triton: whether there is a Triton kernel; where there is none, GPUs take plain torch.
        tables: arguments that may be on the CPU whatever the others are on.
    """

    name: str
    dtypes: frozenset[torch.dtype]
    triton: bool = True
    tables: frozenset[str] = frozenset()

    @constant_when_compiled
    def backend(
        self, device: torch.device, dtype: torch.dtype, obstacle: str = "", *, detour: bool = False
    ) -> str:
        """``cpp``, ``triton`` or ``reference`` for a tensor of that device and dtype.

        Args:
            device: where the operation is to run.
            dtype: of its main argument.
            obstacle: what else keeps the native kernels from running, in words; empty: nothing.
            detour: a native kernel could run, but plain torch is faster.

        Raises:
            InputError: GSD_KERNELS or GSD_CPU_ISA asks for what is unknown or cannot run.
        """
        choice = os.environ.get("GSD_KERNELS") or "auto"
        isa = os.environ.get("GSD_CPU_ISA") if device.type == "cpu" else None
        return decided(choice, isa, self, device, dtype, obstacle, detour)

    def prepare_scripted(self, device: torch.device) -> None:
        """Make TorchScript calls of the operation run on ``device`` as those from Python do.

        Torch gives such a call to the native kernel whenever that is loaded: where that cannot run,
        another takes over.

        Raises:
            InputError: as `backend`, or GSD_KERNELS asks for plain torch too late.
        """
        self.backend(device, torch.float32)
        index = _gpu_index(device)
        if index is not None and self.name in launched_from_cpp and compiled_obstacle(index):
            launched_from_cpp[self.name]()
        refused = os.environ.get("GSD_KERNELS") == "reference"
        if refused and _has_kernel(self.name, device.type.upper()):
            raise InputError(
                "GSD_KERNELS=reference: exported models obey it only if it is set before"
                " genselfdiff is imported"
            )

    def register(
        self,
        schema: str,
        plain: Callable[..., Any],
        shapes: Callable[..., Any],
        is_compiled: Callable[..., bool] = lambda *_: True,
    ) -> None:
        """Make the operation callable wherever the native library does not.

        Args:
            schema: what follows the name in csrc/ops.cpp; used where that is not loaded.
            plain: plain-torch implementation with the operation's own signature, in a
                ``reference.py``; its Triton twin has the same name, in the ``triton.py`` beside it.
            shapes: the same for fake tensors: results of the right shape and dtype, no values.
            is_compiled: whether the GPU kernels in the native library, where it has some, take
                arguments of that shape.
        """
        if not hasattr(torch.ops.gsd, self.name):  # no library, or one from before the operation
            _library.define(self.name + schema)  # type: ignore[no-untyped-call]
        # With kernels for CPU and GPU, this one serves all the other devices.
        _library.impl(  # type: ignore[no-untyped-call]
            self.name, plain, "CompositeExplicitAutograd"
        )
        refused = native.problem() == native.REFUSED
        if _has_kernel(self.name, "CUDA"):
            launched_from_cpp[self.name] = _taking_over(self, plain, is_compiled)
        elif self.triton and _triton_installed() and torch.version.hip is None and not refused:
            twin = _triton_twin(self, plain)
            _library.impl(self.name, twin, "CUDA")  # type: ignore[no-untyped-call]
        torch.library.register_fake(f"gsd::{self.name}", shapes, lib=_library)

    def register_autograd(
        self, setup_context: Callable[..., None], backward: Callable[..., Any]
    ) -> None:
        """Make the operation differentiable, once it is registered; see `differentiable`."""
        _library.impl(  # type: ignore[no-untyped-call]
            self.name, differentiable(self.name, setup_context, backward), "Autograd"
        )


def _has_kernel(name: str, dispatch_key: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"gsd::{name}", dispatch_key)


def _triton_twin(operation: Operation, plain: Callable[..., Any]) -> Callable[..., Any]:
    """The Triton implementation beside a plain one, imported when it is first called."""
    module = plain.__module__.removesuffix("reference") + "triton"
    name, tables = operation.name, operation.tables
    names = [argument.name for argument in getattr(torch.ops.gsd, name).default._schema.arguments]
    twin: Callable[..., Any] | None = None

    def on_gpu(*arguments: Any) -> Any:
        nonlocal twin
        if twin is None:
            twin = getattr(importlib.import_module(module), plain.__name__)
        device = arguments[0].device
        if {x.device for x in arguments if isinstance(x, torch.Tensor)} != {device}:
            check_devices(name, dict(zip(names, arguments, strict=True)), tables)
        if device.index == torch.cuda.current_device():
            return twin(*arguments)
        with torch.cuda.device(device):  # Triton launches on the current device
            return twin(*arguments)

    return on_gpu


def _taking_over(
    operation: Operation, plain: Callable[..., Any], is_compiled: Callable[..., bool]
) -> Callable[[], None]:
    """What has Python choose, in each call on a GPU: compiled kernels, Triton's own, plain torch.

    Only where it is needed: Python takes longer to call than the compiled kernels.
    """
    name = operation.name
    twin = _triton_twin(operation, plain)

    taken = False

    def take_over() -> None:
        nonlocal taken
        with _taking_over_lock:
            if not taken:
                replace()
            taken = True

    def replace() -> None:
        compiled = torch.library.get_kernel(f"gsd::{name}", "CUDA")
        keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)

        def on_gpu(*arguments: Any) -> Any:
            device = arguments[0].device
            if is_compiled(*arguments) and not compiled_obstacle(device.index):
                return compiled.call_boxed(keys, *arguments)
            serves = _triton_installed() and not _triton_obstacle(name, device)
            return twin(*arguments) if serves else plain(*arguments)

        with warnings.catch_warnings():  # it is known that there is another kernel
            warnings.simplefilter("ignore")
            _library.impl(name, on_gpu, "CUDA")  # type: ignore[no-untyped-call]

    return take_over


@cache
def _triton_installed() -> bool:
    return importlib.util.find_spec("triton") is not None


@constant_when_compiled
def let_triton_serve(name: str) -> bool:
    """Let Triton do what the native library's GPU kernels do not; False: there is no Triton."""
    installed = _triton_installed()
    if installed and name in launched_from_cpp:
        launched_from_cpp[name]()
    return installed


@cache
def decided(
    choice: str,
    isa: str | None,
    operation: Operation,
    device: torch.device,
    dtype: torch.dtype,
    obstacle: str,
    detour: bool,
) -> str:
    """As `Operation.backend`, once for all calls that differ in nothing that matters.

    What else it depends on, such as the library and the GPU, stays as it is in a process.
    """
    if choice not in CHOICES:
        raise InputError(f"GSD_KERNELS={choice} is unknown; choose one of: {', '.join(CHOICES)}")
    if choice == "reference":
        return "reference"
    kind = choice if choice != "auto" else "triton" if device.type == "cuda" else "cpp"
    if kind == "triton" and not operation.triton:
        return "reference"
    name = operation.name
    if kind == "cuda":
        obstacle = f"{name} has no cuda implementation, its GPU kernels are Triton's"
    elif kind == "triton":
        obstacle = obstacle or _triton_obstacle(name, device)
    else:
        obstacle = obstacle or _cpp_obstacle(name, device.type)
    if not obstacle and dtype not in operation.dtypes:
        written = "Triton" if kind == "triton" else "C++"
        of_dtype = str(dtype).removeprefix("torch.")
        obstacle = f"the {written} kernel of {name} does not take {of_dtype}"
    if choice != "auto" and obstacle:
        raise InputError(f"GSD_KERNELS={choice}: {obstacle}; use GSD_KERNELS=auto")
    if obstacle or (detour and choice == "auto"):
        return "reference"
    if kind == "cpp":
        native.selected_isa()
    return kind


def _cpp_obstacle(name: str, device: str) -> str:
    """Why the C++ kernel cannot run on such a device; empty where it can."""
    if not native.available():
        return f"there are no native kernels ({native.problem()}; gsd info tells more)"
    if device != "cpu":
        return f"the C++ kernel of {name} runs on the cpu, not on {device}"
    if not _has_kernel(name, "CPU"):
        return f"the native kernels lack {name}: they were built before it was written"
    return ""


def _triton_obstacle(name: str, device: torch.device) -> str:
    """Why the Triton kernel cannot run on such a device; empty where it can."""
    if torch.version.hip is not None:
        return "the Triton kernels are compiled and checked for NVIDIA GPUs alone"
    if device.type not in triton_devices:
        return f"the Triton kernel of {name} runs on a CUDA GPU, not on {device.type}"
    index = _gpu_index(device)
    if index is not None and _gpu_obstacle(index):
        return _gpu_obstacle(index)
    if name in launched_from_cpp and (index is None or not compiled_obstacle(index)):
        return ""
    return "" if let_triton_serve(name) else "triton is not installed (pip install torch triton)"


def _gpu_index(device: torch.device) -> int | None:
    """The number of a GPU of CUDA's, the current one where ``device`` has none; None: no GPU."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return None
    return torch.cuda.current_device() if device.index is None else device.index


@cache
def _gpu_obstacle(index: int) -> str:
    """Why no Triton kernel runs on that GPU, wherever it was compiled; empty where they do."""
    if torch.cuda.get_device_capability(index) < OLDEST_GPU:
        return "the Triton kernels need a GPU of compute capability {}.{}".format(*OLDEST_GPU)
    return ""


@cache
def compiled_obstacle(index: int) -> str:
    """Why the kernels in the native library cannot run on that GPU, said once; or empty."""
    found: str = torch.ops.gsd.gpu_obstacle(index)
    if found:
        logger.warning("cuda:%d runs without the GPU kernels that came with gsd: %s", index, found)
    return found
