"""A folder with the whole weights of a model, as the Hugging Face Hub takes it.

``model.safetensors`` is what a shipped model is (``shipped/weights.py``), ``gsd.json`` its
description once more, for people and programs, and ``README.md`` the page that the Hub shows.
Nothing else in the folder is looked at.
"""

from collections.abc import Mapping
from pathlib import Path

import torch

from genselfdiff.errors import InputError, ModelError
from genselfdiff.files import atomic_file, refuse_existing, write_text, writing
from genselfdiff.input_files import is_regular_file, read_bytes, read_text
from genselfdiff.models.model_info import EXTRA_FILE, ModelInfo
from genselfdiff.models.published.readme import readme
from genselfdiff.models.shipped import catalogue
from genselfdiff.models.shipped.card import ModelCard
from genselfdiff.models.shipped.weights import (
    WholeWeights,
    in_half,
    parse_weights,
    read_weights,
    save_weights,
)

WEIGHTS = "model.safetensors"
README = "README.md"
FILES = (WEIGHTS, README, EXTRA_FILE)


def is_model_folder(model: str | Path) -> bool:
    """Whether it is such a folder; a name of a shipped model is none."""
    path = Path(model)
    return catalogue.name_of(model) is None and all(
        is_regular_file(path / name) for name in (WEIGHTS, EXTRA_FILE)
    )


def has_whole_weights(model: str | Path) -> bool:
    """Whether it is the name of a shipped model, or such a folder."""
    return catalogue.name_of(model) is not None or is_model_folder(model)


def whole_weights(model: str | Path) -> WholeWeights:
    """The weights of a shipped model, or in such a folder, see ``has_whole_weights``.

    Raises:
        ModelError: they are damaged, or the folder's two descriptions differ.
        InputError: they cannot be read.
    """
    name = catalogue.name_of(model)
    if name is not None:
        return read_weights(name)
    folder = Path(model)
    weights = parse_weights(read_bytes(folder / WEIGHTS))
    if ModelInfo.from_json(read_text(folder / EXTRA_FILE)) != weights.info:
        raise ModelError(f"its {EXTRA_FILE} is not that of {WEIGHTS}: push the model once more")
    return weights


def write_model_folder(
    folder: Path,
    state: Mapping[str, torch.Tensor],
    info: ModelInfo,
    *,
    card: ModelCard | None = None,
    overwrite: bool = False,
) -> None:
    """Write weights into ``folder``, in float16 if that is what they are, else in float32.

    Args:
        folder: made if it is not there; its name is the model's.
        state: state dict of the whole network.
        info: its description, with a licence.
        card: what has been found out about it.
        overwrite: replace files that exist.

    Raises:
        InputError: there is no licence.
        ModelError: the weights are not what ``info`` tells.
        OutputError: a file exists and not ``overwrite``, or cannot be written.
    """
    if not info.licence:
        raise InputError("a model that is passed on needs a licence: --licence CC-BY-4.0")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        refuse_existing(folder / name, overwrite)
    text = readme(folder.resolve().name, info, card)
    save_weights(in_half(state) or state, info, folder / WEIGHTS)
    write_text(folder / README, text)
    write_text(folder / EXTRA_FILE, info.to_json() + "\n")


def check_model_folder(folder: Path) -> ModelInfo:
    """What the model in a folder says of itself, if its weights are what it says.

    Raises:
        ModelError, InputError: as by ``whole_weights``, or they are of another network.
    """
    weights = whole_weights(folder)
    weights.network()
    return weights.info


def copy_model_folder(source: Path, folder: Path, *, overwrite: bool = False) -> None:
    """Copy the files of such a folder to another.

    Raises:
        InputError, OutputError: a file cannot be read, or written, or exists.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    present = [name for name in FILES if is_regular_file(source / name)]
    for name in present:
        refuse_existing(folder / name, overwrite)
    for name in present:
        content = read_bytes(source / name)
        with atomic_file(folder / name) as temporary:
            temporary.write_bytes(content)
