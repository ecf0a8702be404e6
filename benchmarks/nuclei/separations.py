"""What a network should learn to tell touching nuclei apart: cores, borders or centres.

    python benchmarks/nuclei/separations.py FOLDER OUT [--steps 600]

A network learns each target from scratch, for as many steps, on the data that ``prepare.py`` left
in FOLDER; the validation images say which tells nuclei apart best. Beside it stands the watershed
by thickness, on the same masks.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from genselfdiff.data.labelled import cores
from genselfdiff.data.labelled import images as labelled_images
from genselfdiff.evaluation.evaluate import evaluate
from genselfdiff.evaluation.scoring import ObjectOptions
from genselfdiff.objects import SEED_DISTANCE
from genselfdiff.training.config import FinetuneConfig
from genselfdiff.training.export import export
from genselfdiff.training.runs import finetune

Target = Callable[[NDArray[np.integer]], NDArray[np.bool_]]
MPP = 0.25


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


TARGETS: dict[str, Target] = {
    "core, depth 0.4": depth_from(0.4),
    "centre, depth 0.7": depth_from(0.7),
    "all but borders": borders_left_out,
}


def main() -> None:
    """Train each, and print the scores of the validation images."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    train = options.folder / "train"
    for name, target in TARGETS.items():
        labelled_images.cores_of = target
        config = FinetuneConfig(
            architecture="fast",
            images=str(train / "images"),
            masks=str(train / "masks"),
            val=str(train / "validation.txt"),
            foreground=True,
            instances=True,
            mpp=MPP,
            augmentation="strong",
            steps=options.steps,
            learning_rate=5e-4,
            ema=0.99,
            validate_every=options.steps,
        )
        run = options.out / name.replace(", ", "-").replace(" ", "-")
        model = run.with_suffix(".ts")
        if not model.exists():
            finetune(config, run)
            export(run, model)
        print(f"{name:20} {scores_of(model, train, ObjectOptions())}")
        thickness = ObjectOptions(instances=True, seed_distance=SEED_DISTANCE)
        print(f"{'  by thickness':20} {scores_of(model, train, thickness)}", flush=True)


def scores_of(model: Path, train: Path, objects: ObjectOptions) -> str:
    """Mean scores of the validation images."""
    names = [f"{stem}.png" for stem in (train / "validation.txt").read_text().split()]
    with TemporaryDirectory() as folder:
        for part in ("images", "masks"):
            Path(folder, part).mkdir()
            for name in names:
                Path(folder, part, f"{name}.png").symlink_to(
                    (train / part / f"{name}.png").resolve()
                )
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
