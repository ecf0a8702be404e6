"""Nuclei on MoNuSeg: pretrained and fine-tuned, from scratch, and the classical rule.

    python benchmarks/monuseg.py DATA OUT

DATA is a folder with ``images/*.tif`` (40x, 0.25 um/px) and ``instances/*.png`` of the MoNuSeg
training set. The test images are every fifth patient of the sorted list, from the first; of the
others, every sixth from the third chooses the checkpoint, and the rest trains: all of it, and a few
images only. All is fixed by the list of names, before training. Pretraining sees the images of all
but the test. Two chains of runs go side by side, on one thread each: pretraining with what starts
from it, and from scratch. OUT keeps the runs, which go on where they were stopped.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from genselfdiff.data.classical import otsu_nuclei
from genselfdiff.data.labelled.pairs import find_pairs, load_pair
from genselfdiff.evaluation.pixel_metrics import confusion, dice, iou

STORED_MPP = 0.25
MPP = 0.5
COMMON = ("--tile-size", "128", "--learning-rate", "4e-4", "--validate-every", "100")
PRETRAIN_STEPS = 400
FINETUNE_STEPS = {"all": 700, "3": 300}
"""By the number of training images. From scratch takes once as many, and once the steps of both
stages, as one costs about the same in either."""


def main(data: Path, out: Path) -> None:
    """Run whatever is not there yet, then print the scores."""
    names = sorted(path.stem for path in (data / "images").glob("*.tif"))
    patients = sorted({patient_of(name) for name in names})
    test = patients[::5]
    rest = [patient for patient in patients if patient not in test]
    out.mkdir(parents=True, exist_ok=True)
    for folder, chosen in (("test", test), ("development", rest)):
        link(data, out / folder, [name for name in names if patient_of(name) in chosen])
    validation = ",".join(rest[2::6])

    development = out / "development"
    labelled = (
        *("--images", str(development / "images"), "--masks", str(development / "masks")),
        *("--foreground", "--mpp", str(STORED_MPP), "--resample-to", str(MPP)),
        *("--val", validation),
    )

    def finetune(name: str, init: str, budget: str, steps: int) -> None:
        few = () if budget == "all" else ("--train-images", budget)
        run(
            out / name,
            *("train", "finetune", *labelled, *few, "--init", init, "--steps", str(steps)),
            *COMMON,
        )
        model = out / f"{name}.ts"
        gsd("export", str(out / name), "-o", str(model), "--overwrite")
        gsd(
            *("evaluate", str(model), "--images", str(out / "test" / "images")),
            *("--masks", str(out / "test" / "masks"), "--mpp", str(STORED_MPP), "--foreground"),
            *("--json", str(out / f"{name}.json"), "--overwrite"),
        )

    def pretrained() -> None:
        run(
            out / "pretrain",
            *("train", "pretrain", str(development / "images"), "--mpp", str(MPP)),
            *("--image-mpp", str(STORED_MPP), "--steps", str(PRETRAIN_STEPS)),
            *("--sample-every", "200", *COMMON),
        )
        for budget, steps in FINETUNE_STEPS.items():
            finetune(f"finetune_{budget}", str(out / "pretrain"), budget, steps)

    def scratch() -> None:
        for budget, steps in FINETUNE_STEPS.items():
            finetune(f"scratch_{budget}", "none", budget, PRETRAIN_STEPS + steps)
            finetune(f"short_{budget}", "none", budget, steps)

    with ThreadPoolExecutor() as pool:
        for chain in [pool.submit(pretrained), pool.submit(scratch)]:
            chain.result()
    for budget in FINETUNE_STEPS:
        names = (f"{kind}_{budget}.json" for kind in ("finetune", "scratch", "short"))
        gsd("compare", *(str(out / name) for name in names))
    print("\nclassical rule (haematoxylin by colour deconvolution, Otsu)")
    scores = []
    for pair in find_pairs(out / "test" / "images", out / "test" / "masks"):
        image, labels = load_pair(pair, foreground=True)
        matrix = confusion(labels, otsu_nuclei(image, STORED_MPP), 2)
        scores.append((dice(matrix)[1], iou(matrix)[1]))
        print(f"{pair.stem}  Dice {scores[-1][0]:.4f}  IoU {scores[-1][1]:.4f}")
    print("mean of images  Dice {:.4f}  IoU {:.4f}".format(*np.mean(scores, axis=0)))


def patient_of(name: str) -> str:
    """TCGA-18-5592 of TCGA-18-5592-01Z-00-DX1."""
    return "-".join(name.split("-")[:3])


def link(data: Path, folder: Path, names: list[str]) -> None:
    """Make folder/images and folder/masks of links to the chosen files."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for name in names:
        for kind, file in (("images", f"images/{name}.tif"), ("masks", f"instances/{name}.png")):
            target = folder / kind / Path(file).name
            if not target.exists():
                target.symlink_to((data / file).resolve())


def run(folder: Path, *arguments: str) -> None:
    """Start the training run in ``folder``, or go on with it."""
    if (folder / "config.toml").exists():
        gsd(*arguments[:2], "--out", str(folder), "--resume")
    else:
        gsd(*arguments, "--out", str(folder))


def gsd(*arguments: str) -> None:
    """Run the installed command as a user does, whatever folder this is started in."""
    print("gsd", *arguments, flush=True)
    command = [Path(sys.executable).with_name("gsd"), *arguments]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
