"""Train by the nuclei model's recipe for as long as there is time, and pack what came of it.

    python benchmarks/gpu/recipe.py --data FOLDER --work FOLDER --out FOLDER --seconds N

DATA is what ``benchmarks/nuclei/prepare.py`` left. A few steps tell how many there is time for, so
that the learning rate falls to zero at the end. OUT gets the run (settings, metrics, the best
weights) as pieces of a tar file, small enough for where they go; the last record says how they are
joined.
"""

import argparse
import os
import subprocess
import sys
import tarfile
import time
import tomllib
from pathlib import Path

from loader import write_images
from timing import tell
from training import SIDES, unwaited_for

from genselfdiff.training.run_folder import RunFolder
from genselfdiff.training.runs import prepared
from genselfdiff.training.settings.stage_configs import FinetuneConfig

RECIPE = Path(__file__).parents[1] / "nuclei" / "recipe.toml"
PIECE, PIECES = 15 << 20, 3
"""Bytes of a piece, and how many there may be."""
MEASURED = 40
"""Steps that tell how long one takes."""
SHARE = 0.75
"""Of the time that is left, for steps; the rest is for starting, validating and saving."""
TINY = {
    **{"architecture": "tiny", "tile_size": 32, "batch_size": 2, "mpp": 0.5, "val": "0"},
    "instances": False,
}


def main() -> int:
    """Measure, train, pack; the exit status of the training."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a small network on a few images")
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    options.work.mkdir(parents=True)
    train = options.work if options.tiny else options.data / "train"
    if options.tiny:
        write_images(train, SIDES * TINY["tile_size"])
    settings = {
        **tomllib.loads(RECIPE.read_text())["finetune"],
        **({"val": str(train / "validation.txt")} if not options.tiny else TINY),
        "images": str(train / "images"),
        "masks": str(train / "masks"),
        "device": options.device,
        "workers": 0 if options.tiny else max(1, (os.cpu_count() or 2) - 2),
    }
    config = FinetuneConfig(**settings | {"classes": tuple(settings["classes"])})
    with prepared(config) as (task, step):
        measured = unwaited_for(task, step, 1 if options.tiny else MEASURED)
    tell(measured=MEASURED, **measured)
    steps = max(2, int(SHARE * (end - time.monotonic()) / measured["seconds"]))
    steps = 2 if options.tiny else steps
    settings |= {"steps": steps, "validate_every": -(-steps // 4)}
    run = RunFolder(options.work / "run")
    begin = time.monotonic()
    arguments = [part for name, value in settings.items() for part in option(name, value)]
    command = [sys.executable, "-m", "gsd", "train", "finetune", "--out", str(run.path), "-q"]
    with subprocess.Popen([*command, *arguments]) as process:
        try:
            process.wait(max(end - time.monotonic(), 1.0) if not options.tiny else None)
        except subprocess.TimeoutExpired:
            process.terminate()  # it saves the step under way
    tell(steps=steps, seconds=time.monotonic() - begin, exit_status=process.returncode)
    tell(pieces=pack(run, options.out), join="cat run.tar.? > run.tar")
    return process.returncode


def option(name: str, value: object) -> list[str]:
    """A setting on the command line."""
    flag = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return [flag] if value else []
    return [flag, ",".join(value) if isinstance(value, list | tuple) else str(value)]


def pack(run: RunFolder, out: Path) -> int:
    """Write the pieces, as many as there may be; of the files those that are worth most."""
    archive = run.path.with_suffix(".tar")
    room = PIECE * PIECES - (1 << 20)
    with tarfile.open(archive, "w") as file:
        for path in (run.config, run.metrics, run.best, run.curves, run.latest):
            if path.exists() and path.stat().st_size <= room:
                file.add(path, f"{run.path.name}/{path.name}")
                room -= path.stat().st_size
            else:
                tell(left_out=path.name)
    content = archive.read_bytes()
    starts = range(0, len(content), PIECE)
    for number, start in enumerate(starts):
        piece = out / f"{run.path.name}.tar.{number}"
        piece.write_bytes(content[start : start + PIECE])
    return len(starts)


if __name__ == "__main__":
    sys.exit(main())
