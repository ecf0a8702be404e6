"""One process of torchrun: `gsd train`, and steps whose gradients go from process to process.

    python -m torch.distributed.run --standalone --nproc-per-node 1 benchmarks/gpu/processes.py

`gsd train` does not join the processes where there is one. So the second part joins them by
itself: nccl for what lies on the GPU, gloo for the rest.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path

import torch.distributed as dist
from loader import write_images
from timing import synchronise, tell
from torch.nn.parallel import DistributedDataParallel
from training import SIDES, Row, config_of

from genselfdiff.training.loop.train import batches
from genselfdiff.training.runs import prepared

STEPS, TILE = 4, 32


def main() -> None:
    """Both parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    device = parser.parse_args().device
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder, SIDES * TILE)
        train(folder, device)
        synchronised_steps(folder, device)


def train(folder: Path, device: str) -> None:
    """A run of `gsd train`, as a process of torchrun."""
    begin = time.monotonic()
    data = (folder / "images", "--mpp", "0.5", "--image-mpp", "0.5")
    size = ("--architecture", "tiny", "--tile-size", TILE, "--batch-size", "2", "--steps", STEPS)
    less = ("--validation-tiles", "2", "--sample-every", "0", "--device", device, "-q")
    command = ("-m", "gsd", "train", "pretrain", *data, *size, *less, "--out", folder / "run")
    subprocess.run([sys.executable, *map(str, command)], check=True)
    tell(part="gsd train", steps=STEPS, seconds=time.monotonic() - begin)


def synchronised_steps(folder: Path, device: str) -> None:
    """Steps of both stages through DistributedDataParallel."""
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend)
    options = Namespace(architecture="tiny", tile=TILE, device=device, workers=0)
    for stage in ("pretrain", "finetune"):
        row = Row(stage, "ours", 2, "bfloat16")
        with prepared(config_of(row, options, folder)) as (task, step):
            place = [step.device] if device == "cuda" else None
            step._wrapped = DistributedDataParallel(step.network, device_ids=place)
            begin = time.monotonic()
            for number, batch in zip(
                range(STEPS), batches(task.dataset, step.config, step, 0), strict=False
            ):
                loss, norm = step(batch, number).tolist()
            synchronise(step.device)
            tell(
                part=f"{backend}, {stage}",
                steps=STEPS,
                seconds=time.monotonic() - begin,
                loss=loss,
                norm=norm,
                right=norm == norm,
            )
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
