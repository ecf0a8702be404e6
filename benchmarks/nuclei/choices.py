"""What the nuclei model was chosen to be: its target, network and beginning, tried one by one.

    python benchmarks/nuclei/choices.py FOLDER OUT [--steps 600] [--only NAME ...]

Each arm changes one thing of the recipe and trains from scratch for as many steps with the same
crops, on the data that ``prepare.py`` left in FOLDER; the validation images score it. Printed are
the means over these images, seconds a training step took, and megapixels a second that the network
predicts with one thread. Of targets there stand:

- core: what is at least 0.4 of an object's greatest depth deep (the recipe's); centre: 0.7;
- all but borders: objects without the pixels that have another object within two pixels;
- and, with the masks of the first, the watershed by thickness, which learns nothing.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from genselfdiff.data.labelled import cores
from genselfdiff.evaluation.evaluate import evaluate
from genselfdiff.evaluation.scoring import ObjectOptions
from genselfdiff.inference.predictor import Predictor
from genselfdiff.models.model_file import load_model
from genselfdiff.objects.instances import SEED_DISTANCE
from genselfdiff.training.export import export
from genselfdiff.training.runs import finetune, pretrain
from genselfdiff.training.settings.stage_configs import FinetuneConfig, PretrainConfig

MPP = 0.25
TILE = 512
RECIPE = "as in the recipe"

Target = Callable[[NDArray[np.integer]], NDArray[np.bool_]]


def depth_from(share: float) -> Target:
    """Cores that begin at this share of the greatest depth."""

    def target(numbers: NDArray[np.integer]) -> NDArray[np.bool_]:
        before, cores.CORE_DEPTH = cores.CORE_DEPTH, share
        try:
            return cores.cores_of(numbers)
        finally:
            cores.CORE_DEPTH = before

    return target


def borders_left_out(numbers: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Objects without the pixels that have another object within two pixels."""
    highest = ndimage.maximum_filter(numbers, 5)
    lowest = ndimage.minimum_filter(np.where(numbers == 0, numbers.max() + 1, numbers), 5)
    inside: NDArray[np.bool_] = numbers != 0
    return inside & (highest == numbers) & (lowest == numbers)


class Arm(NamedTuple):
    """What is tried.

    Attributes:
        architecture: of the network.
        width: its own if None.
        target: what is learnt beside the class.
        pretrain_steps: of stage 1 on the same images before; 0: from scratch.
    """

    architecture: str = "fastest"
    width: int | None = None
    target: Target = depth_from(0.4)
    pretrain_steps: int = 0


ARMS = {
    RECIPE: Arm(),
    "centre": Arm(target=depth_from(0.7)),
    "all but borders": Arm(target=borders_left_out),
    "narrow": Arm(width=32),
    "fast": Arm("fast"),
    "small": Arm("small"),
    "small, narrow": Arm("small", width=24),
    "pretrained": Arm(pretrain_steps=1500),
}


def main() -> None:
    """Train each, and print its scores."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--only", nargs="*", choices=list(ARMS), default=list(ARMS))
    options = parser.parse_args()
    train = options.folder / "train"
    for name in options.only:
        run = options.out / name.replace(", ", "-").replace(" ", "-")
        model = run.with_suffix(".ts")
        seconds = train_arm(ARMS[name], train, run, options.steps)
        export(run, model, overwrite=True)
        speed = megapixels_a_second(model)
        figures = scores_of(model, train, ObjectOptions())
        print(f"{name:16} {figures}  {seconds:.2f} s a step  {speed:.2f} Mpx/s", flush=True)
        if name == RECIPE:
            thickness = ObjectOptions(instances=True, seed_distance=SEED_DISTANCE)
            print(f"{'  by thickness':16} {scores_of(model, train, thickness)}", flush=True)


def train_arm(arm: Arm, train: Path, run: Path, steps: int) -> float:
    """Train into ``run``; return the CPU seconds of a step of stage 2."""
    config = FinetuneConfig(
        architecture=arm.architecture,
        width=arm.width,
        images=str(train / "images"),
        masks=str(train / "masks"),
        val=str(train / "validation.txt"),
        foreground=True,
        instances=True,
        mpp=MPP,
        augmentation="strong",
        steps=steps,
        learning_rate=5e-4,
        ema=0.99,
        validate_every=steps,
    )
    if arm.pretrain_steps:
        first = run.with_name(f"{run.name}-stage-1")
        stage_1 = PretrainConfig(
            data=(str(train / "images"),),
            image_mpp=MPP,
            mpp=MPP,
            architecture=arm.architecture,
            width=arm.width,
            steps=arm.pretrain_steps,
            learning_rate=5e-4,
            validate_every=arm.pretrain_steps,
            sample_every=0,
        )
        pretrain(stage_1, first)
        config = replace(config, init=str(first), architecture=None, width=None)
    begin = time.process_time()
    with mock.patch("genselfdiff.data.labelled.images.cores_of", arm.target):
        finetune(config, run)
    return (time.process_time() - begin) / steps


def megapixels_a_second(model: Path) -> float:
    """Of prediction alone, in float32."""
    torch.set_num_threads(1)
    predictor = Predictor(load_model(model, "cpu"), "float32")
    pixels = torch.randint(0, 256, (1, 3, TILE, TILE), dtype=torch.uint8)
    seconds = []
    for _ in range(6):
        begin = time.process_time()
        predictor(pixels)
        seconds.append(time.process_time() - begin)
    return TILE**2 / 1e6 / statistics.median(seconds[1:])


def scores_of(model: Path, train: Path, objects: ObjectOptions) -> str:
    """Mean scores of the validation images."""
    names = [f"{stem}.png" for stem in (train / "validation.txt").read_text().split()]
    with TemporaryDirectory() as folder:
        for part in ("images", "masks"):
            Path(folder, part).mkdir()
            for name in names:
                Path(folder, part, name).symlink_to((train / part / name).resolve())
        report = evaluate(
            model,
            Path(folder, "images"),
            Path(folder, "masks"),
            mpp=MPP,
            foreground=True,
            objects=objects,
        )
    figures = {key: report.by_class[key][1].mean for key in ("dice", "aji", "pq")}
    return "  ".join(f"{key} {value:.4f}" for key, value in figures.items())


if __name__ == "__main__":
    main()
