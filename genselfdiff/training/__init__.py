"""Both training stages, their run folders, and what is made of a finished run."""

from genselfdiff.training.config import FinetuneConfig, PretrainConfig
from genselfdiff.training.export import export_run
from genselfdiff.training.runs import finetune, pretrain, rehearse
from genselfdiff.training.sample import sample_run

__all__ = [
    "FinetuneConfig",
    "PretrainConfig",
    "export_run",
    "finetune",
    "pretrain",
    "rehearse",
    "sample_run",
]
