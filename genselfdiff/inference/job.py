"""What decides the pixels of a mask: told in the mask, and obeyed by all runs that work on it."""

import hashlib
import os
from pathlib import Path
from typing import Any

import torch

import genselfdiff
from genselfdiff.errors import GsdError
from genselfdiff.inference.options import Options
from genselfdiff.inference.predictor import Predictor
from genselfdiff.kernels import native

Job = dict[str, Any]
"""Names and values as JSON has them."""

CHOSEN = ("precision", "batch size", "threads")
"""What the run that begins may choose where it is None."""

MACHINE = ("genselfdiff", "torch", "kernels")
"""What rounds: masks of machines that differ in it agree but for a few pixels."""

_ENDS = 2**16
"""Bytes at the beginning and end of a slide that, with its size, tell it from others."""


def requested(slide: Path, predictor: Predictor, options: Options) -> Job:
    """What a run asks for; it may choose the `CHOSEN` that are None."""
    info = predictor.model.info
    tissue = options.tissue
    if not isinstance(tissue, bool):
        # All of it: edited by hand, it often keeps its size, its beginning and its end.
        tissue = f"{Path(tissue).name} {_content(Path(tissue), ends=None)}"
    return {
        "slide": content_of(slide),
        "mpp": options.mpp,
        "model": f"{predictor.model.path.name} {predictor.model.digest}",
        "tile size": options.tile_size or info.tile_size,
        "overlap": options.overlap,
        "region": list(options.region) if options.region else None,
        "tissue": tissue,
        "device": predictor.model.device.type,
        "precision": None if predictor.wanted == "auto" else predictor.wanted,
        "tta": predictor.tta,
        "batch size": options.batch_size,
        "threads": None,
        "genselfdiff": genselfdiff.__version__,
        "torch": torch.__version__,
        "kernels": _kernels(),
    }


def content_of(slide: Path) -> str:
    """Name of a slide, and what tells it from others of that name."""
    return f"{slide.name} {_content(slide)}"


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


def _content(path: Path, ends: int | None = _ENDS) -> str:
    """Tell a file from others by its ``ends``, or all of it; a folder by files' names and sizes."""
    digest = hashlib.sha256()
    if path.is_dir():
        # The size of a folder within is the file system's affair.
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            digest.update(f"{file.relative_to(path)} {file.stat().st_size}\n".encode())
    elif path.is_file():
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            digest.update(str(size).encode())
            if ends is not None:
                digest.update(stream.read(ends))
                stream.seek(max(size - ends, 0))
            while part := stream.read(2**20):
                digest.update(part)
    return digest.hexdigest()[:16]


def _kernels() -> str:
    if not native.available():
        return "torch"
    try:
        return native.selected_isa()
    except GsdError:
        return "none"
