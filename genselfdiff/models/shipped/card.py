"""The card of a shipped model: what it is for, how good it is, how fast, and where it fails.

What the weights tell themselves (classes, resolution, licence, attributions) is in their
``ModelInfo``; here is what somebody has found out about them. Figures come from committed results.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self, TypeVar

from genselfdiff.errors import InputError
from genselfdiff.input_files import parse_json

FORMAT = "genselfdiff-card"
FORMAT_VERSION = 1

Item = TypeVar("Item")


@dataclass(frozen=True)
class Score:
    """A mean over images.

    Attributes:
        mean: of 0 to 1.
        interval: its 95 % interval; None of fewer than two images.
    """

    mean: float
    interval: tuple[float, float] | None

    @classmethod
    def of(cls, content: Any, where: str) -> Self:
        """``[mean, low, high]``, or ``[mean]``."""
        parts = _list(content, where, _share)
        if len(parts) not in (1, 3) or (len(parts) == 3 and not parts[1] <= parts[0] <= parts[2]):
            raise InputError(f"{where}: must be [mean], or [mean, low, high] in this order")
        return cls(parts[0], (parts[1], parts[2]) if len(parts) == 3 else None)


@dataclass(frozen=True)
class Scores:
    """Of all images of a set, or of a group of them.

    Attributes:
        name: of the set or group, such as an organ.
        images: how many.
        scores: by metric, as its name is shown: "Dice", "AJI", "PQ".
    """

    name: str
    images: int
    scores: Mapping[str, Score]

    @classmethod
    def of(cls, content: Any, where: str) -> Self:
        """An object with these names."""
        values = _object(content, where, cls)
        scores = values["scores"]
        if not isinstance(scores, dict):
            raise InputError(f"{where}.scores: must be an object of scores by metric")
        return cls(
            _text(values["name"], f"{where}.name"),
            _count(values["images"], f"{where}.images"),
            {key: Score.of(value, f"{where}.scores.{key}") for key, value in scores.items()},
        )


@dataclass(frozen=True)
class Evaluation:
    """What was measured on one set of images that trained nothing and chose nothing.

    Attributes:
        about: what the images are, and how they were kept back.
        command: what measures it again.
        all: of all images.
        groups: of parts of them.
    """

    about: str
    command: str
    all: Scores
    groups: tuple[Scores, ...]

    @classmethod
    def of(cls, content: Any, where: str) -> Self:
        """An object with these names."""
        values = _object(content, where, cls)
        return cls(
            _text(values["about"], f"{where}.about"),
            _text(values["command"], f"{where}.command"),
            Scores.of(values["all"], f"{where}.all"),
            _list(values["groups"], f"{where}.groups", Scores.of),
        )


@dataclass(frozen=True)
class Speed:
    """How fast the whole command is.

    Attributes:
        machine: processor, number of cores and instruction set.
        what: the slide and the options.
        megapixels_per_second: of level 0, from the slide's file to the last file written.
    """

    machine: str
    what: str
    megapixels_per_second: float

    @classmethod
    def of(cls, content: Any, where: str) -> Self:
        """An object with these names."""
        values = _object(content, where, cls)
        return cls(
            _text(values["machine"], f"{where}.machine"),
            _text(values["what"], f"{where}.what"),
            _positive(values["megapixels_per_second"], f"{where}.megapixels_per_second"),
        )


@dataclass(frozen=True)
class ModelCard:
    """The card of a model.

    Attributes:
        summary: what it does, in a line of `gsd models`.
        purpose: what it is for, and what not.
        training: how it was trained, in a few sentences.
        evaluations: how good it is; none: not measured yet.
        speeds: how fast; none: not measured yet.
        limits: where it fails, one text each; none: not looked for yet.
        finetuning: when and how to train it further.
    """

    summary: str
    purpose: str
    training: str
    evaluations: tuple[Evaluation, ...]
    speeds: tuple[Speed, ...]
    limits: tuple[str, ...]
    finetuning: str

    @classmethod
    def from_json(cls, text: str, path: Path) -> Self:
        """Parse and check a card.

        Args:
            text: JSON, an object with the names of the attributes.
            path: where it is from, for errors.

        Raises:
            InputError: it is none, of a newer version, or a part is missing, unknown or ill-typed.
        """
        content = parse_json(text, path)
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise InputError(f"{path}: is no {FORMAT}")
        version = content.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise InputError(f"{path}: has format {version}, this version reads {FORMAT_VERSION}")
        values = _object(content, str(path), cls)

        def at(name: str) -> str:
            return f"{path}: {name}"

        return cls(
            _text(values["summary"], at("summary")),
            _text(values["purpose"], at("purpose")),
            _text(values["training"], at("training")),
            _list(values["evaluations"], at("evaluations"), Evaluation.of),
            _list(values["speeds"], at("speeds"), Speed.of),
            _list(values["limits"], at("limits"), _text),
            _text(values["finetuning"], at("finetuning")),
        )


def _object(content: Any, where: str, kind: type) -> dict[str, Any]:
    """``content``, an object that has the attributes of ``kind`` and no others."""
    if not isinstance(content, dict):
        raise InputError(f"{where}: must be an object")
    names = {field.name for field in fields(kind)}
    if missing := sorted(names - content.keys()):
        raise InputError(f"{where}: {missing[0]!r} is missing")
    if unknown := sorted(content.keys() - names):
        raise InputError(f"{where}: {unknown[0]!r} is unknown")
    return content


def _list(content: Any, where: str, of: Callable[[Any, str], Item]) -> tuple[Item, ...]:
    if not isinstance(content, list):
        raise InputError(f"{where}: must be a list")
    return tuple(of(item, f"{where}[{number}]") for number, item in enumerate(content))


def _text(content: Any, where: str) -> str:
    if not isinstance(content, str) or not content.strip():
        raise InputError(f"{where}: must be a text")
    return content


def _count(content: Any, where: str) -> int:
    if type(content) is not int or content < 1:
        raise InputError(f"{where}: must be a whole number from 1 on")
    return content


def _positive(content: Any, where: str) -> float:
    if type(content) not in (int, float) or not 0 < content < math.inf:
        raise InputError(f"{where}: must be a number above 0")
    return float(content)


def _share(content: Any, where: str) -> float:
    if type(content) not in (int, float) or not 0 <= content <= 1:
        raise InputError(f"{where}: must be a number from 0 to 1")
    return float(content)
