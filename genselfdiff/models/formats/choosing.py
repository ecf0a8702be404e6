"""Which format a file has, by its name."""

from pathlib import Path

from genselfdiff.errors import InputError
from genselfdiff.models.formats.bioimageio_file import BIOIMAGEIO
from genselfdiff.models.formats.format import Format
from genselfdiff.models.formats.onnx_file import ONNX
from genselfdiff.models.formats.pt2_file import PT2
from genselfdiff.models.formats.torchscript_file import TORCHSCRIPT

_FORMATS = {each.name: each for each in (TORCHSCRIPT, ONNX, PT2, BIOIMAGEIO)}

SUFFIXES = tuple(each.suffix for each in _FORMATS.values())
"""Lower-case endings that model files have."""


def format_of(path: str | Path, name: str | None = None) -> Format:
    """The format called ``name``; None: by the suffix of a file, TorchScript where it is no other.

    Raises:
        InputError: there is none of that name.
    """
    if name is None:
        suffix = Path(path).suffix.lower()
        return next((each for each in _FORMATS.values() if each.suffix == suffix), TORCHSCRIPT)
    if name not in _FORMATS:
        raise InputError(f"model format {name!r} must be one of {', '.join(_FORMATS)}")
    return _FORMATS[name]


def require_suffix(path: Path, name: str | None) -> None:
    """Raise InputError where a file to be written has an ending that says nothing of its format.

    A name without one stays, as does any where ``name`` says the format.
    """
    if name is None and path.suffix and path.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"{path}: no ending of model files: they are called {', '.join(SUFFIXES)}; or say the"
            " format with --format"
        )
