"""What decides the pixels of a mask: told in the mask, and obeyed by all runs that work on it."""

from pathlib import Path
from typing import Any, TypeGuard

import torch

from genselfdiff.errors import GsdError
from genselfdiff.inference.options import Options
from genselfdiff.inference.predictor import Predictor
from genselfdiff.kernels import native
from genselfdiff.slides.fingerprint import fingerprint
from genselfdiff.version import __version__

Job = dict[str, Any]
"""Names and values as JSON has them."""

CHOSEN = ("precision", "batch size", "threads")
"""What the run that begins may choose where it is None."""

_COUNTS = ("batch size", "threads")

MACHINE = ("genselfdiff", "torch", "kernels")
"""What rounds: masks of machines that differ in it agree but for a few pixels."""


def requested(slide: Path, predictor: Predictor, options: Options) -> Job:
    """What a run asks for; it may choose the `CHOSEN` that are None."""
    tile_size, overlap = options.tiling(predictor.model.info)
    tissue = options.tissue
    if not isinstance(tissue, bool):
        tissue = content_of(Path(tissue))
    return {
        "slide": content_of(slide),
        "mpp": options.mpp,
        "model": f"{Path(predictor.model.source).name} {predictor.model.digest}",
        "tile size": tile_size,
        "overlap": overlap,
        "region": list(options.region) if options.region else None,
        "tissue": tissue,
        "device": predictor.model.device.type,
        "precision": None if predictor.wanted == "auto" else predictor.wanted,
        "tta": predictor.tta,
        "batch size": options.batch_size,
        "threads": None,
        "genselfdiff": __version__,
        "torch": torch.__version__,
        "kernels": _kernels(),
    }


def content_of(slide: Path) -> str:
    """Name of a slide, or image of its tissue, and what tells it from others of that name."""
    return f"{slide.name} {fingerprint(slide)}"


def is_job(value: object) -> TypeGuard[Job]:
    """Whether a file that is there tells a job that this version could have begun or done."""
    return (
        isinstance(value, dict)
        and value.get("precision") in ("float32", "bfloat16")
        and all(isinstance(value.get(key), int) and value[key] > 0 for key in _COUNTS)
        and isinstance(value.get("device"), str)
    )


def is_same_work(job: Job, request: Job) -> bool:
    """Whether a mask that was made as ``job`` says is what ``request`` asks for."""
    wanted = filled_in(request, job)
    return job.keys() >= wanted.keys() and all(
        value == job[key] for key, value in wanted.items() if key not in MACHINE
    )


def filled_in(request: Job, job: Job) -> Job:
    """``request`` with what it leaves to the run as ``job`` has chosen it."""
    left = {key: job.get(key) for key in CHOSEN if request[key] is None}
    return request | left


def _kernels() -> str:
    if not native.available():
        return "torch"
    try:
        return native.selected_isa()
    except GsdError:
        return "none"
