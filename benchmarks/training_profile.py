"""What a training step of `gsd train` spends its time on, after torch's profiler.

    python benchmarks/training_profile.py [--architecture paper] [--batch 4]

One step of each stage in bfloat16 on the CPU, after a first that is not counted: shares of the time
in torch's operations. The profiler's own cost falls on the many small ones.
"""

import argparse
import tempfile
from collections import Counter
from pathlib import Path

from loader import write_inputs
from table import print_rows
from torch.profiler import ProfilerActivity, profile
from training import Row, config_of

from genselfdiff.machine import keep_freed_memory
from genselfdiff.training.loop.train import batches
from genselfdiff.training.runs import prepared

KINDS = {
    "convolutions": ("mkldnn_convolution", "convolution_backward"),
    "gsd's own: attention, norms, noise, losses": ("gsd::", "_gsd_"),
    "clipping, Adam, average": ("_foreach_", "_fused_adam_"),
}
"""Operations that belong together, by parts of their names."""


def shares(row: Row, options: argparse.Namespace, folder: Path) -> list[tuple[str, float]]:
    """The most costly kinds and single operations with their shares of one step."""
    with prepared(config_of(row, options, folder)) as (task, step):
        tiles = iter(batches(task.dataset, step.config, step, 0))
        step(next(tiles), 0)
        batch = next(tiles)
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            step(batch, 1)
    costs: Counter[str] = Counter()
    for event in profiler.key_averages():
        kinds = (kind for kind, parts in KINDS.items() if any(p in event.key for p in parts))
        costs[next(kinds, event.key)] += event.self_cpu_time_total
    return [(kind, cost / costs.total()) for kind, cost in costs.most_common(10)]


def main() -> None:
    """Profile both stages and print their shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", default="paper")
    parser.add_argument("--batch", type=int, default=4)
    options = parser.parse_args(namespace=argparse.Namespace(device="cpu", workers=0))
    keep_freed_memory()
    table = [["stage", "operations", "share"]]
    with tempfile.TemporaryDirectory() as name:
        write_inputs(Path(name))
        for stage in ("pretrain", "finetune"):
            found = shares(Row(stage, "ours", "bfloat16"), options, Path(name))
            table += [[stage, kind, f"{share:.1%}"] for kind, share in found]
    print_rows(table)


if __name__ == "__main__":
    main()
