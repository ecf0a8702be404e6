"""Models as packages of BioImage.IO (spec 0.5): for deepImageJ, ilastik, QuPath and others.

https://bioimage-io.github.io/spec-bioimage-io: a ZIP file of weights, a sample of input and output,
a cover, documentation, and ``bioimageio.yaml``, which tells of them. JSON is YAML, so it is JSON.
"""

import hashlib
import io
import json
import zipfile
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from genselfdiff.choices import ARCHITECTURES
from genselfdiff.errors import ModelError
from genselfdiff.models.formats.format import Format, ModelParts
from genselfdiff.models.formats.onnx_file import INPUT, ONNX, OPSET, OUTPUT
from genselfdiff.models.formats.torchscript_file import TORCHSCRIPT, load_module
from genselfdiff.models.model_info import EXTRA_FILE, ModelInfo
from genselfdiff.text import shown
from genselfdiff.version import __version__

_SIDE = 256
"""Of the sample, in pixels."""
_PAPER = {
    "text": "GenSelfDiff-HIS, Purma et al., IEEE TMI 2024",
    "url": "https://arxiv.org/abs/2309.01487",
}


def _contents(network: nn.Module, info: ModelInfo, portable: bool) -> BinaryIO:
    """``portable`` is what weights for other programs are in any case."""
    if not info.licence:
        raise ModelError("BioImage.IO wants a licence: name one of SPDX, --licence CC-BY-4.0")
    with TORCHSCRIPT.contents(network, info, True) as saved:
        torchscript = saved.read()
        saved.seek(0)
        module = load_module(saved, torch.device("cpu"))
    sample = _drawn(_SIDE)
    images = torch.from_numpy(sample.transpose(2, 0, 1).copy())[None].float()
    with torch.inference_mode():
        probabilities = module(images)
    files = {
        "weights.pt": torchscript,
        "weights.onnx": ONNX.contents(network, info, True).read(),
        "test_input.npy": _npy(images.numpy()),
        "test_output.npy": _npy(probabilities.numpy()),
        "cover.png": _cover(sample, probabilities[0].numpy(), info),
        "README.md": _documentation(info).encode(),
        EXTRA_FILE: info.to_json().encode(),
    }
    described = json.dumps(_description(info, files), indent=2, ensure_ascii=False)
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bioimageio.yaml", described)
        for name, data in files.items():
            archive.writestr(name, data)
    package.seek(0)
    return package


def _read(file: BinaryIO, device: torch.device) -> ModelParts:
    raise ModelError("a package for other programs: give gsd the model.ts or the run itself")


def _description(info: ModelInfo, files: dict[str, bytes]) -> dict[str, Any]:
    """What ``bioimageio.yaml`` says."""

    def named(name: str) -> dict[str, str]:
        return {"source": name, "sha256": hashlib.sha256(files[name]).hexdigest()}

    scale = {} if info.mpp is None else {"scale": info.mpp, "unit": "micrometer"}
    sizes = {"min": 2 * info.size_multiple, "step": info.size_multiple}
    classes = [*info.classes, *(["core of an object"] if info.instances else [])]
    unet = ["unet"] if info.architecture.get("name") in ARCHITECTURES else []
    return {
        "type": "model",
        "format_version": "0.5.4",
        "name": _title(info),
        "description": f"Segments H&E histology: {', '.join(map(shown, info.classes))}.",
        "authors": [{"name": "genselfdiff"}],
        "cite": [_PAPER],
        "license": info.licence,
        "documentation": "README.md",
        "covers": ["cover.png"],
        "attachments": [named(EXTRA_FILE)],
        "tags": ["histology", "H-and-E", "semantic-segmentation", "2d", *unet, "pytorch"],
        "inputs": [
            {
                "id": INPUT,
                "description": "RGB in 0..255",
                "axes": [
                    {"type": "batch"},
                    {"type": "channel", "channel_names": ["red", "green", "blue"]},
                    *({"type": "space", "id": axis, "size": sizes, **scale} for axis in "yx"),
                ],
                "test_tensor": named("test_input.npy"),
                "data": {"type": "float32", "range": [0, 255]},
            }
        ],
        "outputs": [
            {
                "id": OUTPUT,
                "description": "of each class, 0..1",
                "axes": [
                    {"type": "batch"},
                    {"type": "channel", "channel_names": classes},
                    *(
                        {
                            **{"type": "space", "id": axis, **scale},
                            "size": {"tensor_id": INPUT, "axis_id": axis},
                        }
                        for axis in "yx"
                    ),
                ],
                "test_tensor": named("test_output.npy"),
                "data": {"type": "float32", "range": [0, 1]},
            }
        ],
        "weights": {
            "torchscript": {
                **named("weights.pt"),
                "pytorch_version": torch.__version__.partition("+")[0],
            },
            "onnx": {**named("weights.onnx"), "opset_version": OPSET, "parent": "torchscript"},
        },
        "config": {"genselfdiff": {"version": __version__, "attributions": info.attributions}},
    }


def _title(info: ModelInfo) -> str:
    """Of the characters that the standard allows."""
    words = "".join(c if c.isascii() and c.isalnum() else " " for c in " ".join(info.classes[1:]))
    return f"genselfdiff {' '.join(words.split())}"[:64].strip()


def _documentation(info: ModelInfo) -> str:
    resolution = "any resolution" if info.mpp is None else f"{info.mpp:g} micrometres per pixel"
    owed = "".join(f"- {shown(text)}\n" for text in info.attributions) or "- nobody's is told.\n"
    encoder = info.architecture.get("encoder", {}).get("name")
    if encoder is not None:
        owed += f"- of the encoder, {shown(encoder)}: see its own card, whose terms hold for it.\n"
    return f"""# {_title(info)}

Classes: {", ".join(map(shown, info.classes))}. Images are H&E-stained tissue at {resolution}, RGB
in 0..255; the model scales and pads them itself and gives probabilities.

Exported by `gsd export --format bioimageio`, version {__version__}. `{EXTRA_FILE}` says how it was
trained. The sample and the cover are drawn, not tissue: they show that a program computes right.

## Licence and data

The weights are under {shown(info.licence)}. Whose data they were trained on:

{owed}
## Validation

Compare masks with labels of your own before you rely on them: `gsd evaluate` does so.
"""


def _drawn(side: int) -> NDArray[np.uint8]:
    """(side, side, 3) uint8: dark discs on pink ground, with some noise."""
    y, x = np.mgrid[:side, :side]
    is_disc = np.hypot(y % 40 - 20, x % 40 - 20) < 6 + 6 * (x / side)
    image = np.where(is_disc[..., None], (90, 40, 130), (225, 160, 200))
    noise = np.random.default_rng(0).integers(-12, 13, image.shape)
    return (image + noise).astype(np.uint8)


def _cover(image: NDArray[np.uint8], probabilities: NDArray[np.float32], info: ModelInfo) -> bytes:
    """A PNG: the sample, and what the model makes of it in the colours of the classes."""
    labels = probabilities[: len(info.classes)].argmax(0)
    picture = np.concatenate((image, np.array(info.colors, np.uint8)[labels]), axis=1)
    written = io.BytesIO()
    Image.fromarray(picture).save(written, "PNG")
    return written.getvalue()


def _npy(array: NDArray[np.float32]) -> bytes:
    written = io.BytesIO()
    np.save(written, array)
    return written.getvalue()


BIOIMAGEIO = Format("bioimageio", ".zip", _contents, _read)
