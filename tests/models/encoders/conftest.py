from collections.abc import Callable

import pytest
import torch

State = dict[str, torch.Tensor]


@pytest.fixture
def timm_state() -> Callable[..., State]:
    """Drawn weights of a small transformer, in timm's names."""

    def make(
        *,
        channels: int = 24,
        blocks: int = 3,
        patch: int = 16,
        positions: int = 17,
        registers: int = 0,
        hidden: int = 40,
        gated: bool = False,
        scaled: bool = True,
    ) -> State:
        drawn = torch.Generator().manual_seed(3)

        def draw(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=drawn) * 0.3

        def layer(name: str, out: int, into: int) -> State:
            return {f"{name}.weight": draw(out, into), f"{name}.bias": draw(out)}

        def norm(name: str) -> State:
            return {f"{name}.weight": 1 + draw(channels), f"{name}.bias": draw(channels)}

        state = {
            "cls_token": draw(1, 1, channels),
            "pos_embed": draw(1, positions, channels),
            "patch_embed.proj.weight": draw(channels, 3, patch, patch),
            "patch_embed.proj.bias": draw(channels),
            **norm("norm"),
            **layer("head", 5, channels),
        }
        if registers:
            state["reg_token"] = draw(1, registers, channels)
        for block in (f"blocks.{number}" for number in range(blocks)):
            state |= norm(f"{block}.norm1") | norm(f"{block}.norm2")
            state |= layer(f"{block}.attn.qkv", 3 * channels, channels)
            state |= layer(f"{block}.attn.proj", channels, channels)
            state |= layer(f"{block}.mlp.fc1", hidden * (2 if gated else 1), channels)
            state |= layer(f"{block}.mlp.fc2", channels, hidden)
            if scaled:
                state |= {f"{block}.ls{part}.gamma": draw(channels) for part in (1, 2)}
        return state

    return make
