from pathlib import Path

import numpy as np
import pytest
import torch

REFERENCE = Path(__file__).parent / "reference"


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    """Figures (float64) made by running the authors' code on fixed inputs."""
    with np.load(REFERENCE / "golden.npz") as archive:
        return {name: archive[name] for name in archive.files}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
