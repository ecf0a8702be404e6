"""Which format a file has, by its name."""

from pathlib import Path

from genselfdiff.errors import InputError
from genselfdiff.models.formats.bioimageio_file import BIOIMAGEIO
from genselfdiff.models.formats.format import Format
from genselfdiff.models.formats.onnx_file import ONNX
from genselfdiff.models.formats.pt2_file import PT2
from genselfdiff.models.formats.torchscript_file import TORCHSCRIPT

_FORMATS = {each.name: each for each in (TORCHSCRIPT, ONNX, PT2, BIOIMAGEIO)}


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
