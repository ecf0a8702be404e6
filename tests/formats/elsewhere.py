"""Images that formats are compared by, and processes without some packages."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

SIZES = [(1, 1, 1), (1, 17, 33), (3, 64, 96)]
"""(N, H, W)."""


def images(size: tuple[int, int, int]) -> torch.Tensor:
    """(N, 3, H, W) uint8, always the same."""
    count, height, width = size
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def run_elsewhere(folder: Path, code: str, without: tuple[str, ...]) -> None:
    """Run Python in ``folder``, in a process that has not got some packages."""
    blocked = "".join(f"sys.modules[{name!r}] = None; " for name in without)
    environment = {name: os.environ[name] for name in os.environ if name != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"import sys; {blocked}\n{code}"],
        cwd=folder,
        env=environment,
        check=True,
    )


class Darkness(nn.Module):
    """Class 1 where the green channel is dark."""

    def __init__(self) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor([0.0]))

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        green = 50 * (x[:, 1:2] - self.threshold)
        return torch.cat((green, -green), dim=1)
