"""``gsd segment`` of this version against another one that is installed elsewhere, in turn.

    python benchmarks/segmenting/versions.py OTHER_PYTHON [--rounds 9] [--slide SLIDE]
        [--architectures small --side 2048 --precisions float32]

Each version has a process of its own with the model loaded, and is called by its public names. The
slide is written once, unless it is given, and the network "convolutions" too, which is plain torch;
others each version exports with weights of the same seed. After a warm-up the two segment in turn,
and the medians of the ratios this / other are printed, of wall time and of processor time.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from memory import write_model, write_slide

SERVER = """
import os, sys, time
import torch
from genselfdiff import ModelInfo, create_model, load_model, save_model, segment

slide, model, mask, precision, architecture, tile = sys.argv[1:]
if not os.path.exists(model):
    torch.manual_seed(0)
    network = create_model(architecture, out_channels=2)
    colors = ((0, 0, 0), (255, 0, 0))
    info = ModelInfo(("background", "nucleus"), colors, 0.5, int(tile), "minus_one_one")
    save_model(network, info, model)
loaded = load_model(model, "cpu")
options = {"precision": precision, "mpp": 0.5, "overwrite": True, "progress": False}
for _ in sys.stdin:
    wall, processor = time.perf_counter(), time.process_time()
    segment(slide, mask, loaded, **options)
    print(time.perf_counter() - wall, time.process_time() - processor, flush=True)
"""
KEPT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str((1 << 31) - 1),
}
"""As ``gsd`` has it: freed memory stays in the process."""
SIDES = {"convolutions": (4096, 512), "small": (768, 256)}
"""By architecture: of the slide and of its tiles."""


def compare(slide: Path, architecture: str, precision: str, other: str, rounds: int) -> list[float]:
    """Medians of: seconds of this version, their ratio to the other's; processor seconds, ratio."""
    pythons = (sys.executable, other)
    tile = SIDES[architecture][1]
    further = (precision, architecture, str(tile))
    with tempfile.TemporaryDirectory() as folder:
        models = [Path(folder, f"{i}.ts") for i in range(2)]
        if architecture == "convolutions":
            models = models[:1] * 2
            write_model(models[0], architecture, tile)
        servers = [
            subprocess.Popen(
                [python, "-c", SERVER, slide, models[i], Path(folder, f"{i}.tif"), *further],
                env=os.environ | KEPT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for i, python in enumerate(pythons)
        ]

        def once(server: "subprocess.Popen[str]") -> list[float]:
            assert server.stdin and server.stdout
            print(file=server.stdin, flush=True)
            return [float(seconds) for seconds in server.stdout.readline().split()]

        for server in servers:
            once(server)
        # Each second pair the other way round: what runs first meets what the last one left.
        pairs = [
            [once(server) for server in servers]
            if i % 2
            else [once(server) for server in reversed(servers)][::-1]
            for i in range(rounds)
        ]
        for server in servers:
            server.communicate()
    return [
        statistics.median(of(pair) for pair in pairs)
        for kind in (0, 1)
        for of in (
            lambda pair, kind=kind: pair[0][kind],
            lambda pair, kind=kind: pair[0][kind] / pair[1][kind],
        )
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", help="the interpreter that has the other version")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--slide", type=Path, help="a slide of 0.5 um/px; default: generated ones")
    parser.add_argument("--architectures", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--side", type=int, help="of generated slides")
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for architecture in options.architectures:
            for compression in (None,) if options.slide else ("jpeg", "deflate"):
                slide = options.slide or Path(folder, "slide.tif")
                if compression:
                    write_slide(slide, options.side or SIDES[architecture][0], compression)
                for precision in options.precisions:
                    figures = compare(slide, architecture, precision, options.other, options.rounds)
                    names = ("seconds", "ratio", "processor seconds", "ratio of these")
                    told = {n: round(f, 3) for n, f in zip(names, figures, strict=True)}
                    what = f"{architecture}, {compression or slide.name}, {precision}"
                    print(f"{what}: {json.dumps(told)}", flush=True)


if __name__ == "__main__":
    main()
