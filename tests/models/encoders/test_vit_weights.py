"""Transformers of other people's: the same numbers, whatever their files call the weights."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from genselfdiff.errors import ModelError
from genselfdiff.models.encoders.vision_transformer import STRIDE, VisionTransformer
from genselfdiff.models.encoders.vit_weights import VitWeights, read_vit

State = dict[str, torch.Tensor]


def written_out(
    state: State, images: torch.Tensor, heads: int, taken: int, mean: float, deviation: float
) -> torch.Tensor:
    """Tokens (N, C, H, W) after block ``taken``, of images in 0..1, in plain operations."""
    state = {key: value.double() for key, value in state.items()}
    n, patch = len(images), state["patch_embed.proj.weight"].shape[-1]
    x = (images.double() - mean) / deviation
    x = F.conv2d(x, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], patch)
    height, width = x.shape[2:]
    x = x.flatten(2).transpose(1, 2)
    prefix = torch.cat([state[k] for k in ("cls_token", "reg_token") if k in state], 1)
    positions = state["pos_embed"]
    own = positions.shape[1] - height * width
    x = torch.cat((prefix.expand(n, -1, -1), x + positions[:, own:]), 1)
    x[:, :own] += positions[:, :own]

    def layer(name: str, y: torch.Tensor) -> torch.Tensor:
        return F.linear(y, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(name: str, y: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(y, y.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    for block in (f"blocks.{number}" for number in range(taken + 1)):
        q, k, v = layer(f"{block}.attn.qkv", norm(f"{block}.norm1", x)).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
        y = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1) @ v
        y = layer(f"{block}.attn.proj", y.transpose(1, 2).flatten(2))
        x = x + y * state.get(f"{block}.ls1.gamma", torch.ones(()))
        y = layer(f"{block}.mlp.fc1", norm(f"{block}.norm2", x))
        gated = y.shape[-1] != state[f"{block}.mlp.fc2.weight"].shape[1]
        y = F.silu(y.chunk(2, -1)[0]) * y.chunk(2, -1)[1] if gated else F.gelu(y)
        x = x + layer(f"{block}.mlp.fc2", y) * state.get(f"{block}.ls2.gamma", torch.ones(()))
    return norm("norm", x)[:, prefix.shape[1] :].transpose(1, 2).reshape(n, -1, height, width)


def encoder_of(found: VitWeights, *taken: int) -> VisionTransformer:
    encoder = VisionTransformer(found.shape, taken)
    encoder.load_state_dict(found.state)
    return encoder.eval()


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [
        ({}, 1),
        ({"scaled": False}, 1),
        ({"gated": True, "registers": 4, "positions": 16}, 5),  # UNI2, H-optimus
        ({"registers": 2, "positions": 17}, 3),  # DINOv2 with registers
        ({"registers": 2, "positions": 19}, 3),
    ],
)
def test_its_tokens_are_those_that_are_written_out(
    timm_state: Callable[..., State], tmp_path: Path, kind: dict[str, int], prefix: int
) -> None:
    state = timm_state(**kind)
    folder = tmp_path / "encoder"
    folder.mkdir()
    save_file(state, folder / "model.safetensors")
    told = {"num_heads": 3, "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    (folder / "config.json").write_text(json.dumps({"model_args": told} | told))
    found = read_vit(folder)
    shape = found.shape
    assert (shape.name, shape.blocks, shape.heads, shape.prefix) == ("encoder", 3, 3, prefix)
    images = torch.rand(2, 3, 4 * STRIDE, 4 * STRIDE)
    with torch.inference_mode():
        maps = encoder_of(found, 0, 2)(2 * images - 1)
    for got, block in zip(maps, (0, 2), strict=True):
        truth = written_out(state, images, 3, block, 0.5, 0.25)
        np.testing.assert_allclose(got.numpy(), truth.numpy(), atol=2e-5)


def test_images_of_other_sizes_and_patches_are_scaled(
    timm_state: Callable[..., State], tmp_path: Path
) -> None:
    torch.save({"state_dict": timm_state(patch=14)}, tmp_path / "a.pth")
    encoder = encoder_of(read_vit(tmp_path / "a.pth"), 2)
    constant = torch.full((1, 3, 2 * STRIDE, 5 * STRIDE), 0.3)
    with torch.inference_mode():
        (found,) = encoder(constant)
        assert found.shape == (1, 24, 2, 5)
        (learnt,) = encoder(constant[..., : 4 * STRIDE].repeat(1, 1, 2, 1))
    assert learnt.shape == (1, 24, 4, 4)
    with torch.inference_mode():  # positions are a map: its mean stays about what it was
        positions = encoder._positions(40, 40)
        assert torch.allclose(positions.mean(1), encoder.pos_embed.mean(1), atol=0.03)
        assert torch.equal(encoder._positions(4, 4), encoder.pos_embed)


def in_names_of_transformers(state: State) -> State:
    """As ``ViTModel`` of transformers keeps them."""
    renamed: State = {}
    for key, value in state.items():
        for name, other in (
            ("cls_token", "embeddings.cls_token"),
            ("pos_embed", "embeddings.position_embeddings"),
            ("patch_embed.proj.", "embeddings.patch_embeddings.projection."),
            ("norm1.", "layernorm_before."),
            ("norm2.", "layernorm_after."),
            ("mlp.fc1.", "intermediate.dense."),
            ("mlp.fc2.", "output.dense."),
            ("attn.proj.", "attention.output.dense."),
            ("blocks.", "encoder.layer."),
        ):
            key = key.replace(name, other)
        key = f"layernorm.{key.removeprefix('norm.')}" if key.startswith("norm.") else key
        if "attn.qkv" in key:
            for part, rows in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[key.replace("attn.qkv", f"attention.attention.{part}")] = rows
        elif not key.startswith("head"):
            renamed[key] = value
    return renamed


def test_names_of_transformers_are_known(timm_state: Callable[..., State], tmp_path: Path) -> None:
    state = timm_state(scaled=False)
    torch.save(state, tmp_path / "timm.pth")
    folder = tmp_path / "phikon"
    folder.mkdir()
    torch.save(in_names_of_transformers(state), folder / "pytorch_model.bin")
    (folder / "config.json").write_text('{"num_attention_heads": 2}')
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.6, 0.7]}')
    ours, theirs = read_vit(tmp_path / "timm.pth"), read_vit(folder)
    assert ours.state.keys() == theirs.state.keys()
    assert all(torch.equal(value, theirs.state[key]) for key, value in ours.state.items())
    assert (theirs.shape.heads, theirs.shape.mean) == (2, (0.5, 0.6, 0.7))
    assert theirs.shape.deviation == ours.shape.deviation == (0.229, 0.224, 0.225)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("vit_tiny_patch16_224", {}),
        ("vit_small_patch14_reg4_dinov2", {"img_size": 224}),
        ("vit_small_patch8_224", {}),
    ],
)
def test_it_computes_as_timm_does(model: str, options: dict[str, int], tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", exc_type=(ImportError, RuntimeError))
    network = timm.create_model(model, dynamic_img_size=True, num_classes=0, **options).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0, 0.1)
    torch.save(network.state_dict(), tmp_path / "a.pth")
    found = read_vit(tmp_path / "a.pth")
    encoder = encoder_of(found, 0, 11)
    encoder.stride = found.shape.patch  # as it comes, without scaling
    images = torch.rand(1, 3, 9 * encoder.stride, 5 * encoder.stride) * 2 - 1
    seen = (images - encoder.mean) / encoder.deviation
    with torch.inference_mode():
        truths = network.forward_intermediates(
            seen, indices=[0, 11], norm=True, intermediates_only=True
        )
        for got, truth in zip(encoder(images), truths, strict=True):
            np.testing.assert_allclose(got.numpy(), truth.numpy(), atol=1e-4)


def test_other_files_are_refused_in_one_line(
    timm_state: Callable[..., State], tmp_path: Path
) -> None:
    state = timm_state()

    def told(content: object, configuration: str | None = None) -> str:
        path = tmp_path / "pytorch_model.bin"
        torch.save(content, path)
        (tmp_path / "config.json").write_text(configuration or "{}")
        with pytest.raises(ModelError) as caught:
            read_vit(path if configuration is None else tmp_path)
        return str(caught.value)

    assert "transformers: no patch_embed.weight, pos_embed" in told({"a": torch.ones(2)})
    less = {key: value for key, value in state.items() if key != "blocks.1.norm1.bias"}
    assert "they lack 1 tensor (blocks.1.norm1.bias)" in told(less)
    assert "beside them 1 tensor (blocks.0.attn.q_norm.weight)" in told(
        state | {"blocks.0.attn.q_norm.weight": torch.ones(8)}
    )
    assert "positions are none of a square" in told(state | {"pos_embed": torch.ones(1, 20, 24)})
    assert "norm.bias has shape (3,) instead of (24,)" in told(state | {"norm.bias": torch.ones(3)})
    assert "norm.bias is not all finite" in told(
        state | {"norm.bias": torch.full((24,), torch.nan)}
    )
    keyless = in_names_of_transformers(timm_state(scaled=False))
    (key,) = [key for key in keyless if key.endswith("layer.0.attention.attention.key.bias")]
    del keyless[key]
    assert "beside them 2 tensors (blocks.0.attn.query.bias" in told(keyless)
    for odd in (torch.ones(()), torch.ones(1, 3), torch.ones(0, 0, 0, 0)):
        for key in ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.mlp.fc2.weight"):
            assert str(tmp_path) in told(state | {key: odd})
    assert "heads" in told(state, '{"num_heads": 5}')
    assert "heads must be a whole number" in told(state, '{"num_heads": "many"}')
    assert "config.json is no table" in told(state, "[]")
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        read_vit(tmp_path)
    with pytest.raises(ModelError, match="there is no such file"):
        read_vit(tmp_path / "gone")
