"""What a user of a model must know: the ``gsd.json`` in its file."""

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from genselfdiff.choices import INPUT_SCALINGS, LARGEST_TILE, MPP_RANGE, SIZE_MULTIPLE
from genselfdiff.errors import InputError, ModelError
from genselfdiff.input_files import parse_json

EXTRA_FILE = "gsd.json"
"""What it is called among the extra files of a TorchScript file."""
FORMAT = "genselfdiff-model"
FORMAT_VERSION = 2
"""1: without the fields of ``_ADDED``, which then have their defaults."""
OVERLAP = 0.25
"""Of a tile with its neighbour, where a model does not tell another."""


@dataclass(frozen=True)
class ModelInfo:
    """What a user of the model must know; everything is checked on creation.

    Args:
        classes: name of each class, in the order of the output channels; class 0 is background.
        colors: RGB of each class, 0..255.
        mpp: micrometres per pixel that the model was trained at; None: unknown, use images as
            they are.
        tile_size: side in pixels of the tiles to predict; a multiple of ``size_multiple``.
        input_scaling: what the network itself sees: "minus_one_one" (x / 127.5 - 1) or
            "zero_one" (x / 255). ``Segmenter`` applies it.
        architecture: how the network was made, for people and tools.
        training: where the weights come from.
        licence: terms of use of the weights, as text.
        instances: beside the classes the network tells the cores of objects, which do not touch
            where objects do; in a channel of its own, after those of the classes.
        size_multiple: heights and widths that the network sees are multiples of this.
        overlap: fraction of a tile that it shares with its neighbour, 0 to 0.5.
        attributions: whose data the weights were trained on, one text each, with licence and
            source; they go wherever the weights go, and what is trained further from them.

    Raises:
        ModelError: a field has the wrong type or value; the message names it.
    """

    classes: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    mpp: float | None
    tile_size: int
    input_scaling: str
    architecture: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    instances: bool = False
    size_multiple: int = SIZE_MULTIPLE
    overlap: float = OVERLAP
    attributions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check(
            isinstance(self.classes, tuple)
            and 2 <= len(self.classes) <= 256
            and all(isinstance(name, str) and name for name in self.classes)
            and len(set(self.classes)) == len(self.classes),
            "classes",
            "2 to 256 different names",
        )
        _check(
            isinstance(self.colors, tuple)
            and len(self.colors) == len(self.classes)
            and all(_is_color(color) for color in self.colors),
            "colors",
            "one (red, green, blue) of integers 0..255 for each class",
        )
        _check(
            self.mpp is None or (_is_number(self.mpp) and MPP_RANGE[0] <= self.mpp <= MPP_RANGE[1]),
            "mpp",
            f"{MPP_RANGE[0]:g} to {MPP_RANGE[1]:g} micrometres per pixel, or null",
        )
        _check(
            _is_integer(self.size_multiple) and self.size_multiple in (8, 16, 32),
            "size_multiple",
            "8, 16 or 32",
        )
        _check(
            _is_integer(self.tile_size)
            and self.size_multiple <= self.tile_size <= LARGEST_TILE
            and self.tile_size % self.size_multiple == 0,
            "tile_size",
            f"a multiple of {self.size_multiple} up to {LARGEST_TILE}",
        )
        _check(_is_number(self.overlap) and 0 <= self.overlap <= 0.5, "overlap", "0 to 0.5")
        check_input_scaling(self.input_scaling)
        _check(isinstance(self.architecture, dict), "architecture", "an object")
        _check(isinstance(self.training, dict), "training", "an object")
        _check(isinstance(self.licence, str), "licence", "a text")
        _check(isinstance(self.instances, bool), "instances", "true or false")
        _check(
            isinstance(self.attributions, tuple)
            and all(isinstance(text, str) and text for text in self.attributions),
            "attributions",
            "a list of texts",
        )

    @property
    def channels(self) -> int:
        """How many the model gives."""
        return len(self.classes) + self.instances

    @property
    def logits(self) -> int:
        """How many its network gives: of cores, two."""
        return len(self.classes) + 2 * self.instances

    def to_json(self) -> str:
        """The content of ``gsd.json``.

        Raises:
            ModelError: ``architecture`` or ``training`` holds what JSON cannot express.
        """
        content = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}
        if all(content[name] == default for name, default in _ADDED.items()):
            content["format_version"] = 1  # earlier versions of gsd read it too
            for name in _ADDED:
                del content[name]
        try:
            return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ModelError(f"model metadata cannot be written as JSON: {error}") from error

    @classmethod
    def from_json(cls, text: str | bytes) -> "ModelInfo":
        """Parse and check ``gsd.json``.

        Raises:
            ModelError: not JSON, of a newer format, or a field is unknown, missing or ill-typed.
        """
        try:
            content = parse_json(text if isinstance(text, str) else text.decode(), EXTRA_FILE)
        except UnicodeDecodeError as error:
            raise ModelError(f"{EXTRA_FILE}: is no text in UTF-8") from error
        except InputError as error:
            raise ModelError(str(error)) from error
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise ModelError(f"{EXTRA_FILE} does not describe a {FORMAT}")
        version = content.pop("format_version", None)
        if not _is_integer(version) or version < 1:
            raise ModelError(f"{EXTRA_FILE}: field 'format_version' must be a positive integer")
        if version > FORMAT_VERSION:
            raise ModelError(
                f"written in format {version}, but this version of genselfdiff reads up to"
                f" {FORMAT_VERSION}: update genselfdiff"
            )
        if version == 1:
            content = _ADDED | content
        names = {f.name for f in fields(cls)}
        if missing := sorted(names - content.keys()):
            raise ModelError(f"{EXTRA_FILE}: field {missing[0]!r} is missing")
        if unknown := sorted(content.keys() - names):
            raise ModelError(f"{EXTRA_FILE}: field {unknown[0]!r} is unknown")
        for name in ("classes", "colors", "attributions"):
            _check(isinstance(content[name], list | tuple), name, "a list")
            content[name] = tuple(content[name])
        content["colors"] = tuple(
            tuple(color) if isinstance(color, list) else color for color in content["colors"]
        )
        return cls(**content)


_ADDED: dict[str, Any] = {
    "instances": False,
    "size_multiple": SIZE_MULTIPLE,
    "overlap": OVERLAP,
    "attributions": (),
}
"""Fields that format 1 had not."""


def check_input_scaling(name: str) -> None:
    """Raise ModelError unless ``INPUT_SCALINGS`` has ``name``."""
    is_known = isinstance(name, str) and name in INPUT_SCALINGS
    _check(is_known, "input_scaling", " or ".join(INPUT_SCALINGS))


def _check(condition: bool, name: str, wanted: str) -> None:
    if not condition:
        raise ModelError(f"model metadata: field {name!r} must be {wanted}")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_color(value: object) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 3
        and all(_is_integer(part) and 0 <= part <= 255 for part in value)
    )
