"""Time tiles of a slide with one model in several formats, in turns.

    python benchmarks/formats/speed.py --model nuclei --rounds 7

The model is exported to each format anew. Each predicts the same tiles through gsd's predictor, in
float32, one thread, batches of one; what OpenVINO makes of the ONNX file is called directly, where
it is installed. Seconds of processor time for a tile: median of the rounds, and of each round's
ratio to TorchScript with gsd's kernels. What differs in label is told as a share of the pixels.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from table import print_rows

from genselfdiff.inference.predictor import Predictor
from genselfdiff.kernels import native
from genselfdiff.models.model_file import load_model
from genselfdiff.slides import read_image
from genselfdiff.training.export import export

SLIDE = Path(__file__).parents[2] / "examples" / "CMU-1-Small-Region.svs"
PLACES = ((300, 300), (1100, 900), (1500, 1700))
"""Top left corners of tiles, (x, y), all of tissue."""
FILES = {
    "TorchScript, our kernels": ("fused.ts", False),
    "TorchScript, portable": ("portable.ts", True),
    "torch.export": ("model.pt2", True),
    "ONNX, onnxruntime": ("model.onnx", True),
}

Predict = Callable[[torch.Tensor], torch.Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="nuclei", help="of gsd, or a model file")
    parser.add_argument("--tile-size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    slide, side = torch.from_numpy(read_image(SLIDE)), options.tile_size
    tiles = [slide[y : y + side, x : x + side].permute(2, 0, 1)[None] for x, y in PLACES]
    with tempfile.TemporaryDirectory() as folder:
        predict = exported(options.model, Path(folder))
        labels = {name: [run(tile).argmax(1) for tile in tiles] for name, run in predict.items()}
        times: dict[str, list[float]] = {name: [] for name in predict}
        for _ in range(options.rounds):
            for name, run in predict.items():
                begin = time.process_time()
                for tile in tiles:
                    run(tile)
                times[name].append((time.process_time() - begin) / len(tiles))
    first = next(iter(times))
    rows = [["format", "s a tile", "times ours", "other labels"]]
    for name, seconds in times.items():
        ratios = [each / ours for each, ours in zip(seconds, times[first], strict=True)]
        others = torch.cat([a != b for a, b in zip(labels[name], labels[first], strict=True)])
        rows.append(
            [
                name,
                f"{statistics.median(seconds):.3f}",
                f"{statistics.median(ratios):.2f}",
                f"{others.float().mean():.1e}",
            ]
        )
    print_rows(rows)
    told = f"{options.model}, {side} pixels, {native.selected_isa()}, torch {torch.__version__}"
    print(f"\n{told}, load {os.getloadavg()[0]:.1f} at the end")


def exported(model: str, folder: Path) -> dict[str, Predict]:
    """How each format predicts."""
    predict: dict[str, Predict] = {}
    for name, (file, portable) in FILES.items():
        export(model, folder / file, portable=portable)
        predict[name] = Predictor(load_model(folder / file, "cpu"), "float32")
    try:
        import openvino
    except ImportError:
        return predict
    one = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(folder / "model.onnx", "CPU", one)

    def by_openvino(tile: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(compiled(tile.float().numpy())[0])

    return {**predict, "ONNX, OpenVINO": by_openvino}


if __name__ == "__main__":
    main()
