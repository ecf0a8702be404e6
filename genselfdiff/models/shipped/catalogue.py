"""Models that come with gsd, by name: a file of weights each, and a card beside it.

What is here is part of the installation, and as trusted. Nothing loads torch: a list of them,
or a shell that completes a name, waits for it.
"""

import logging
from pathlib import Path

from genselfdiff.errors import InputError, ModelError
from genselfdiff.input_files import parse_json, read_bytes, read_text
from genselfdiff.models.model_info import EXTRA_FILE, ModelInfo
from genselfdiff.models.shipped.card import ModelCard

logger = logging.getLogger("genselfdiff")

FOLDER = Path(__file__).parents[2] / "shipped"
LARGEST = 16_000_000
"""Bytes of a file of weights: they are in the repository and in every installation."""

_SUFFIX = ".safetensors"


def names() -> tuple[str, ...]:
    """Those that there are, in alphabetical order."""
    return tuple(sorted(path.stem for path in FOLDER.glob(f"*{_SUFFIX}")))


def name_of(model: str | Path) -> str | None:
    """``model``, if it is the name of a shipped one; a ``Path`` never is: it names a file."""
    return model if isinstance(model, str) and model in names() else None


def weights_file(name: str) -> Path:
    """Where the weights of a shipped model lie."""
    return FOLDER / f"{name}{_SUFFIX}"


def read_info(name: str) -> ModelInfo:
    """Read what a shipped model says of itself.

    Raises:
        ModelError: the file is damaged.
        InputError: it cannot be read.
    """
    content = read_bytes(weights_file(name), LARGEST)
    try:
        return info_in(content)
    except ModelError as error:
        raise ModelError(f"{name}: {error}: install gsd again") from error


def info_in(weights: bytes) -> ModelInfo:
    """What a file of weights, the safetensors ``weights``, says of its model.

    Raises:
        ModelError: it is damaged.
    """
    # A header of JSON comes first, and before it the number of its bytes.
    header = weights[8 : 8 + int.from_bytes(weights[:8], "little")]
    try:
        text = parse_json(header.decode(), EXTRA_FILE)["__metadata__"][EXTRA_FILE]
    except (UnicodeDecodeError, InputError, KeyError, TypeError) as error:
        raise ModelError(f"damaged weights: no {EXTRA_FILE} is in them") from error
    return ModelInfo.from_json(text)


def warn_of_namesake(name: str) -> None:
    """Say which of two is meant where a file or folder here has the name of a shipped model."""
    if Path(name).exists():
        logger.warning("%s: the model shipped with gsd; what is called so here is ./%s", name, name)


def read_card(name: str) -> ModelCard:
    """Read the card of a shipped model.

    Raises:
        InputError: it is not there, cannot be read or is none.
    """
    path = FOLDER / f"{name}.json"
    return ModelCard.from_json(read_text(path), path)
