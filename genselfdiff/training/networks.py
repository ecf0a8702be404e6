"""The networks that complete settings stand for, with fresh weights."""

from genselfdiff.errors import ModelError
from genselfdiff.json_records import from_json
from genselfdiff.models.encoders.encoder_network import EncoderNetwork
from genselfdiff.models.encoders.vision_transformer import VitShape
from genselfdiff.models.registry import create_model
from genselfdiff.models.unet import UNet
from genselfdiff.training.settings.stage_configs import FinetuneConfig, PretrainConfig


def noise_predictor(config: PretrainConfig) -> UNet:
    """That of stage 1."""
    assert config.architecture is not None
    return create_model(config.architecture, width=config.width)


def segmenter_network(config: FinetuneConfig) -> UNet | EncoderNetwork:
    """That of stage 2, which gives logits of the classes, and of cores where they are learnt.

    Raises:
        ModelError: the settings tell of no encoder what it is like.
    """
    assert config.architecture is not None
    if config.has_encoder:
        try:
            shape = from_json(VitShape, config.encoder_shape)
        except ValueError as error:
            raise ModelError(f"the settings of the encoder are damaged: {error}") from error
        assert config.width is not None
        return EncoderNetwork(shape, config.outputs, config.width)
    return create_model(config.architecture, out_channels=config.outputs, width=config.width)
