"""Models that come with gsd, by name: a file of weights each, and a card beside it.

What is here is part of the installation, and as trusted. Nothing loads torch: a shell that
completes a name waits for it.
"""

import logging
from pathlib import Path

from genselfdiff.input_files import read_text
from genselfdiff.models.model_card import ModelCard

logger = logging.getLogger("genselfdiff")

FOLDER = Path(__file__).parents[1] / "shipped"
DEFAULT = "nuclei"
"""The model that is used where none is named."""

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
