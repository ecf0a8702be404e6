"""What decides the pixels of a mask: told in the mask, and obeyed by all runs that work on it."""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from genselfdiff.errors import GsdError
from genselfdiff.inference.predictor import Predictor
from genselfdiff.json_records import named
from genselfdiff.kernels import native
from genselfdiff.segmenting.options import Options, Region
from genselfdiff.slides.fingerprint import fingerprint
from genselfdiff.storage.places import Place, place_of
from genselfdiff.version import __version__

logger = logging.getLogger("genselfdiff")

CHOSEN = ("precision", "batch_size", "threads")
"""What the run that begins may choose where it is None."""

MACHINE = ("genselfdiff", "torch", "kernels")
"""What rounds: masks of machines that differ in it agree but for a few pixels."""


@dataclass(frozen=True)
class Request:
    """What a run asks for; it may choose the `CHOSEN` that are None.

    Attributes:
        slide: see `content_of`.
        mpp: um/px, where it was given.
        icc: colours are those of the slide's ICC profile.
        model: name of its file, or its own, and the digest of what is in it.
        tile_size, overlap, region, tta: see ``Options``.
        tissue: whether tiles without tissue are left out; or the image that tells tissue, as
            `content_of` has it.
        device: "cpu", "cuda" or "mps".
        precision: "float32" or "bfloat16".
        batch_size: tiles predicted at once.
        threads: of each worker.
        genselfdiff, torch: their versions.
        kernels: the instruction set of the native kernels, "torch" or "none" without them.
    """

    slide: str
    mpp: float | None
    icc: bool
    model: str
    tile_size: int = field(metadata=named("tile size"))
    overlap: float
    region: Region | None
    tissue: bool | str
    device: str
    precision: str | None
    tta: int
    batch_size: int | None = field(metadata=named("batch size"))
    threads: int | None
    genselfdiff: str
    torch: str
    kernels: str

    def chosen_as(self, job: "Job") -> "Job":
        """The job of this request if it chooses as ``job`` does."""
        chosen = {name: getattr(job, name) for name in CHOSEN if getattr(self, name) is None}
        return Job(**vars(self) | chosen)

    def is_met_by(self, job: "Job") -> bool:
        """Whether a mask that was made as ``job`` says is what this asks for."""
        return self.on_this_machine(job) == self.chosen_as(job)

    def on_this_machine(self, job: "Job") -> "Job":
        """``job`` as this machine goes on with it."""
        return replace(job, **{name: getattr(self, name) for name in MACHINE})


@dataclass(frozen=True)
class Job(Request):
    """What is done: a request that has chosen. Asked for, it is met by no other job.

    Attributes:
        rows: of the window, from and to, where this is one part of several; None: all.

    Raises:
        ValueError: no run can have chosen so.
    """

    precision: str
    batch_size: int = field(metadata=named("batch size"))
    threads: int
    rows: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision {self.precision!r:.40}")
        if min(self.batch_size, self.threads) < 1:
            raise ValueError(f"batch size {self.batch_size}, threads {self.threads}")

    def is_met_by(self, job: "Job") -> bool:
        """Whether ``job`` is this one."""
        return job == self


def warn_of_other_machine(path: Path, request: Request, begun: Job) -> None:
    """Say where what was begun at ``path`` rounds otherwise than this machine does."""
    for name in MACHINE:
        of_this, of_the_first = getattr(request, name), getattr(begun, name)
        if of_this != of_the_first:
            logger.warning(
                "%s: %s %s here, %s where it was begun: a few pixels can differ",
                path,
                name,
                of_this,
                of_the_first,
            )


def requested(slide: Place, predictor: Predictor, options: Options) -> Request:
    """What a run asks for."""
    tile_size, overlap = options.tiling(predictor.model.info)
    tissue = options.tissue
    return Request(
        slide=content_of(slide),
        mpp=options.mpp,
        icc=options.icc,
        model=f"{Path(predictor.model.source).name} {predictor.model.digest}",
        tile_size=tile_size,
        overlap=overlap,
        region=None if options.region is None else (*options.region,),
        tissue=tissue if isinstance(tissue, bool) else content_of(place_of(tissue)),
        device=predictor.model.device.type,
        precision=None if predictor.wanted == "auto" else predictor.wanted,
        tta=predictor.tta,
        batch_size=options.batch_size,
        threads=None,
        genselfdiff=__version__,
        torch=str(torch.__version__),
        kernels=kernels_here(),
    )


def content_of(slide: Place) -> str:
    """Name of a slide, or image of its tissue, and what tells it from others of that name."""
    return f"{slide.name} {fingerprint(slide)}"


def kernels_here() -> str:
    """The instruction set of the native kernels, as `Request` has it."""
    if not native.available():
        return "torch"
    try:
        return native.selected_isa()
    except GsdError:
        return "none"
