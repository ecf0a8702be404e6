"""One segmentation of a slide by one program, timed from the slide's file to the mask's.

    python benchmarks/segmenting/program.py gsd|monai|tiatoolbox SLIDE MODEL OUT [options]

What ``peers.py`` starts, each run in a process of its own and each program with the Python
that it is installed in; so this file imports nothing that is not the program's own. Imports,
loading the model and a first prediction are not timed. Prints seconds, processor seconds and the
peak of the resident memory in MB as JSON. MONAI and TIAToolbox are driven as their documentation
does it, on the whole slide at its own resolution.
"""

import argparse
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

Options = argparse.Namespace


def prepare_gsd(options: Options) -> Callable[[], Any]:
    from genselfdiff.machine import keep_freed_memory

    keep_freed_memory()  # as the command does
    from genselfdiff.inference.predictor import Predictor
    from genselfdiff.models.model_file import load_model
    from genselfdiff.segmenting.one_slide import segment

    predictor = Predictor(load_model(options.model, "cpu"), options.precision)
    predictor(torch.zeros(1, 3, options.tile, options.tile, dtype=torch.uint8))
    return lambda: segment(
        options.slide,
        options.out.with_suffix(".tif"),
        predictor,
        tile_size=options.tile,
        overlap=options.overlap,
        batch_size=options.batch,
        overwrite=True,
        progress=False,
    )


def prepare_monai(options: Options) -> Callable[[], Any]:
    import tifffile
    from monai.inferers import SlidingWindowInferer

    network = torch.jit.load(options.model).eval()
    tile = (options.tile, options.tile)
    with torch.inference_mode():
        network(torch.zeros(1, 3, *tile))
    inferer = SlidingWindowInferer(
        tile, sw_batch_size=options.batch, overlap=options.overlap, mode="gaussian"
    )

    def run() -> None:
        pixels = tifffile.imread(options.slide)
        with torch.inference_mode():
            x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
            labels = inferer(x, network).argmax(1)[0].to(torch.uint8).numpy()
        out = options.out.with_suffix(".tif")
        tifffile.imwrite(out, labels, tile=(512, 512), compression="zlib")

    return run


def prepare_tiatoolbox(options: Options) -> Callable[[], Any]:
    # torchvision is built for CUDA; with a CPU torch it lacks two operators that it describes.
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from tiatoolbox.models.engine.io_config import IOSegmentorConfig
    from tiatoolbox.models.engine.semantic_segmentor import SemanticSegmentor
    from tiatoolbox.models.models_abc import ModelABC

    class Network(ModelABC):
        def __init__(self) -> None:
            super().__init__()
            self.network = torch.jit.load(options.model).eval()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.network(images)

        @staticmethod
        def preproc(image: np.ndarray) -> np.ndarray:
            return image

        @staticmethod
        def infer_batch(
            model: torch.nn.Module, batch: torch.Tensor, *, device: str = "cpu"
        ) -> np.ndarray:
            with torch.inference_mode():
                images = batch.permute(0, 3, 1, 2).to(device).float()
                return model(images).permute(0, 2, 3, 1).cpu().numpy()

        @staticmethod
        def postproc(image: np.ndarray) -> np.ndarray:
            return np.argmax(image, axis=-1)

    network = Network()
    with torch.inference_mode():
        network(torch.zeros(1, 3, options.tile, options.tile))
    resolution = {"units": "mpp", "resolution": 0.5}
    stride = round(options.tile * (1 - options.overlap))
    config = IOSegmentorConfig(
        input_resolutions=[resolution],
        output_resolutions=[resolution],
        patch_input_shape=(options.tile, options.tile),
        patch_output_shape=(options.tile, options.tile),
        stride_shape=(stride, stride),
        save_resolution=resolution,
    )
    segmentor = SemanticSegmentor(
        model=network, batch_size=options.batch, num_workers=0, device="cpu", verbose=False
    )
    return lambda: segmentor.run(
        images=[options.slide],
        patch_mode=False,
        ioconfig=config,
        save_dir=options.out.with_suffix(""),
        output_type="zarr",
        auto_get_mask=False,
        overwrite=True,
        device="cpu",
        batch_size=options.batch,
        num_workers=0,
        wsireader_kwargs={"mpp": 0.5, "power": 20},
    )


def main() -> None:
    prepare = {
        "gsd": prepare_gsd,
        "monai": prepare_monai,
        "tiatoolbox": prepare_tiatoolbox,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", choices=prepare)
    parser.add_argument("slide", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--precision", default="float32", help="of gsd")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    run = prepare[options.program](options)
    wall, processor = time.perf_counter(), time.process_time()
    run()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    peak = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    assert peak is not None
    # Below what TIAToolbox prints.
    print()
    print(json.dumps({"seconds": wall, "cpu": processor, "peak": int(peak[1]) / 1024}))


if __name__ == "__main__":
    main()
