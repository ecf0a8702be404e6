"""Runs that are killed (-9) at random moments, writes of checkpoints among them."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from genselfdiff.training.run_folder import RunFolder, read_checkpoint

SEED = 20241
STEPS = 40

COMMON = (
    *("--architecture", "tiny", "--width", "8", "--tile-size", "32", "--batch-size", "2"),
    *("--steps", str(STEPS), "--log-every", "3", "--validate-every", "4"),
    *("--device", "cpu", "--precision", "float32", "-q"),
)


def start(stage, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "gsd", "train", stage, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def finish(process):
    _, told = process.communicate()
    assert process.returncode == 0, told.decode()


def killed(process, run, delay):
    """Kill once the run has begun to train, ``delay`` seconds later; tell if it was in time."""
    before = run.config.stat().st_mtime_ns if run.config.exists() else None
    while process.poll() is None:
        if run.config.exists() and run.config.stat().st_mtime_ns != before:
            break
        time.sleep(0.01)
    time.sleep(delay)
    process.kill()
    _, told = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), told.decode()
    return process.returncode != 0


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.soak)])
def test_killed_runs_end_with_the_same_weights(
    tmp_path, fields, assert_same_checkpoints, stage, kills
):
    arguments = {
        "pretrain": (
            *(fields / "images", "--mpp", "0.5", "--image-mpp", "0.5"),
            *("--validation-tiles", "2", "--sample-every", "0"),
        ),
        "finetune": (
            *("--images", fields / "images", "--masks", fields / "masks", "--mpp", "0.5"),
            *("--init", "none", "--val", "patient0"),
        ),
    }[stage] + COMMON
    whole, broken = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    finish(start(stage, *arguments, "--out", whole.path))
    moments = random.Random(SEED)
    count, delay = 0, 3.0
    resumed = ()
    while count < kills:
        process = start(stage, *(resumed or arguments), "--out", broken.path)
        if killed(process, broken, moments.uniform(0.0, delay)):
            count += 1
        else:  # it was through: begin anew, and sooner
            delay /= 2
            broken = RunFolder(tmp_path / f"broken{count}{delay}")
        resumed = ("--resume", "-q") if broken.config.exists() else ()
    finish(start(stage, *(resumed or arguments), "--out", broken.path))
    for name in ("latest", "best"):
        assert_same_checkpoints(*(read_checkpoint(getattr(run, name)) for run in (whole, broken)))
    lines = [
        [(r["step"], r["loss"]) for r in run.read_metrics() if "loss" in r]
        for run in (whole, broken)
    ]
    assert lines[0] == lines[1]
    left = [path.name for path in broken.path.rglob(".*") if path.name != ".lock"]
    assert not left, "what a killed write has left"
