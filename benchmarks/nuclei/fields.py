"""What 3, 5 and 10 labelled fields of a user are worth to a nuclei model that never saw their like.

    python benchmarks/nuclei/prepare.py DATA without_tnbc --without tnbc
    (train on it by recipe.toml, into RUN)
    python benchmarks/nuclei/fields.py FOLDER RUN OUT [--steps 300]

FOLDER is that of ``prepare.py`` with all sets: its TNBC images for training are the user's, drawn
with a seed, the fewer among the more; the patients that it holds back score. Three models are
compared: RUN as it is, RUN fine-tuned, and the same network trained from scratch, for as many steps
and for as many as --scratch says. Settings are those that a user gets, but for the steps. Printed
are means over the images, and those of the differences, with 95 % intervals (bootstrap of pairs).
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genselfdiff.evaluation.bootstrap import mean_interval
from genselfdiff.evaluation.evaluate import evaluate
from genselfdiff.evaluation.scoring import ObjectOptions
from genselfdiff.training.export import export
from genselfdiff.training.run_folder import RunFolder
from genselfdiff.training.runs import finetune
from genselfdiff.training.settings.completing import START_SHARE
from genselfdiff.training.settings.run_config import NO_INIT
from genselfdiff.training.settings.stage_configs import FinetuneConfig, read_run_config

MPP = 0.25
COUNTS = (3, 5, 10)
METRICS = ("dice", "aji", "pq")


def main() -> None:
    """Train, score and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=300, help="of fine-tuning")
    parser.add_argument("--scratch", type=int, default=1000, help="steps of training from scratch")
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--start-share", type=float, default=START_SHARE)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    test = options.folder / "test" / "tnbc"
    before = scores_of(exported(options.run, options.out / "as-it-is.ts"), test)
    report("as it is", before, before)
    images = sorted((options.folder / "train" / "images").glob("tnbc_??_*.png"))
    images = [image for image in images if image.stem.count("_") == 2]  # the second copies left out
    drawn = np.random.default_rng(options.seed).permutation(len(images))
    base = FinetuneConfig(
        foreground=True,
        instances=True,
        mpp=MPP,
        seed=options.seed,
        validate_every=50,
        learning_rate=options.learning_rate,
    )
    for count in COUNTS:
        fields = options.out / f"fields-{count}"
        lay_fields([images[i] for i in drawn[:count]], fields)
        base = replace(base, images=str(fields / "images"), masks=str(fields / "masks"))
        origin = read_run_config(RunFolder(options.run).config)
        starts = {
            "fine-tuned": replace(
                base,
                init=str(options.run),
                steps=options.steps,
                start_share=options.start_share,
            ),
            "from scratch": replace(
                base, init=NO_INIT, architecture=origin.architecture, steps=options.scratch
            ),
        }
        for name, config in starts.items():
            run = options.out / f"{name.replace(' ', '-')}-{count}"
            if not run.exists():
                finetune(config, run)
            after = scores_of(exported(run, run.with_suffix(".ts")), test)
            report(f"{count} fields, {name}", after, before)


def lay_fields(images: list[Path], folder: Path) -> None:
    """Link images and their masks into a folder."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
        for image in images:
            link = folder / part / image.name
            if not link.exists():
                link.symlink_to((image.parent.parent / part / image.name).resolve())


def exported(run: Path, model: Path) -> Path:
    """The run's best checkpoint as a model."""
    if not model.exists():
        model.parent.mkdir(parents=True, exist_ok=True)
        export(run, model)
    return model


def scores_of(model: Path, test: Path) -> dict[str, NDArray[np.float64]]:
    """The score of each image, by metric."""
    report = evaluate(
        model,
        test / "images",
        test / "masks",
        mpp=MPP,
        foreground=True,
        objects=ObjectOptions(),
    )
    return {key: np.array([image.by_class[key][1] for image in report.images]) for key in METRICS}


def report(
    name: str, scores: dict[str, NDArray[np.float64]], before: dict[str, NDArray[np.float64]]
) -> None:
    """Print means, and mean differences to ``before`` with their intervals."""
    told = []
    for key, values in scores.items():
        differences = values - before[key]
        interval = mean_interval(differences)
        assert interval is not None
        low, high = interval
        told.append(
            f"{key} {values.mean():.3f} ({differences.mean():+.3f}, {low:+.3f} {high:+.3f})"
        )
    print(f"{name:24} {'  '.join(told)}", flush=True)


if __name__ == "__main__":
    main()
