"""Weights of other people's vision transformers: what they are of, and in our names.

Taken are the names of timm and DINOv2 (``blocks.0.attn.qkv.weight``), which UNI, Virchow,
H-optimus, Prov-GigaPath and others have, and those of transformers
(``encoder.layer.0.attention.attention.query.weight``), which Phikon and others have.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from genselfdiff.errors import InputError, ModelError
from genselfdiff.input_files import read_json
from genselfdiff.models.checkpoints.state_dicts import State, read_state_dict
from genselfdiff.models.encoders.vision_transformer import VisionTransformer, VitShape
from genselfdiff.models.weights import require_weights
from genselfdiff.models.wrapping import IMAGENET_DEVIATION, IMAGENET_MEAN

_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16, 1536: 24, 1664: 16}
"""By channels, of all sizes that have a name (tiny to gigantic): weights alone do not tell."""
_HEAD_CHANNELS = 64

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_CONFIGURATIONS = ("config.json", "preprocessor_config.json")
"""Of a folder of the Hugging Face Hub."""

_NEEDED = ("patch_embed.weight", "pos_embed", "norm.weight")
"""What every such transformer has, in our names."""
_NOT_USED = re.compile(r"(head|head_dist|fc_norm|pooler|classifier)\.|(.*\.)?mask_token$")
_RENAMED = (
    (r"^(vit|dinov2|backbone|encoder(?=\.(blocks|cls_token)))\.", ""),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^(embeddings\.)?register_tokens$", "reg_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^(embeddings\.patch_embeddings\.projection|patch_embed\.proj)\.", "patch_embed."),
    (r"^encoder\.layer\.", "blocks."),
    (r"^layernorm\.", "norm."),
    (r"\.attention\.attention\.", ".attn."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.(intermediate\.dense|mlp\.w12|mlp\.weights_in)\.", ".mlp.fc1."),
    (r"\.(output\.dense|mlp\.w3|mlp\.weights_out)\.", ".mlp.fc2."),
)


@dataclass(frozen=True)
class VitWeights:
    """A transformer of a file.

    Attributes:
        shape: what it is like.
        state: state dict of a `VisionTransformer` of this shape, float32.
    """

    shape: VitShape
    state: State


def read_vit(path: str | Path) -> VitWeights:
    """The transformer in a file of weights, or in a folder as the Hugging Face Hub gives it.

    In a folder, ``config.json`` and ``preprocessor_config.json`` tell the number of heads, and mean
    and deviation of images; without them these are ImageNet's.

    Args:
        path: a ``.safetensors``, a ``.bin`` or ``.pth`` of ``torch.save``, or a folder with one.

    Raises:
        ModelError: no such file, damaged, or not the weights of a plain vision transformer.
    """
    path = Path(path)
    file = _file_in(path) if path.is_dir() else path
    try:
        state = dict(_in_our_names(read_state_dict(file)))
        told = _told_beside(file) if path.is_dir() else {}
        shape = _shape_of(path.resolve().name, state, told)
        _fold_prefix(state, shape)
        _require_all(state, shape)
    except (ModelError, InputError) as error:
        raise ModelError(f"{path}: {error}") from error
    except (LookupError, TypeError, RuntimeError) as error:  # of tensors of other shapes
        raise ModelError(f"{path}: not the weights of a plain vision transformer") from error
    return VitWeights(shape, state)


def _file_in(folder: Path) -> Path:
    found = [folder / name for name in _WEIGHTS if (folder / name).is_file()]
    if not found:
        raise ModelError(
            f"{folder}: holds no weights of an encoder: it has neither {' nor '.join(_WEIGHTS)}"
        )
    return found[0]


def _in_our_names(state: State) -> Iterator[tuple[str, torch.Tensor]]:
    """What of ``state`` is used, by the names that a `VisionTransformer` gives."""
    renamed: State = {}
    for key, value in state.items():
        for pattern, name in _RENAMED:
            key = re.sub(pattern, name, key)
        if not _NOT_USED.match(key):
            renamed[key] = value.float()
    parts = ("query", "key", "value")
    for key in renamed:
        # Transformers keep three layers of what is one here.
        found = re.search(r"\.attn\.(query|key|value)\.", key)
        names = [] if found is None else [key.replace(found[1], part) for part in parts]
        if found is None or not all(name in renamed for name in names):
            yield key, renamed[key]
        elif found[1] == "query":
            yield key.replace("query", "qkv"), torch.cat([renamed[name] for name in names])


def _shape_of(name: str, state: State, told: Mapping[str, Any]) -> VitShape:
    """What the weights, and ``told`` beside them, are of."""
    missing = [key for key in _NEEDED if key not in state]
    if missing:
        raise ModelError(
            "not the weights of a plain vision transformer in the names of timm, DINOv2 or"
            f" transformers: no {', '.join(missing)}"
        )
    channels, patch = (int(state["patch_embed.weight"].shape[axis]) for axis in (0, 3))
    hidden = int(state["blocks.0.mlp.fc2.weight"].shape[-1])
    prefix = sum(int(state[key].shape[1]) for key in ("cls_token", "reg_token") if key in state)
    grid = math.isqrt(int(state["pos_embed"].shape[1]))
    default = _HEADS.get(channels, max(1, channels // _HEAD_CHANNELS))
    return VitShape(
        name=name,
        channels=channels,
        blocks=len({key.split(".")[1] for key in state if key.startswith("blocks.")}),
        heads=told.get("heads", default),
        hidden=hidden,
        gated=len(state["blocks.0.mlp.fc1.weight"]) == 2 * hidden,
        scaled="blocks.0.ls1.gamma" in state,
        patch=patch,
        grid=grid,
        prefix=prefix,
        mean=told.get("mean", IMAGENET_MEAN),
        deviation=told.get("deviation", IMAGENET_DEVIATION),
    )


def _told_beside(file: Path) -> dict[str, Any]:
    """Heads, mean and deviation, as far as the files of the Hub beside ``file`` tell them."""
    told: dict[str, Any] = {}
    for path in (file.with_name(name) for name in _CONFIGURATIONS):
        content = read_json(path) if path.is_file() else {}
        if not isinstance(content, dict):
            raise ModelError(f"{path.name} is no table")
        tables = [content, *(content.get(key) for key in ("model_args", "pretrained_cfg"))]
        flat = {k: v for table in tables if isinstance(table, dict) for k, v in table.items()}
        for name, keys in _TOLD.items():
            for value in (flat[key] for key in keys if flat.get(key) is not None):
                told[name] = tuple(value) if isinstance(value, list) else value
    return told


_TOLD = {
    "heads": ("num_attention_heads", "num_heads"),
    "mean": ("image_mean", "mean"),
    "deviation": ("image_std", "std"),
}
"""What these files call it: transformers, then timm."""


def _fold_prefix(state: State, shape: VitShape) -> None:
    """Make one entry of the tokens before the image's, positions included, which ``state`` gets."""
    tokens = [state.pop(key) for key in ("cls_token", "reg_token") if key in state]
    prefix = torch.cat(tokens, 1) if tokens else torch.zeros(1, 0, shape.channels)
    positions = state["pos_embed"]
    own = positions.shape[1] - shape.grid**2  # of none, of the first token alone, or of all
    if own not in (0, 1, shape.prefix) or own > shape.prefix:
        raise ModelError(f"{positions.shape[1]} positions are none of a square of patches")
    prefix[:, :own] += positions[:, :own]
    state["prefix"], state["pos_embed"] = prefix, positions[:, own:]


def _require_all(state: State, shape: VitShape) -> None:
    """Raise ModelError unless ``state`` is that of a transformer of this shape."""
    with torch.device("meta"):
        wanted = VisionTransformer(shape, ()).state_dict()
    for name in [key for key in wanted if key.endswith(".attn.qkv.bias") and key not in state]:
        state[name] = torch.zeros(wanted[name].shape)  # of layers that have none
    require_weights("a plain vision transformer", state, wanted)
