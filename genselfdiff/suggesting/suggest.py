"""Choosing the fields of slides that are worth annotating next.

slides -> fields on tissue, like most of it -> how unsure a model is of each -> a varied choice
"""

import logging
from collections.abc import Sequence

from genselfdiff.choices import FIELD_RANKINGS
from genselfdiff.errors import InputError
from genselfdiff.inference.predictor import Predictor
from genselfdiff.masks import is_own_mask
from genselfdiff.models.model_file import LoadedModel, find_model
from genselfdiff.slides import find_slides
from genselfdiff.storage.places import Place
from genselfdiff.suggesting.candidates import Search, find_candidates
from genselfdiff.suggesting.choosing import choose
from genselfdiff.suggesting.field import Field
from genselfdiff.suggesting.uncertainty import with_uncertainty
from genselfdiff.text import counted
from genselfdiff.unknown.known_tissue import KnownTissue

logger = logging.getLogger("genselfdiff")


def suggest_fields(
    slides: Sequence[str | Place],
    count: int = 10,
    *,
    by: str = "random",
    model: LoadedModel | str | Place | None = None,
    size: float = 250.0,
    per_slide: int | None = None,
    candidates: int = 100,
    known: KnownTissue | None = None,
    seed: int = 0,
    mpp: float | None = None,
    on_error: str = "fail",
    icc: bool = False,
    device: str | None = None,
    progress: bool | None = None,
) -> list[Field]:
    """Choose fields to annotate, the first first.

    Args:
        slides: slides, images and folders of them; masks of ours in them are left out.
        count: how many.
        by: "random", "variety" or "model", see docs/choosing_fields.md.
        model: see ``find_model``; only with ``by`` "model".
        size: side of a field in um; a smaller slide is one field.
        per_slide: at most so many of one slide; None: any number.
        candidates: fields that are looked at, of all slides together.
        known: tissue that fields have to be like; None: most of these slides' tissue.
        seed: of which fields are looked at, and of a random choice.
        mpp, on_error, icc: see ``open_slide``.
        device: of the model; None: the best there is.
        progress: show progress bars on stderr; None: only on a terminal.

    Returns:
        ``count`` fields, or fewer, of which a warning is logged.

    Raises:
        InputError: a slide cannot be read or has no mpp, there is no field, or an option is out of
            range.
        ModelError: there is no model, or it is not one of ours.
    """
    if by not in FIELD_RANKINGS:
        raise InputError(f"fields by {by!r}: must be one of {', '.join(FIELD_RANKINGS)}")
    if model is not None and by != "model":
        raise InputError(f"a model has no part in fields by {by}")
    numbers = {"count": count, "candidates": candidates, "per_slide": per_slide, "size": size}
    for name, value in numbers.items():
        if value is not None and not value > 0:
            raise InputError(f"{name} {value} must be more than 0")
    predictor = Predictor(find_model(model, device), "auto") if by == "model" else None
    search = Search(size, candidates, seed, mpp, on_error, icc)
    fields = find_candidates(slides_of(slides), search, known, progress)
    if predictor is not None:
        fields = with_uncertainty(fields, predictor, search, progress)
    chosen = choose(fields, count, by, per_slide, seed)
    if len(chosen) < count:
        bound = "" if per_slide is None else f", with at most {per_slide} of a slide"
        logger.warning(
            "only %s: there are no more on tissue%s", counted(len(chosen), "field"), bound
        )
    return chosen


def slides_of(paths: Sequence[str | Place]) -> list[Place]:
    """The slides that ``paths`` name or hold, as ``find_slides``, without masks of ours.

    Raises:
        InputError: there is none.
    """
    found = [slide for slide in find_slides(paths) if not is_own_mask(slide)]
    if not found:
        raise InputError("there are masks of gsd and no slides: name the slides")
    return found
