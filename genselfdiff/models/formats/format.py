"""What every format of model files has."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

import torch
from torch import nn

from genselfdiff.models.model_info import ModelInfo


class ModelParts(NamedTuple):
    """What a model is made of; ``digest`` is of the file's content.

    ``module`` is called as ``Segmenter`` is, and computes in float32 alone where
    ``float32_only``: its parameters, if it has any, are not to be converted.
    """

    info: ModelInfo
    module: nn.Module
    digest: str
    float32_only: bool = False


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        name: one of ``choices.MODEL_FORMATS``.
        suffix: of its files.
        contents: what is in the file of a network (left as it is) with its description, from the
            first byte; raises ModelError where the network is not what is described, or cannot be
            written so. ``portable`` as for ``save_model``.
        read: looks at an open file, then loads it on a device; raises ModelError where it is
            damaged, does more than compute, or is of another version, RuntimeError where the
            loader fails.
        on_cpu_only: it runs on no other device.
    """

    name: str
    suffix: str
    contents: Callable[[nn.Module, ModelInfo, bool], BinaryIO]
    read: Callable[[BinaryIO, torch.device], ModelParts]
    on_cpu_only: bool = False


@contextmanager
def quiet(part: str) -> Iterator[None]:
    """Without what a part of torch warns of and logs, such as "torch.export"; its errors remain."""
    logger = logging.getLogger(part)
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
