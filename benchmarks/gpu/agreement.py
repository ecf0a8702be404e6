"""How far labels of a device are those of the CPU."""

from typing import Any

LEAST = {"float32": 0.99, "bfloat16": 0.95}
"""By precision, the Dice below which something is wrong."""


def dice(found: Any, wanted: Any) -> float:
    """Of what is foreground in two arrays or tensors of truth values; 1 where neither has any."""
    both, either = (found & wanted).sum().item(), (found.sum() + wanted.sum()).item()
    return 2 * both / either if either else 1.0
