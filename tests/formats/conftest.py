from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from elsewhere import Darkness
from torch import nn

from genselfdiff.models.model_file import save_model
from genselfdiff.models.model_info import ModelInfo
from genselfdiff.models.registry import create_model
from genselfdiff.models.unet import UNet


def sure(network: nn.Module) -> nn.Module:
    """Sure of what it sees, with gains and offsets that are drawn too."""
    with torch.no_grad():
        network.net.final_conv[1].weight *= 10
        for parameter in network.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return network


@pytest.fixture(scope="session")
def unet(
    tmp_path_factory: pytest.TempPathFactory, info: Callable[..., ModelInfo]
) -> tuple[Path, ModelInfo]:
    """The file in TorchScript of a U-Net that tells cores."""
    described = info(2, instances=True, architecture={"name": "tiny", "width": 8})
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("unet") / "model.ts"
    save_model(sure(create_model("tiny", out_channels=4, width=8)), described, path)
    return path, described


@pytest.fixture(scope="session")
def small_unet(info: Callable[..., ModelInfo]) -> tuple[nn.Module, ModelInfo]:
    """One of two levels, with all parts that there are: exporting a graph takes its time."""
    described = info(2, instances=True)
    torch.manual_seed(0)
    return sure(UNet(24, (1, 2), described.logits, stride=4)), described


@pytest.fixture(scope="session")
def small_unet_in(
    tmp_path_factory: pytest.TempPathFactory, small_unet: tuple[nn.Module, ModelInfo]
) -> Callable[[str], Path]:
    """The file of ``small_unet`` with a suffix, beside ``model.ts`` of it, written once."""
    folder = tmp_path_factory.mktemp("small_unet")

    def written(suffix: str) -> Path:
        for path in (folder / "model.ts", folder / f"model.{suffix}"):
            if not path.exists():
                save_model(*small_unet, path)
        return path

    return written


@pytest.fixture(scope="session")
def darkness(
    tmp_path_factory: pytest.TempPathFactory, info: Callable[..., ModelInfo]
) -> Callable[[str], Path]:
    """The file of ``Darkness`` with a suffix, written once."""
    folder = tmp_path_factory.mktemp("darkness")

    def written(suffix: str) -> Path:
        path = folder / f"model.{suffix}"
        if not path.exists():
            save_model(Darkness(), info(attributions=("Some Set, CC BY 4.0",)), path)
        return path

    return written
