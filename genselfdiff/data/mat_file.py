"""Arrays of whole numbers in files of MATLAB, versions 4 to 7."""

import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from genselfdiff.data.labelled.masks import MAX_MASK_BYTES, MAX_MASK_PIXELS
from genselfdiff.errors import InputError, one_line
from genselfdiff.input_files import open_input

_BITS = (8, 16, 32, 64)
_NUMBERS = {"double", "single", "logical", *(f"{sign}int{n}" for sign in ("", "u") for n in _BITS)}
_HEADER = 128
_COMPRESSED = 15
_AT_ONCE = 2**20
_LARGEST = 2**31
"""No number of an object is larger; whole numbers up to there are exact in every type."""


def read_mat(path: Path, names: Collection[str]) -> dict[str, NDArray[np.int64]]:
    """Read those arrays that a file has of ``names``; all else in it is not looked at.

    Raises:
        InputError: it is no such file, or an array holds other than whole numbers from 0 on, or is
            larger than any mask.
    """
    # Imported here: only files of MATLAB need it.
    from scipy import io

    with open_input(path) as stream:
        try:
            _check_size(stream, path)
            stream.seek(0)
            there = [entry for entry in io.whosmat(stream) if entry[0] in names]
            for name, shape, kind in there:
                if kind not in _NUMBERS or len(shape) != 2 or np.prod(shape) > MAX_MASK_PIXELS:
                    size = " x ".join(map(str, shape))
                    raise InputError(f"{path}: {name} is {size} of {kind}: a mask is expected")
            stream.seek(0)
            stored = io.loadmat(stream, variable_names=[name for name, _, _ in there])
        except InputError:
            raise
        except NotImplementedError as error:
            raise InputError(f"{path}: is of MATLAB 7.3: save it with -v7") from error
        except Exception as error:  # a damaged file makes its reader stumble over anything
            raise InputError(f"{path}: is no file of MATLAB: {one_line(error)}") from error
    return {name: _whole(stored[name], f"{path}: {name}") for name, _, _ in there}


def _whole(array: NDArray[Any], where: str) -> NDArray[np.int64]:
    if array.dtype.kind not in "buif":
        raise InputError(f"{where}: is {array.dtype}: whole numbers are expected")
    if array.size and not ((array >= 0) & (array < _LARGEST) & (array == np.rint(array))).all():
        raise InputError(f"{where}: holds other than whole numbers from 0 on")
    return array.astype(np.int64)


def _check_size(stream: BinaryIO, path: Path) -> None:
    """Raise where more is packed into a file than its arrays can be: SciPy unpacks all of it."""
    head = stream.read(_HEADER)
    if len(head) < _HEADER or head[126:128] not in (b"IM", b"MI"):
        return  # of version 4, which packs nothing
    order: Literal["little", "big"] = "little" if head[126:128] == b"IM" else "big"
    size = 0
    while len(tag := stream.read(8)) == 8:
        kind, length = (int.from_bytes(tag[at : at + 4], order) for at in (0, 4))
        end = stream.tell() + length
        if kind == _COMPRESSED:
            unpacker = zlib.decompressobj()
            left = length
            while left and size <= MAX_MASK_BYTES:
                data = stream.read(min(_AT_ONCE, left))
                if not data:
                    break
                left -= len(data)
                while data and size <= MAX_MASK_BYTES:
                    size += len(unpacker.decompress(data, _AT_ONCE))
                    data = unpacker.unconsumed_tail
        if size > MAX_MASK_BYTES:
            raise InputError(f"{path}: unpacks to more than {MAX_MASK_BYTES:,} bytes: no mask does")
        stream.seek(end)
