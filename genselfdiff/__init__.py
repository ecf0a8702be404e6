"""Self-supervised diffusion pretraining and tiled segmentation for H&E histology.

The method is GenSelfDiff-HIS (Purma et al., IEEE TMI 2024, arXiv 2309.01487).

Every name below stays as it is from one minor version to the next. Each is loaded when it is first
asked for, because loading torch takes seconds.
"""

import importlib
from typing import TYPE_CHECKING

from genselfdiff.version import __version__

if TYPE_CHECKING:
    from genselfdiff import (
        data,
        diffusion,
        errors,
        evaluation,
        inference,
        kernels,
        losses,
        masks,
        models,
        objects,
        slides,
        training,
    )
    from genselfdiff.diffusion.schedule import NoiseSchedule
    from genselfdiff.evaluation.evaluate import evaluate
    from genselfdiff.evaluation.scoring import ObjectOptions
    from genselfdiff.inference.engine import segment
    from genselfdiff.inference.many import segment_all
    from genselfdiff.inference.model_file import LoadedModel, load_model, save_model
    from genselfdiff.inference.model_info import ModelInfo
    from genselfdiff.inference.options import Options
    from genselfdiff.inference.plan import plan_outputs
    from genselfdiff.inference.segment_result import SegmentResult
    from genselfdiff.inference.tiled import predict_image
    from genselfdiff.losses import MultiLoss, P2Loss
    from genselfdiff.models.registry import create_model
    from genselfdiff.objects.mask_objects import write_objects
    from genselfdiff.slides.opening import open_slide
    from genselfdiff.training.config import FinetuneConfig, PretrainConfig
    from genselfdiff.training.export import export
    from genselfdiff.training.runs import finetune, pretrain

_HOMES = {
    "FinetuneConfig": "training.config",
    "LoadedModel": "inference.model_file",
    "ModelInfo": "inference.model_info",
    "MultiLoss": "losses",
    "NoiseSchedule": "diffusion.schedule",
    "ObjectOptions": "evaluation.scoring",
    "Options": "inference.options",
    "P2Loss": "losses",
    "PretrainConfig": "training.config",
    "SegmentResult": "inference.segment_result",
    "create_model": "models.registry",
    "evaluate": "evaluation.evaluate",
    "export": "training.export",
    "finetune": "training.runs",
    "load_model": "inference.model_file",
    "open_slide": "slides.opening",
    "plan_outputs": "inference.plan",
    "predict_image": "inference.tiled",
    "pretrain": "training.runs",
    "save_model": "inference.model_file",
    "segment": "inference.engine",
    "segment_all": "inference.many",
    "write_objects": "objects.mask_objects",
}
"""Where names are; type checkers see the imports above, and a test that both say the same."""

__all__ = [
    "FinetuneConfig",
    "LoadedModel",
    "ModelInfo",
    "MultiLoss",
    "NoiseSchedule",
    "ObjectOptions",
    "Options",
    "P2Loss",
    "PretrainConfig",
    "SegmentResult",
    "__version__",
    "create_model",
    "data",
    "diffusion",
    "errors",
    "evaluate",
    "evaluation",
    "export",
    "finetune",
    "inference",
    "kernels",
    "load_model",
    "losses",
    "masks",
    "models",
    "objects",
    "open_slide",
    "plan_outputs",
    "predict_image",
    "pretrain",
    "save_model",
    "segment",
    "segment_all",
    "slides",
    "training",
    "write_objects",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
