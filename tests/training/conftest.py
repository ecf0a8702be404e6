import numpy as np
import pytest
import torch
from PIL import Image

from genselfdiff.training.settings.stage_configs import FinetuneConfig, PretrainConfig


def tissue_field(seed: int, side: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Purple discs on pink, and the mask of the discs: easy to learn, and all tissue."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    mask = np.zeros((side, side), np.uint8)
    for _ in range(6):
        cy, cx = rng.integers(0, side, 2)
        mask[(y - cy) ** 2 + (x - cx) ** 2 < 80] = 1
    image = np.where(mask[..., None] == 1, (90, 60, 140), (225, 160, 190))
    image = image + rng.normal(0, 8, (side, side, 3))
    return image.clip(0, 255).astype(np.uint8), mask


@pytest.fixture(autouse=True)
def one_thread():
    """Networks this small gain nothing from more, and lose much where cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def assert_same_checkpoints():
    """Two `Checkpoint` are the same to the last bit."""

    def check(a, b):
        assert a.state == b.state
        for kind in ("weights", "average", "start", "optimiser"):
            of_a, of_b = getattr(a, kind), getattr(b, kind)
            assert of_a.keys() == of_b.keys(), kind
            for key, value in of_a.items():
                if kind == "optimiser":
                    assert all(torch.equal(value[name], of_b[key][name]) for name in value), key
                else:
                    assert torch.equal(value, of_b[key]), f"{kind}: {key}"

    return check


@pytest.fixture
def fields(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for i in range(5):
        image, mask = tissue_field(i)
        Image.fromarray(image).save(tmp_path / "images" / f"patient{i}-a.png")
        Image.fromarray(mask).save(tmp_path / "masks" / f"patient{i}-a.png")
    return tmp_path


SMALL = {
    "architecture": "tiny",
    "width": 8,
    "tile_size": 32,
    "batch_size": 4,
    "precision": "float32",
    "device": "cpu",
    "learning_rate": 2e-3,
}


@pytest.fixture
def pretrain_config(fields):
    return PretrainConfig(
        **SMALL,
        steps=8,
        validate_every=4,
        data=(str(fields / "images"),),
        mpp=0.5,
        image_mpp=0.5,
        validation_tiles=4,
        sample_every=8,
        timesteps=50,
    )


@pytest.fixture
def finetune_config(fields):
    return FinetuneConfig(
        **SMALL,
        steps=8,
        validate_every=4,
        images=str(fields / "images"),
        masks=str(fields / "masks"),
        mpp=0.5,
        val="patient0",
    )
