"""What a mask tells of how it was made, as it is written into it and read from it."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from genselfdiff.json_records import from_json, values_of
from genselfdiff.masks import MaskReader
from genselfdiff.segmenting.jobs.job import Job
from genselfdiff.storage.places import Place

_MOST = 2**53
"""No number that a mask tells is larger."""

_OF_THE_WRITER: dict[str, Any] = {
    "classes": tuple[str, ...],
    "pixels": tuple[int, ...],
    "from_damaged": bool,
}
"""What ``MaskWriter`` tells by itself, and the types of that."""


@dataclass(frozen=True)
class MaskDescription:
    """What a run tells of a mask that it makes.

    Attributes:
        tiles: that were predicted.
        skipped: tiles without tissue.
        scale: the model's pixel size in pixels of the slide.
        job: what decides the pixels.

    Raises:
        ValueError: a number is none of a mask.
    """

    tiles: int
    skipped: int
    scale: float
    job: Job

    def __post_init__(self) -> None:
        if not (_is_count(self.tiles, _MOST) and _is_count(self.skipped, _MOST)):
            raise ValueError(f"{self.tiles} tiles, {self.skipped} skipped")
        if not 0 < self.scale < _MOST:
            raise ValueError(f"scale {self.scale}")


_OF_THE_RUN = [part.name for part in fields(MaskDescription)]


@dataclass(frozen=True)
class FinishedMask:
    """What a mask that is there tells of itself.

    Attributes:
        width, height: in pixels.
        mpp: micrometres per pixel; None: unknown.
        description: how it was made.
        pixels: how many there are of each class, by its name.
        from_damaged: damaged tiles of the slide were taken for glass.
    """

    width: int
    height: int
    mpp: float | None
    description: MaskDescription
    pixels: dict[str, int]
    from_damaged: bool

    @property
    def job(self) -> Job:
        """What decided the pixels."""
        return self.description.job

    @classmethod
    def read(cls, path: Place) -> "FinishedMask | None":
        """The mask at ``path``; None: it is not there, or tells nothing; it can be any file."""
        try:
            with MaskReader(path) as reader:
                return cls._of(reader)
        except ValueError:  # or InputError, which is one
            return None

    @classmethod
    def _of(cls, reader: MaskReader) -> "FinishedMask":
        content = {"from_damaged": False} | reader.description
        description = from_json(MaskDescription, _part(content, _OF_THE_RUN))
        counted = values_of(_part(content, _OF_THE_WRITER), _OF_THE_WRITER)
        classes, pixels, area = counted["classes"], counted["pixels"], reader.width * reader.height
        if len(classes) != len(set(classes)):
            raise ValueError("two classes have one name")
        if not all(_is_count(number, area) for number in pixels) or sum(pixels) > area:
            raise ValueError("it counts more pixels than it has")
        return cls(
            width=reader.width,
            height=reader.height,
            mpp=reader.mpp,
            description=description,
            pixels=dict(zip(classes, pixels, strict=True)),
            from_damaged=counted["from_damaged"],
        )


def read_probabilities_job(path: Path | None, planes: int) -> Job | None:
    """The job that made a file of probabilities; None: it is not there, or does not tell."""
    if path is None:
        return None
    try:
        with MaskReader(path, planes) as reader:
            return from_json(Job, reader.description.get("job"))
    except ValueError:  # or InputError, which is one
        return None


def _part(content: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: content[name] for name in names if name in content}


def _is_count(value: int, most: int) -> bool:
    return 0 <= value <= most
