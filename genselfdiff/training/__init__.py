"""Both training stages, their run folders, and what is made of a finished run."""

from genselfdiff.training.config import FinetuneConfig, PretrainConfig
from genselfdiff.training.export import export_run
from genselfdiff.training.finetuning import finetune
from genselfdiff.training.pretraining import pretrain
from genselfdiff.training.sample import sample_run

__all__ = [
    "FinetuneConfig",
    "PretrainConfig",
    "export_run",
    "finetune",
    "pretrain",
    "sample_run",
]
