"""What this machine computes on, and the memory that this process takes of it."""

import ctypes
import re
import resource
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch

from genselfdiff.errors import InputError

_STATUS = Path("/proc/self/status")


def choose_device(name: str | torch.device | None = None) -> torch.device:
    """The device called ``name``; None: cuda, else mps, else cpu, whichever is there.

    Raises:
        InputError: not a device, or not on this machine.
    """
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"no device {str(name)!r}: use cpu, cuda, cuda:N or mps") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"device {device} is not supported: use cpu, cuda, cuda:N or mps")
    absent = device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    if absent or (device.type == "mps" and not torch.backends.mps.is_available()):
        raise InputError(f"device {device} is not on this machine: use --device cpu")
    return device


def choose_devices(name: str | torch.device | None = None) -> tuple[torch.device, ...]:
    """Like ``choose_device``; "cuda:0,cuda:1" names several GPUs.

    Raises:
        InputError: as there; or one of several is no GPU, or named twice.
    """
    if not isinstance(name, str) or "," not in name:
        return (choose_device(name),)
    devices = tuple(choose_device(part.strip()) for part in name.split(","))
    if any(device.type != "cuda" or device.index is None for device in devices):
        raise InputError(f"devices {name}: only GPUs work together, such as cuda:0,cuda:1")
    if len(set(devices)) < len(devices):
        raise InputError(f"devices {name}: one is named twice")
    return devices


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is computed faster there than float32.

    Of CPUs on those with AMX, and on AMD's with AVX-512's instructions for it. With Intel's our
    float32 is ahead (benchmarks/RESULTS.md, "Convolutions").
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        has = cpu_capabilities()
        twice = has.get("avx512_bf16") and str(has.get("cpu_name", "")).startswith("AMD")
        return bool(has.get("amx_bf16") or twice)
    return False


def cpu_capabilities() -> Mapping[str, object]:
    """What torch tells of the CPU: instruction sets, its name. Of torch 2.10 that is AMX alone."""
    if hasattr(torch.cpu, "get_capabilities"):
        return torch.cpu.get_capabilities()
    return {"amx_bf16": torch.cpu._is_amx_tile_supported()}


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy on ``device``, which a GPU makes by itself: who calls this does not wait for it."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()  # pinned by a loader, it stays as it is
    return tensor.to(device, non_blocking=True)


class Fetched:
    """A tensor on its way to the CPU, for which a GPU is waited for when it is looked at."""

    def __init__(self, tensor: torch.Tensor) -> None:
        on_gpu = tensor.device.type == "cuda"
        self._tensor = tensor.to("cpu", non_blocking=on_gpu)  # then into page-locked memory
        self._event = torch.cuda.current_stream(tensor.device).record_event() if on_gpu else None

    def tensor(self) -> torch.Tensor:
        """The tensor, on the CPU."""
        if self._event is not None:
            self._event.synchronize()
        return self._tensor


def keep_freed_memory() -> None:
    """Make glibc keep the memory of one tile for the next, for the rest of this process.

    Otherwise every activation is mapped from the kernel and zeroed anew, page by page: 15 to 30 %
    of the processor time of a network here. Does nothing on other systems. For programs, not for
    libraries: call it before threads start.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        arena_max, mmap_threshold, trim_threshold = -8, -3, -1
        mallopt(arena_max, 1)
        mallopt(mmap_threshold, 1 << 30)
        mallopt(trim_threshold, (1 << 31) - 1)


def peak_bytes() -> int:
    """The most this process has held so far."""
    if _STATUS.exists():  # what the system counts elsewhere can begin with the parent's peak
        return _status("VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak() -> None:
    """Let ``peak_bytes`` begin anew from what is held now, where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def resident_bytes() -> int:
    """What this process holds now; where the system does not tell, the most it has held."""
    return _status("VmRSS") if _STATUS.exists() else peak_bytes()


def _status(name: str) -> int:
    found = re.search(rf"^{name}:\s*(\d+) kB", _STATUS.read_text(), re.M)
    return int(found[1]) * 1024 if found else 0
