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
        segmenting,
        slides,
        training,
    )
    from genselfdiff.diffusion.schedule import NoiseSchedule
    from genselfdiff.evaluation.evaluate import evaluate
    from genselfdiff.evaluation.scoring import ObjectOptions
    from genselfdiff.inference.image import predict_image
    from genselfdiff.losses import MultiLoss, P2Loss
    from genselfdiff.models.model_file import LoadedModel, load_model, save_model
    from genselfdiff.models.model_info import ModelInfo
    from genselfdiff.models.registry import create_model
    from genselfdiff.models.wrapping import wrap_model
    from genselfdiff.objects.label_array import instances
    from genselfdiff.objects.mask_objects import write_objects
    from genselfdiff.segmenting.many_slides import segment_all
    from genselfdiff.segmenting.one_slide import segment
    from genselfdiff.segmenting.options import Options
    from genselfdiff.segmenting.plan import plan_outputs
    from genselfdiff.segmenting.result import SegmentResult
    from genselfdiff.slides.opening import open_slide
    from genselfdiff.suggesting.field_geojson import write_fields
    from genselfdiff.suggesting.suggest import suggest_fields
    from genselfdiff.training.export import export
    from genselfdiff.training.runs import finetune, pretrain
    from genselfdiff.training.settings.stage_configs import FinetuneConfig, PretrainConfig
    from genselfdiff.unknown.learning import known_tissue
    from genselfdiff.unknown.unknown_map import map_unknown

_HOMES = {
    "FinetuneConfig": "training.settings.stage_configs",
    "LoadedModel": "models.model_file",
    "ModelInfo": "models.model_info",
    "MultiLoss": "losses",
    "NoiseSchedule": "diffusion.schedule",
    "ObjectOptions": "evaluation.scoring",
    "Options": "segmenting.options",
    "P2Loss": "losses",
    "PretrainConfig": "training.settings.stage_configs",
    "SegmentResult": "segmenting.result",
    "create_model": "models.registry",
    "evaluate": "evaluation.evaluate",
    "export": "training.export",
    "finetune": "training.runs",
    "instances": "objects.label_array",
    "known_tissue": "unknown.learning",
    "load_model": "models.model_file",
    "map_unknown": "unknown.unknown_map",
    "open_slide": "slides.opening",
    "plan_outputs": "segmenting.plan",
    "predict_image": "inference.image",
    "pretrain": "training.runs",
    "save_model": "models.model_file",
    "segment": "segmenting.one_slide",
    "segment_all": "segmenting.many_slides",
    "suggest_fields": "suggesting.suggest",
    "wrap_model": "models.wrapping",
    "write_fields": "suggesting.field_geojson",
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
    "instances",
    "kernels",
    "known_tissue",
    "load_model",
    "losses",
    "map_unknown",
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
    "segmenting",
    "slides",
    "suggest_fields",
    "training",
    "wrap_model",
    "write_fields",
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
