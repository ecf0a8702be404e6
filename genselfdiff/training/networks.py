"""The networks that complete settings stand for, with fresh weights."""

from genselfdiff.models.registry import create_model
from genselfdiff.models.unet import UNet
from genselfdiff.training.settings.stage_configs import FinetuneConfig, PretrainConfig


def noise_predictor(config: PretrainConfig) -> UNet:
    """That of stage 1."""
    assert config.architecture is not None
    return create_model(config.architecture, width=config.width)


def segmenter_network(config: FinetuneConfig) -> UNet:
    """That of stage 2, which gives logits of the classes, and of cores where they are learnt."""
    assert config.architecture is not None
    return create_model(config.architecture, out_channels=config.outputs, width=config.width)
