"""What a user's script may look like: mypy reads it as strictly as the package, and nobody runs it.

``assert_type`` is what an editor must know; a name that had lost its type would fail there.
"""

from pathlib import Path
from typing import assert_type

import numpy as np
import torch
from numpy.typing import NDArray

import genselfdiff
from genselfdiff import (
    FinetuneConfig,
    LoadedModel,
    ModelInfo,
    MultiLoss,
    NoiseSchedule,
    P2Loss,
    PretrainConfig,
    SegmentResult,
)
from genselfdiff.errors import GsdError
from genselfdiff.models.unet import UNet


def masks(slides: list[Path], out: Path) -> None:
    """Slides to masks, objects and figures."""
    result = genselfdiff.segment(slides[0], out / "mask.tif", "nuclei", overlay=True)
    assert_type(result, SegmentResult)
    for outcome in genselfdiff.segment_all(genselfdiff.plan_outputs(slides, out), "nuclei"):
        assert_type(outcome.error, GsdError | None)
    found = genselfdiff.write_objects(out / "mask.tif", table=out / "nuclei.csv", instances=True)
    assert_type(found.counts, dict[str, int])
    with genselfdiff.open_slide(slides[0]) as slide:
        assert_type(slide.mpp, float | None)
        assert_type(slide.read_level(0, 0, 256, 256), NDArray[np.uint8])


def prediction(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """One image in memory."""
    model = genselfdiff.load_model("nuclei", "cpu")
    assert_type(model, LoadedModel)
    assert_type(model.info, ModelInfo)
    assert_type(genselfdiff.predict_image(model, image, labels=True), NDArray[np.uint8])
    assert_type(model(image), NDArray[np.float32])
    assert_type(model(image, labels=True), NDArray[np.uint8])
    assert_type(model(torch.from_numpy(image)), torch.Tensor)
    probabilities = genselfdiff.predict_image(model, image)
    labels = genselfdiff.predict_image(model, image, labels=True)
    assert_type(genselfdiff.instances(labels, 0.25, cores=probabilities[-1]), NDArray[np.int32])
    return probabilities


def own_network(network: torch.nn.Module, slide: Path, out: Path) -> str:
    """A network that gsd knows nothing of."""
    model = genselfdiff.wrap_model(network, classes=("background", "tumour"), mpp=1.0)
    assert_type(model, LoadedModel)
    return genselfdiff.segment(slide, out / "mask.tif", model).to_json()


def training(tiles: Path, images: Path, labels: Path, out: Path) -> None:
    """Both stages, the model's file and its scores."""
    first = PretrainConfig(data=(str(tiles),), mpp=0.5, steps=1000)
    losses: list[float] = []
    run = genselfdiff.pretrain(
        first, out / "run1", on_log=lambda line: losses.append(line.get("training/loss", 0.0))
    )
    second = FinetuneConfig(images=str(images), masks=str(labels), mpp=0.5, init=str(run.path))
    genselfdiff.finetune(second, out / "run2")
    assert_type(genselfdiff.export(out / "run2", out / "model.ts"), ModelInfo)
    report = genselfdiff.evaluate(out / "model.ts", images, labels, mpp=0.5)
    assert_type(report.classes, tuple[str, ...])


def parts(noise: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
    """What training is made of, for loops of one's own."""
    network = genselfdiff.create_model("small", out_channels=2)
    assert_type(network, UNet)
    schedule = NoiseSchedule.create("cosine", 1000)
    assert_type(schedule.betas, torch.Tensor)
    assert_type(P2Loss(schedule).forward(noise, noise, labels), torch.Tensor)
    assert_type(MultiLoss().forward(logits, labels), torch.Tensor)
    assert_type(genselfdiff.kernels.multi_loss(logits, labels), torch.Tensor)
