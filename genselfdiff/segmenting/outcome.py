"""What became of one of several slides."""

from dataclasses import dataclass

from genselfdiff.errors import GsdError, one_line, outside_cause
from genselfdiff.segmenting.estimate import SlideEstimate
from genselfdiff.segmenting.result import SegmentResult
from genselfdiff.segmenting.shards.part import PartResult
from genselfdiff.storage.places import Place


@dataclass(frozen=True)
class Outcome:
    """What became of one slide: exactly one of ``result`` and ``error`` is set."""

    slide: Place
    result: SegmentResult | PartResult | SlideEstimate | None = None
    error: GsdError | None = None


def failure_of(slide: Place, error: Exception) -> GsdError:
    """The error to tell of a slide, whatever has stopped it: the others can do without it."""
    if isinstance(error, GsdError):
        return error
    cause = outside_cause(error) or f"{type(error).__name__}: {one_line(error)}"
    failure = GsdError(f"{slide}: failed unexpectedly: {cause}; -v says where")
    failure.__cause__ = error
    return failure
