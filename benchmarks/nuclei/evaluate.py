"""Score the nuclei model on images that neither trained it nor chose anything, by set and organ.

    python benchmarks/nuclei/evaluate.py MODEL FOLDER MONUSEG RESULTS.json [--instances no]

FOLDER is that of ``prepare.py``; MONUSEG has ``images/*.tif`` and ``instances/*.png`` of MoNuSeg's
training set (30 of its 37 images), which trains nothing here: it is of other hospitals, and
its licence would bind the weights. Every image is predicted whole, at 0.25 um/px. RESULTS gets the
mean of each metric over the images, its 95 % interval (bootstrap) and the number of images.
"""

import argparse
import dataclasses
import json
import time
from collections import defaultdict
from pathlib import Path

import torch

from genselfdiff.evaluation.evaluate import evaluate
from genselfdiff.evaluation.scores import EvaluationReport, ImageScores
from genselfdiff.evaluation.scoring import ObjectOptions

MPP = 0.25
METRICS = ("dice", "aji", "pq", "dq", "sq")
ORGANS = {
    "breast": ("A7", "AR", "E2"),
    "kidney": ("B0", "HE"),
    "liver": ("18", "21", "38", "49", "50"),
    "prostate": ("CH", "G9"),
    "bladder": ("DK", "G2"),
    "colon": ("AY", "NH"),
    "stomach": ("KB", "RD"),
}
"""Of MoNuSeg, by the hospital's code in the names (Kumar et al., IEEE TMI 2017)."""


def main() -> None:
    """Write the results, and print them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("monuseg", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument(
        "--instances",
        choices=("model", "thickness", "no"),
        default="model",
        help="how objects are told apart: as the model does, by their thickness, or not",
    )
    options = parser.parse_args()
    objects = {
        "model": ObjectOptions(),
        "thickness": ObjectOptions(instances=True, seed_distance=1.5),
        "no": ObjectOptions(instances=False),
    }[options.instances]
    sets = {"MoNuSeg": (options.monuseg / "images", options.monuseg / "instances")}
    for folder in sorted((options.folder / "test").iterdir()):
        sets[folder.name] = (folder / "images", folder / "masks")
    begin, results = time.perf_counter(), {}
    for name, (images, masks) in sets.items():
        report = evaluate(options.model, images, masks, mpp=MPP, foreground=True, objects=objects)
        results[name] = figures_of(report)
        if name == "MoNuSeg":
            for organ, scores in by_organ(report.images).items():
                part = dataclasses.replace(report, images=tuple(scores))
                results[f"MoNuSeg, {organ}"] = figures_of(part)
    for name, figures in results.items():
        told = (f"{key} {value['mean']:.3f}" for key, value in figures.items() if key in METRICS)
        print(f"{name:20} {figures['images']:3} images  {'  '.join(told)}")
    told = {"torch": torch.__version__, "seconds": round(time.perf_counter() - begin)}
    content = {"instances": options.instances, **told, "sets": results}
    options.results.write_text(json.dumps(content, indent=2) + "\n")


def figures_of(report: EvaluationReport) -> dict[str, object]:
    """Mean and interval of each of METRICS, for nuclei."""
    figures: dict[str, object] = {"images": len(report.images)}
    for key in METRICS:
        summary = report.by_class[key][1]
        interval = summary.interval and [round(value, 4) for value in summary.interval]
        figures[key] = {"mean": round(summary.mean, 4), "interval": interval}
    return figures


def by_organ(images: tuple[ImageScores, ...]) -> dict[str, list[ImageScores]]:
    """The images of each organ, which the second part of a TCGA name tells."""
    organ_of = {code: organ for organ, codes in ORGANS.items() for code in codes}
    found: defaultdict[str, list[ImageScores]] = defaultdict(list)
    for image in images:
        found[organ_of[image.name.split("-")[1]]].append(image)
    return dict(sorted(found.items()))


if __name__ == "__main__":
    main()
