"""What of a Zarr the zarr package may read, and into how much memory it may make it.

By itself it waits for pipes, follows links to other folders, and decodes a chunk into whatever
comes of it: 2 GB from one file of 2 MB. Imported only where zarr is installed.
"""

import asyncio
import math
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs
import zarr
from numcodecs.abc import Codec
from zarr.abc.codec import BytesBytesCodec
from zarr.abc.store import RangeByteRequest, SuffixByteRequest
from zarr.codecs import (
    BloscCodec,
    BytesCodec,
    Crc32cCodec,
    GzipCodec,
    ShardingCodec,
    TransposeCodec,
    ZstdCodec,
)
from zarr.storage import LocalStore

MOST_METADATA = 2**24
_BLOSC_HEADER = 16


class FolderStore(LocalStore):
    """A folder of which regular files are read, and none that a link has elsewhere.

    Attributes:
        at_most: bytes that are read of a file at once; metadata have fewer than the first value.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root, read_only=True)
        self.at_most = MOST_METADATA
        self._inside = os.path.join(os.path.realpath(root), "")

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        """Read a file, or a part of it; None if there is none."""
        await asyncio.to_thread(self._check, key, byte_range)
        return await super().get(key, prototype, byte_range)

    async def get_partial_values(self, prototype: Any, key_ranges: Iterable[Any]) -> Any:
        """Read parts of files."""
        key_ranges = list(key_ranges)
        for key, byte_range in key_ranges:
            await asyncio.to_thread(self._check, key, byte_range)
        return await super().get_partial_values(prototype, key_ranges)

    def get_sync(self, key: str, *, prototype: Any = None, byte_range: Any = None) -> Any:
        """Read as ``get`` does."""
        self._check(key, byte_range)
        return super().get_sync(key, prototype=prototype, byte_range=byte_range)

    def _check(self, key: str, byte_range: Any) -> None:
        path = self.root / key
        try:
            told = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        if stat.S_ISDIR(told.st_mode):
            return
        if not stat.S_ISREG(told.st_mode):
            raise ValueError(f"{key} is a pipe or device, not a file")
        if not os.path.realpath(path).startswith(self._inside):
            raise ValueError(f"{key} is a link that leads out of the folder; copy the file there")
        wanted = told.st_size
        if isinstance(byte_range, RangeByteRequest):
            wanted = byte_range.end - byte_range.start
        elif isinstance(byte_range, SuffixByteRequest):
            wanted = min(wanted, byte_range.suffix)
        if wanted > self.at_most:
            raise ValueError(f"{key} has {wanted:,} bytes, more than can be of use")


def open_group(store: Any) -> Any:
    """Open the group in a store that is bounded, such as a `FolderStore`."""
    return zarr.open_group(store, mode="r", use_consolidated=False)


def bounded(array: Any, at_once: int) -> Any:
    """Return ``array`` with codecs that make no more of a chunk than its shape asks for.

    Args:
        array: of uint8, from a group of ``open_group``.
        at_once: bytes of its pixels that are read at once; files of twice as many are read too.

    Raises:
        ValueError: it is coded as no image is.
    """
    array.store.at_most = max(array.store.at_most, 2 * at_once)
    metadata = array.metadata
    if metadata.zarr_format == 2:
        if metadata.filters:
            raise ValueError(f"its filter {metadata.filters[0].codec_id} is not read")
        if metadata.compressor is not None:
            compressor = _BoundedCompressor(metadata.compressor.codec_id, math.prod(array.chunks))
            metadata = replace(metadata, compressor=compressor)
    else:
        metadata = replace(metadata, codecs=_bounded_codecs(metadata.codecs))
    return zarr.Array(zarr.AsyncArray(metadata=metadata, store_path=array.store_path))


def _blosc(data: bytes, out: int) -> Any:
    """Blosc trusts its header, in which the bytes of the whole come last."""
    stored = int.from_bytes(data[_BLOSC_HEADER - 4 : _BLOSC_HEADER], "little")
    if len(data) < _BLOSC_HEADER or stored > len(data):
        raise ValueError("it is shorter than its header says")
    return imagecodecs.blosc_decode(data, out=out)


# All write into memory of the size `out`, and fail where it is too small.
_DECODERS: dict[str, Callable[..., Any]] = {
    "blosc": _blosc,
    "gzip": imagecodecs.gzip_decode,
    "lz4": partial(imagecodecs.lz4_decode, header=True),
    "zlib": imagecodecs.zlib_decode,
    "zstd": imagecodecs.zstd_decode,
}

_COMPRESSORS = {BloscCodec: "blosc", GzipCodec: "gzip", ZstdCodec: "zstd"}


class _BoundedCompressor(Codec):  # type: ignore[misc]  # it has no types
    """The compressor of an array of version 2, for decoding."""

    codec_id = "bounded"

    def __init__(self, name: str, size: int) -> None:
        if name not in _DECODERS:
            raise ValueError(f"its compressor {name} is not read")
        self._decode = partial(_DECODERS[name], out=size)

    def decode(self, buf: Any, out: Any = None) -> Any:
        return self._decode(bytes(buf))

    def encode(self, buf: Any) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class _BoundedCodec(BytesBytesCodec):
    """A compressor of version 3, for decoding."""

    name: str
    is_fixed_size = False

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        size = math.prod(chunk_spec.shape)  # of uint8, the only type that is read
        decode = partial(_DECODERS[self.name], chunk_bytes.to_bytes(), out=size)
        return chunk_spec.prototype.buffer.from_bytes(await asyncio.to_thread(decode))

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
        raise NotImplementedError


def _bounded_codecs(codecs: Iterable[Any]) -> list[Any]:
    result: list[Any] = []
    for codec in codecs:
        if isinstance(codec, ShardingCodec):
            _refuse_others(codec.index_codecs, (BytesCodec, Crc32cCodec))
            result.append(
                ShardingCodec(
                    chunk_shape=codec.chunk_shape,
                    codecs=_bounded_codecs(codec.codecs),
                    index_codecs=codec.index_codecs,
                    index_location=codec.index_location,
                )
            )
        elif type(codec) in _COMPRESSORS:
            result.append(_BoundedCodec(_COMPRESSORS[type(codec)]))
        else:
            _refuse_others([codec], (BytesCodec, Crc32cCodec, TransposeCodec))
            result.append(codec)
    if sum(isinstance(codec, _BoundedCodec) for codec in result) > 1:
        raise ValueError("it is compressed twice, which is not read")
    return result


def _refuse_others(codecs: Iterable[Any], known: tuple[type, ...]) -> None:
    for codec in codecs:
        if not isinstance(codec, known):
            raise ValueError(f"its codec {type(codec).__name__} is not read")
