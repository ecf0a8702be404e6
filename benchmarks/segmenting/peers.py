"""``gsd segment`` beside MONAI's SlidingWindowInferer and TIAToolbox's SemanticSegmentor.

    python benchmarks/segmenting/peers.py PEERS_PYTHON
        [--architecture paper --sides 1024 --tile 256]

PEERS_PYTHON is the Python of a virtual environment that has both of them, and a torch of the same
version; never the project's, they pin old packages. All programs get the same slide, TorchScript
file, tile and overlap, and write a mask file. gsd runs as its command does, choosing the precision
by itself, and in float32 as the peers do; the peers at two batch sizes. Runs of the programs
alternate, each in a process of its own; printed are medians.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from memory import write_model, write_slide

PROGRAM = Path(__file__).with_name("program.py")
PEERS = ("monai", "tiatoolbox")
BATCHES = (1, 4)
Run = dict[str, float]


def once(python: str, program: str, slide: Path, model: Path, out: Path, **options: Any) -> Run:
    flags = [f"--{name}={value}" for name, value in options.items()]
    command = [python, str(PROGRAM), program, str(slide), str(model), str(out / program), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    result: Run = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(
    slide: Path,
    portable: Path,
    ours: dict[str, tuple[Path, str]],
    out: Path,
    options: argparse.Namespace,
) -> dict[str, Run]:
    """Medians of each program; ``ours`` has model and precision of each way to run gsd."""
    shape = {"tile": options.tile, "overlap": options.overlap, "threads": options.threads}
    runs: dict[str, list[Run]] = {}

    def add(name: str, *arguments: Any, **further: Any) -> None:
        runs.setdefault(name, []).append(once(*arguments, out, **further, **shape))

    for _ in range(options.rounds):
        for name, (model, precision) in ours.items():
            add(name, sys.executable, "gsd", slide, model, precision=precision)
        for peer in options.peers:
            for size in BATCHES:
                add(
                    f"{peer}, batch {size}", options.peers_python, peer, slide, portable, batch=size
                )
    return {
        name: {key: statistics.median(run[key] for run in each) for key in each[0]}
        for name, each in runs.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peers_python")
    parser.add_argument("--architecture", default="convolutions")
    parser.add_argument("--sides", type=int, nargs="+", default=[4096, 8192])
    parser.add_argument("--compressions", nargs="+", default=["jpeg", "deflate"])
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--float32", action="store_true", help="gsd in nothing else: where instructions are masked"
    )
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    print("| slide | program | seconds | CPU s | Mpx/s | gsd faster | in CPU s | peak MB | gsd's |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        portable, fused = folder / "portable.ts", folder / "fused.ts"
        write_model(portable, options.architecture, options.tile, portable=True)
        ours = {"gsd": (portable, "auto"), "gsd, float32": (portable, "float32")}
        if options.architecture != "convolutions":
            write_model(fused, options.architecture, options.tile)
            ours["gsd, fused, float32"] = (fused, "float32")
            ours["gsd, fused, bfloat16"] = (fused, "bfloat16")
        if options.float32:
            ours = {name: way for name, way in ours.items() if way[1] == "float32"}
        for compression in options.compressions:
            for side in options.sides:
                slide = folder / f"{compression}_{side}.tif"
                write_slide(slide, side, compression)
                runs = measure(slide, portable, ours, folder, options)
                print_rows(f"{side} {compression}", side**2 / 1e6, runs, ours)
                slide.unlink()
    print(f"\nload {os.getloadavg()[0]:.1f} at the end, torch {torch.__version__}")


def print_rows(
    slide: str, megapixels: float, runs: dict[str, Run], ours: dict[str, tuple[Path, str]]
) -> None:
    """Of each program; of the peers how they compare with each way to run gsd."""
    for name, run in runs.items():

        def ratios(key: str, run: Run = run, *, inverse: bool = False) -> str:
            there = [run[key] / runs[own][key] for own in ours]
            return " / ".join(f"{1 / x if inverse else x:.2f}" for x in there)

        compared = ["", "", ""]
        if name not in ours:
            compared = [ratios("seconds"), ratios("cpu"), ratios("peak", inverse=True)]
        print(
            f"| {slide} | {name} | {run['seconds']:.2f} | {run['cpu']:.2f} |"
            f" {megapixels / run['seconds']:.2f} | {compared[0]} | {compared[1]} |"
            f" {run['peak']:.0f} | {compared[2]} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
