"""What ``gsd segment`` takes beside its model, reading and writing, each measured alone.

    python benchmarks/segmenting/speed.py [--architectures convolutions small paper]

Per model: pixels per second from the slide's file to the mask's against the bare model on the same
batches already in memory, with the same workers. For the model of three convolutions also against
what its model, decoding and encoding, each alone in as many threads, would take one after the
other. Both are repeated in turn, after a warm-up; medians are printed, and in brackets the same
from the process's processor time, which other work on the machine disturbs less.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from memory import TILE, write_model, write_slide

from genselfdiff.inference.predictor import Predictor
from genselfdiff.machine import keep_freed_memory
from genselfdiff.masks import MaskReader, MaskWriter, PyramidShape
from genselfdiff.models.model_file import load_model
from genselfdiff.segmenting.layout import lay_out
from genselfdiff.segmenting.one_slide import segment
from genselfdiff.segmenting.options import Options
from genselfdiff.slides import open_slide

SIDES = {"convolutions": 4096, "small": 1536, "paper": 1024}
TILES = {"convolutions": 512, "small": 256, "paper": 256}
Times = tuple[float, float]


def timed(work: Callable[[], object]) -> Times:
    """Seconds, and processor seconds of all threads."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def medians(rounds: int, works: dict[str, Callable[[], object]]) -> dict[str, Times]:
    for work in works.values():
        work()
    runs: dict[str, list[Times]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            runs[name].append(timed(work))
    return {
        name: (statistics.median(t[0] for t in each), statistics.median(t[1] for t in each))
        for name, each in runs.items()
    }


def measure(architecture: str, precision: str, rounds: int, folder: Path) -> dict[str, Times]:
    slide, model = folder / "slide.tif", folder / "model.ts"
    side = SIDES[architecture]
    write_slide(slide, side)
    write_model(model, architecture, TILES[architecture])
    predictor = Predictor(load_model(model, "cpu"), precision)
    with open_slide(slide) as source:
        layout = lay_out(source, predictor.model.info, Options())
        batches = [read() for read in layout.grid.batches(layout.view, 1)]

    def end_to_end() -> None:
        segment(slide, folder / "mask.tif", predictor, overwrite=True, progress=False)

    def bare() -> None:
        with predictor.predict_ahead(iter(batches)) as predicted:
            for _ in predicted:
                pass

    end_to_end()
    with MaskReader(folder / "mask.tif") as reader:
        labels = np.concatenate(list(reader.bands()))

    def decode() -> None:
        with open_slide(slide) as source, ThreadPoolExecutor(torch.get_num_threads()) as pool:
            places = [(x, y) for y in range(0, side, TILE) for x in range(0, side, TILE)]
            for _ in pool.map(lambda place: source.read_level(*place, TILE, TILE), places):
                pass

    def encode() -> None:
        with MaskWriter(
            folder / "copy.tif",
            PyramidShape(side, side, 0.5),
            palette=[(0, 0, 0), (255, 0, 0)],
            class_names=["background", "nucleus"],
        ) as writer:
            for y in range(0, side, 32):
                writer.write_rows(labels[y : y + 32])

    works: dict[str, Callable[[], object]] = {"end to end": end_to_end, "bare": bare}
    if architecture == "convolutions":
        works |= {"decode": decode, "encode": encode}
    return medians(rounds, works)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architectures", nargs="+", default=list(SIDES), choices=SIDES)
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    keep_freed_memory()
    print("| model | precision | Mpx/s | of the bare model | of model, decode and encode in turn |")
    print("|---|---|---|---|---|")
    for architecture in options.architectures:
        for precision in options.precisions:
            with tempfile.TemporaryDirectory() as folder:
                times = measure(architecture, precision, options.rounds, Path(folder))
            whole, bare = times["end to end"], times["bare"]
            shares = [f"{bare[0] / whole[0]:.2f} ({bare[1] / whole[1]:.2f})", ""]
            if "decode" in times:
                alone = [bare[i] + times["decode"][i] + times["encode"][i] for i in (0, 1)]
                shares[1] = f"{alone[0] / whole[0]:.2f} ({alone[1] / whole[1]:.2f})"
            speed = SIDES[architecture] ** 2 / 1e6 / whole[0]
            print(f"| {architecture} | {precision} | {speed:.2f} | {' | '.join(shares)} |")
            told = ", ".join(f"{name} {t[0]:.2f} s ({t[1]:.2f})" for name, t in times.items())
            print(f"  {told}", flush=True)
    print(f"\nload {os.getloadavg()[0]:.1f} at the end, torch {torch.__version__}")


if __name__ == "__main__":
    main()
