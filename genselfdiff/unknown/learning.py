"""Getting to know tissue from images and slides."""

import logging
from pathlib import Path

from genselfdiff.errors import InputError
from genselfdiff.masks import is_own_mask
from genselfdiff.progress import progress_bar
from genselfdiff.slides import find_slides, open_slide
from genselfdiff.storage.places import Place
from genselfdiff.text import counted
from genselfdiff.training.settings.run_config import CONFIG
from genselfdiff.training.settings.stage_configs import PretrainConfig
from genselfdiff.unknown.known_tissue import MOST_CELLS, KnownTissue
from genselfdiff.unknown.slide_cells import SlideCells

logger = logging.getLogger("genselfdiff")

CELL = 16.0
"""Side of a cell in um."""

MPP = 0.5
"""um/px at which cells are seen, where nothing else is said."""

_LEAST_OF_EACH = 64
"""Cells of an image, if it has so many."""


def side_of(mpp: float) -> int:
    """Pixels along a cell at a resolution, a multiple of 4 and at least 16."""
    return max(4 * round(CELL / mpp / 4), 16)


def known_tissue(
    like: str | Place,
    *,
    mpp: float | None = None,
    image_mpp: float | None = None,
    icc: bool = False,
    progress: bool | None = False,
) -> KnownTissue:
    """Know the tissue of images.

    Args:
        like: an image or slide, a folder of them, masks of ours left out, a run folder of
            `gsd train pretrain`, whose images are meant, or a file of ``KnownTissue.write``.
        mpp: um/px at which cells are seen; None: that of the run, else 0.5.
        image_mpp: um/px of images whose files do not tell; None: that of the run.
        icc: see ``open_slide``; of a run, as it was trained.
        progress: show a progress bar on stderr; None: only on a terminal.

    Raises:
        InputError: an image cannot be read or has no mpp, or there is too little tissue; a file of
            known tissue is damaged, or was made at another ``mpp``.
    """
    sources: list[str | Place] = [like]
    if isinstance(like, str | Path):
        path = Path(like)
        if path.suffix.lower() == ".json":
            known = KnownTissue.read(path)
            if mpp is not None and mpp != known.mpp:
                raise InputError(f"{path}: sees tissue at {known.mpp:g} um/px, not at {mpp:g}")
            if icc and not known.icc:
                raise InputError(f"{path}: was made without --icc: leave that out, or make it anew")
            return known
        if (path / CONFIG).is_file():
            run = PretrainConfig.read(path / CONFIG)
            sources, mpp = list(run.data), mpp or run.mpp
            image_mpp, icc = image_mpp or run.image_mpp, run.icc
    files = [file for file in find_slides(sources) if not is_own_mask(file)]
    if not files:
        raise InputError(f"{like}: holds nothing but masks of gsd: name the slides")
    mpp = MPP if mpp is None else mpp
    side = side_of(mpp)
    count = max(MOST_CELLS // len(files), _LEAST_OF_EACH)
    seen = [_resolution_of(file, image_mpp) for file in files]  # of all, before any takes its time
    images = []
    bar = progress_bar(files, desc="known tissue", progress=progress)
    for file, seen_at in zip(bar, seen, strict=True):
        with open_slide(file, mpp=seen_at, on_error="blank", icc=icc) as slide:
            images.append(SlideCells(slide, mpp, side).some(count))
    known = KnownTissue.of([each for each in images if len(each)] or images, mpp, side, icc)
    told = counted(len(known.points), "cell"), counted(len(files), "image")
    logger.info("known tissue: %s of %s", *told)
    return known


def _resolution_of(file: Place, otherwise: float | None) -> float:
    """um/px of an image, ``otherwise`` where its file does not tell."""
    with open_slide(file, on_error="blank") as slide:
        mpp = slide.mpp or otherwise
    if mpp is None:
        raise InputError(
            f"{file}: the file does not state its resolution: give it with --like-mpp (um/px)"
        )
    return mpp
