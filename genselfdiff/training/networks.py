"""The networks that complete settings stand for, with fresh weights."""

from torch import nn

from genselfdiff.models import create_model
from genselfdiff.training.config import FinetuneConfig, PretrainConfig


def noise_predictor(config: PretrainConfig) -> nn.Module:
    """That of stage 1."""
    assert config.architecture is not None
    return create_model(config.architecture, width=config.width)


def segmenter_network(config: FinetuneConfig) -> nn.Module:
    """That of stage 2, which gives logits of the classes, and of cores where they are learnt."""
    assert config.architecture is not None
    channels = len(config.classes) + (2 if config.instances else 0)
    return create_model(config.architecture, out_channels=channels, width=config.width)
