"""Segments damaged files, one for each number on its standard input; a line of JSON tells of each.

python tests/fuzz/worker.py FOLDER SEED
"""

import json
import logging
import resource
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np
import tifffile
import torch
from attacks import attack
from corpus import PROFILED, SLIDE, is_mask
from mutations import mutate
from torch import nn

from genselfdiff.errors import GsdError
from genselfdiff.inference.predictor import Predictor
from genselfdiff.models.model_file import load_model, save_model
from genselfdiff.models.model_info import ModelInfo
from genselfdiff.segmenting.one_slide import segment

ADDRESS_SPACE = 4 * 2**30
"""Bytes that a file may make the process map beside what it has mapped before."""

ATTACKED = 0.15
"""Of the files; the others are damaged as disks and bad writers do."""


class Darkness(nn.Module):
    """Class 1 where green is dark."""

    def __init__(self) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        green = x[:, 1:2] - self.threshold
        return torch.cat((green, -green), dim=1)


def make_predictor(folder: Path) -> Predictor:
    """The model, written and loaded as a user's would be."""
    info = ModelInfo(
        classes=("background", "nucleus"), colors=((0, 0, 0), (255, 0, 0)), mpp=0.5, tile_size=64,
        input_scaling="minus_one_one", architecture={"name": "test"}, training={},
        licence="CC0-1.0",
    )  # fmt: skip
    save_model(Darkness(), info, folder / "model.ts")
    return Predictor(load_model(folder / "model.ts", "cpu"), "float32")


def damage(corpus: Path, seed: int, number: int, folder: Path) -> tuple[Path, str]:
    """Write the damaged file of that number; returns it and what was done."""
    rng = np.random.default_rng((seed, number))
    kinds = sorted(path.name for path in corpus.iterdir())
    name = kinds[number % len(kinds)]
    if (corpus / name).is_dir():
        shutil.copytree(corpus / name, folder / name)
        path = folder / name
        members = sorted(member for member in path.rglob("*") if member.is_file())
        texts = [m for m in members if m.name.startswith(".") or m.suffix == ".json"]
        member = members[int(rng.integers(len(members)))]
        if texts and rng.integers(2):
            member = texts[int(rng.integers(len(texts)))]
    else:
        member = path = folder / name
        shutil.copy(corpus / name, path)
    if rng.random() < ATTACKED:
        return path, f"{member.relative_to(folder)}: {attack(member, rng)}"
    data, told = mutate(member.read_bytes(), rng)
    member.write_bytes(data)
    return path, f"{member.relative_to(folder)}: {told}"


def try_one(predictor: Predictor, corpus: Path, seed: int, number: int) -> dict[str, object]:
    """Segment the damaged file of that number; tells what came of it."""
    with tempfile.TemporaryDirectory() as temporary:
        given, results = Path(temporary, "given"), Path(temporary, "results")
        given.mkdir()
        results.mkdir()
        path, told = damage(corpus, seed, number, given)
        options: dict[str, object] = {"mpp": 0.5, "overlay": number % 3 == 0}
        options["icc"] = path.name == PROFILED
        options["on_error"] = ("fail", "blank")[number // 3 % 2]
        if is_mask(path.name):
            slide, options["tissue"] = corpus / SLIDE, path
        else:
            slide = path
        outcome, message = "mask", ""
        begin, before = time.monotonic(), memory("VmRSS")
        forget_peak()
        try:
            result = segment(slide, results / "mask.tif", predictor, **options)
            with tifffile.TiffFile(results / "mask.tif") as mask:
                page = mask.pages[0]
                right = (page.imagewidth, page.imagelength) == (result.width, result.height)
                outcome = "mask" if right else "wrong size"
        except GsdError as error:
            outcome, message = "refused", str(error)
        except Exception:
            outcome, message = "unexpected", traceback.format_exc()
        left = sorted(file.name for file in results.iterdir())
        if outcome == "refused" and left:
            outcome, message = "left over", f"{left}: {message}"
        return {
            "number": number, "damage": told, "outcome": outcome, "message": message,
            "seconds": time.monotonic() - begin, "bytes": memory("VmHWM") - before,
        }  # fmt: skip


def memory(field: str) -> int:
    """Bytes that the kernel counts for this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def forget_peak() -> None:
    """Begin a new VmHWM."""
    Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    """Serve numbers until the input ends."""
    corpus, seed = Path(sys.argv[1]), int(sys.argv[2])
    answers = sys.stdout
    sys.stdout = sys.stderr
    logging.disable()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        predictor = make_predictor(Path(folder))
        segment(corpus / SLIDE, Path(folder, "mask.tif"), predictor, mpp=0.5)
        limit = memory("VmSize") + ADDRESS_SPACE
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        for line in sys.stdin:
            print(json.dumps(try_one(predictor, corpus, seed, int(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
