"""Argument checks and table look-ups shared by the plain-torch operations.

The messages are those of csrc/common/checks.h: an operation fails alike whatever runs it.
"""

from collections.abc import Container, Mapping

import torch


def check_times(op: str, t: torch.Tensor, batch: int, table: torch.Tensor, table_name: str) -> None:
    """Raise RuntimeError unless ``t`` is int64 (batch,) and within the table.

    Values are looked at on the CPU only, and not while compiling: elsewhere that would wait for the
    device, whose own look-up fails where a step lies beyond the table.
    """
    if table.dim() != 1:
        raise RuntimeError(f"{op}: {table_name} must have one dimension")
    if t.dtype != torch.int64 or t.shape != (batch,):
        raise RuntimeError(f"{op}: t must be int64 of shape ({batch},), one time step a sample")
    if t.device.type != "cpu" or torch.compiler.is_compiling():
        return
    for b, step in enumerate(t.tolist()):
        if not 0 <= step < len(table):
            raise RuntimeError(
                f"{op}: t[{b}] is {step}, outside the table of {len(table)} time steps"
            )


def check_normed(op: str, x: torch.Tensor, groups: int) -> None:
    """Raise ValueError where a norm has one element in all, as torch.nn.functional.group_norm does.

    Of one, there is no deviation.
    """
    if x.numel() == groups and groups > 0:
        raise ValueError(
            f"{op}: expected more than 1 value a group, got {groups} groups of {tuple(x.shape)}"
        )


def check_dtype(op: str, name: str, tensor: torch.Tensor, dtypes: tuple[torch.dtype, ...]) -> None:
    """Raise RuntimeError unless a kernel takes tensors of that dtype."""
    if tensor.dtype not in dtypes:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise RuntimeError(
            f"{op}: the native kernel takes {name} in {known}; for other dtypes call"
            f" genselfdiff.kernels.{op}"
        )


def check_devices(op: str, arguments: Mapping[str, object], tables: Container[str]) -> None:
    """Raise RuntimeError unless all tensors are where the first is: a kernel gets addresses alone.

    Those called as one of ``tables`` may stay on the CPU.
    """
    tensors = {name: x for name, x in arguments.items() if isinstance(x, torch.Tensor)}
    device = next(iter(tensors.values())).device
    for name, tensor in tensors.items():
        fetched = name in tables and tensor.device.type == "cpu"
        if tensor.device != device and not fetched:
            raise RuntimeError(
                f"{op}: {name} is on {tensor.device} and not on {device}, where its first argument"
                " is"
            )


def kernel_parameters(
    op: str, dtype: torch.dtype, named: dict[str, tuple[torch.Tensor, int]]
) -> list[torch.Tensor]:
    """Parameters as a GPU kernel loads them: as they are where all have ``dtype``, or float32.

    Args:
        op: for messages.
        dtype: of the tensor that they belong to.
        named: each with the number of elements that it must have.

    Raises:
        RuntimeError: a number is another.
    """
    for name, (tensor, count) in named.items():
        if tensor.numel() != count:
            raise RuntimeError(f"{op}: {name} must have {count} elements")
    tensors = [tensor for tensor, _ in named.values()]
    kept = all(tensor.dtype == dtype for tensor in tensors)
    return [(tensor if kept else tensor.float()).contiguous() for tensor in tensors]


def look_up(table: torch.Tensor, t: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """``table[t]`` shaped (N, 1, ...) to broadcast over ``like``, in its dtype and on its device.

    The table may stay on the CPU, as it must for devices without float64 (mps).
    """
    values = table.to(dtype=like.dtype).to(like.device)
    return values[t].reshape(-1, *[1] * (like.dim() - 1))


def exact_dtype(device: torch.device) -> torch.dtype:
    """float64, or float32 on devices that have no better."""
    return torch.float32 if device.type == "mps" else torch.float64
