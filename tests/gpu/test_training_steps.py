"""Whole training steps on the device: what they compute, and that nothing waits for it."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genselfdiff.training.loop.train import batches
from genselfdiff.training.runs import prepared
from genselfdiff.training.settings.run_config import RunConfig
from genselfdiff.training.settings.stage_configs import FinetuneConfig, PretrainConfig

from .conftest import DEVICE, ON_GPU, on_a_gpu

STEPS = 4 if ON_GPU else 1


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few images with the colours of tissue, and masks of what is dark in them."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for number in range(4):
        pixels = random.integers(-40, 41, (96, 96, 3)) + np.array((200, 120, 170))
        pixels = pixels.clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        Image.fromarray((pixels[..., 0] < 200).astype(np.uint8)).save(
            folder / "masks" / f"{number}.png"
        )
    return folder


def config_of(stage: str, folder: Path, precision: str) -> RunConfig:
    common = {
        **{"architecture": "tiny", "tile_size": 32, "batch_size": 2, "steps": 100},
        **{"device": str(DEVICE), "workers": 0, "precision": precision, "mpp": 0.5},
    }
    if stage == "pretrain":
        data = (str(folder / "images"),)
        return PretrainConfig(**common, data=data, image_mpp=0.5, validation_tiles=2)
    return FinetuneConfig(
        **common, images=str(folder / "images"), masks=str(folder / "masks"), val="0"
    )


def losses(config: RunConfig) -> Iterator[float]:
    """Of one step after another."""
    with prepared(config) as (task, step):
        step.network.train()
        for number, batch in enumerate(batches(task.dataset, config, step, 0)):
            loss, norm = step(batch, number).tolist()
            assert norm == norm
            yield loss


stages = pytest.mark.parametrize("stage", ["pretrain", "finetune"])


@stages
def test_losses_are_those_of_plain_torch(stage, images, monkeypatch, request):
    config = config_of(stage, images, "float32")
    ours = list(islice(losses(config), STEPS))
    monkeypatch.setenv("GSD_KERNELS", "reference")
    plain = list(islice(losses(config), STEPS))
    request.node.user_properties += [("ours", ours), ("plain", plain)]
    assert ours == pytest.approx(plain, rel=5e-3)


@stages
def test_losses_in_bfloat16_are_near(stage, images, request):
    single = list(islice(losses(config_of(stage, images, "float32")), STEPS))
    half = list(islice(losses(config_of(stage, images, "bfloat16")), STEPS))
    request.node.user_properties += [("float32", single), ("bfloat16", half)]
    assert half == pytest.approx(single, rel=0.05)


@on_a_gpu
@stages
def test_a_step_never_waits_for_the_gpu(stage, images):
    config = config_of(stage, images, "bfloat16")
    with prepared(config) as (task, step):
        step.network.train()
        tiles = iter(batches(task.dataset, config, step, 0))
        for number in range(2):  # kernels are compiled, memory is allocated
            step(next(tiles), number)
        batch = next(tiles)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            step(batch, 2)
        finally:
            torch.cuda.set_sync_debug_mode("default")
