"""One process of torchrun: `gsd train`, and steps whose gradients go from process to process.

    python -m torch.distributed.run --standalone --nproc-per-node 1 benchmarks/gpu/processes.py

`gsd train` does not join the processes where there is one. So the second part joins them by
itself: nccl for what lies on the GPU, gloo for the rest.
"""

import argparse
import tempfile
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import torch.distributed as dist
from loader import write_images
from timing import synchronise, tell
from torch.nn.parallel import DistributedDataParallel
from training import SIDES, Row, config_of

from genselfdiff.training.loop.train import batches
from genselfdiff.training.runs import prepared, pretrain

STEPS, TILE = 4, 32


def main() -> None:
    """Both parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args(namespace=Namespace(architecture="tiny", tile=TILE, workers=0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder, SIDES * TILE)
        train(folder, options)
        synchronised_steps(folder, options)


def train(folder: Path, options: Namespace) -> None:
    """A run as `gsd train pretrain` makes it."""
    begin = time.monotonic()
    config = config_of(Row("pretrain", "ours", 2, "bfloat16"), options, folder)
    pretrain(replace(config, steps=STEPS, sample_every=0), folder / "run", progress=False)
    tell(part="gsd train", steps=STEPS, seconds=time.monotonic() - begin)


def synchronised_steps(folder: Path, options: Namespace) -> None:
    """Steps of both stages through DistributedDataParallel."""
    device = options.device
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend)
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
