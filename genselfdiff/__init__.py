"""Self-supervised diffusion pretraining and tiled segmentation for H&E histology.

The method is GenSelfDiff-HIS (Purma et al., IEEE TMI 2024, arXiv 2309.01487).
"""

from typing import TYPE_CHECKING

from genselfdiff.version import __version__

if TYPE_CHECKING:
    from genselfdiff.inference.engine import segment
    from genselfdiff.inference.model_file import load_model

__all__ = ["__version__", "load_model", "segment"]


def __getattr__(name: str) -> object:
    # Importing torch takes seconds: only who segments pays for it.
    if name == "segment":
        from genselfdiff.inference.engine import segment

        return segment
    if name == "load_model":
        from genselfdiff.inference.model_file import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
