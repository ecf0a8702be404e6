"""A model file taken apart and looked at before torch loads it: it is data, not a program.

``torch.jit.load`` does what a file says: calls operators that write files and methods that restore
a state, and believes sizes. A model may come from anybody, so nothing of it reaches torch but

- members that torch writes, few enough and small enough, each once (this file),
- code that names operators that compute, and no others (``code``, ``operators``),
- values that are modules, numbers, texts, and tensors within what is stored (``values``).

They are put into a new archive, in a file without a name, and torch loads that one. So what was
looked at is what is loaded, whatever two readers make of a ZIP file, and whoever changes it
meanwhile. What is left are faults of torch's compiler and operators themselves, and time and
memory: a model computes for as long and asks for as much as it likes.
"""

import hashlib
import os
import re
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple, cast

from genselfdiff.errors import ModelError, one_line
from genselfdiff.models.archive.code import check_code
from genselfdiff.models.archive.values import check_values
from genselfdiff.models.model_info import EXTRA_FILE

MOST_MEMBERS = 20_000
LARGEST_TEXT = 2 * 2**20
"""Bytes of all that is no tensor: code, values, metadata. The published network has 0.1 MiB, larger
ones from elsewhere 0.3; the syntax tree of code takes 300 times its size."""

METADATA = f"extra/{EXTRA_FILE}"
"""Where torch puts the description, in both of its archives."""
_PICKLES = ("data", "constants")
"""``NAME.pkl`` holds values, ``NAME/0`` and so on what their tensors have in them."""
_TENSOR = re.compile(r"(data|constants)/[0-9]+")
_CODE = re.compile(r"code/(__torch__(?:/\w+)*\.py)", re.ASCII)
_READ = re.compile(
    rf"{_TENSOR.pattern}|{_CODE.pattern}|extra/{re.escape(EXTRA_FILE)}"
    r"|(data|constants)\.pkl|version|byteorder|\.data/version",
    re.ASCII,
)
_UNREAD = re.compile(
    r"(.*/)?|extra/.*|code/.*\.debug_pkl|traced_inputs(\.pkl|/.*)"
    r"|\.data/serialization_id|\.(format_version|storage_alignment)"
)
"""What torch writes as well, and a model does without: debug files tell its maker's folders."""
_ALIGNMENT = 64
"""Of tensors in an archive, as torch has it."""


class ModelArchive(NamedTuple):
    """``metadata`` is what ``gsd.json`` says, if it is there, ``content`` an open file.

    ``digest`` tells models apart: it depends on what is in the content, not on how it is packed.
    """

    metadata: bytes
    content: BinaryIO
    digest: str


def read_archive(file: BinaryIO, *, described: bool = True) -> ModelArchive:
    """Look at all of a model file, or of a TorchScript file that need not be ``described``.

    Raises:
        ModelError: it is damaged, no model file of ours, or does more than compute.
    """
    with opened_archive(file) as archive:
        members = _members(archive, described)
        texts = {n: read_member(archive, i) for n, i in members.items() if not _TENSOR.fullmatch(n)}
        stored = {n: i.file_size for n, i in members.items() if _TENSOR.fullmatch(n)}
        _check(texts, stored)
        return packed(archive, members, texts)


@contextmanager
def opened_archive(file: BinaryIO) -> Iterator[zipfile.ZipFile]:
    """A ZIP file to look at.

    Raises:
        ModelError: it is none, damaged, or cannot be read; of what the block reads, too.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            yield archive
    except ModelError:
        raise
    except zipfile.BadZipFile as error:
        raise ModelError(
            f"not a model file, or damaged ({one_line(error)}): gsd export writes model files"
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError, zlib.error, struct.error) as error:
        raise ModelError(f"cannot be read: {one_line(error)}") from error


def _members(archive: zipfile.ZipFile, described: bool) -> dict[str, zipfile.ZipInfo]:
    """The members that are read, by their names in the folder that all lie in."""
    names = {info.filename.partition("/")[2] for info in archive.infolist()}
    if described and METADATA not in names:
        kind = "an archive"
        if any(map(_CODE.fullmatch, names)):
            kind = "a TorchScript file"
        elif "data.pkl" in names:
            kind = "a checkpoint"
        raise ModelError(f"{kind} without {EXTRA_FILE}: gsd export writes model files")
    return admitted_members(archive, _READ, _UNREAD, _TENSOR)


def admitted_members(
    archive: zipfile.ZipFile,
    read: re.Pattern[str],
    unread: re.Pattern[str],
    tensors: re.Pattern[str],
) -> dict[str, zipfile.ZipInfo]:
    """The members whose names ``read`` matches, without the folder that all lie in.

    Args:
        archive: of torch's.
        read: names of what is read.
        unread: of what may be there too, and is left out.
        tensors: of what of ``read`` is not text.

    Raises:
        ModelError: there are others, too many, one twice, or their sizes cannot be.
    """
    infos = archive.infolist()
    if len(infos) > MOST_MEMBERS:
        raise ModelError(f"an archive of {len(infos):,} files: no model has so many")
    named = [(info.filename.partition("/")[2], info) for info in infos]
    members = {name: info for name, info in named if read.fullmatch(name)}
    for name, info in named:
        if members.get(name, info) is not info:
            raise ModelError(f"holds {name} twice")
        if not read.fullmatch(name) and not unread.fullmatch(name):
            raise ModelError(f"holds {name}, which no model of ours has")
    _check_sizes(members, archive.start_dir, tensors)
    return members


def _check_sizes(
    members: dict[str, zipfile.ZipInfo], available: int, tensor: re.Pattern[str]
) -> None:
    """Raise if more would be unpacked than ``available`` bytes of tensors and some text."""
    text = tensors = 0
    for name, info in members.items():
        if tensor.fullmatch(name):
            tensors += info.file_size
            is_plain = info.compress_type == zipfile.ZIP_STORED
        else:
            text += info.file_size
            is_plain = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        if not is_plain:
            raise ModelError(f"holds {name} compressed: export it again")
    if text > LARGEST_TEXT:
        raise ModelError(f"its code and values have {text:,} bytes: no model has so many")
    if tensors > available:
        raise ModelError("damaged model file: its tensors are larger than the file")


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """What is in a member, as much as it says; raises ModelError where it is less."""
    with archive.open(info) as member:
        data = member.read(info.file_size)  # without a number, as much as is packed there
    if len(data) != info.file_size:
        raise ModelError(f"damaged model file ({info.filename}): copy or export it again")
    return data


def _check(texts: dict[str, bytes], stored: dict[str, int]) -> None:
    files = {found[1]: texts[name].decode() for name in texts if (found := _CODE.fullmatch(name))}
    classes = check_code(files)
    for folder in _PICKLES:
        sizes = {
            name.removeprefix(f"{folder}/"): size
            for name, size in stored.items()
            if name.startswith(f"{folder}/")
        }
        if f"{folder}.pkl" not in texts:
            raise ModelError(f"damaged model file: {folder}.pkl is missing")
        check_values(texts[f"{folder}.pkl"], classes, sizes)


def packed(
    archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], texts: dict[str, bytes]
) -> ModelArchive:
    """The members in an archive of their own, as torch writes one."""
    content, digest = _nameless_file(), hashlib.sha256()
    with zipfile.ZipFile(content, "w") as packed:
        for name, info in sorted(members.items()):
            data = texts[name] if name in texts else read_member(archive, info)
            digest.update(f"{name} {len(data)}\n".encode())
            digest.update(data)
            target = zipfile.ZipInfo(f"model/{name}")
            header = content.tell() + 30 + len(target.filename) + 4
            padding = -header % _ALIGNMENT
            target.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
            packed.writestr(target, data)
    content.seek(0)
    return ModelArchive(texts.get(METADATA, b""), content, digest.hexdigest()[:16])


def _nameless_file() -> BinaryIO:
    """A file for this process alone, in memory where the system has that.

    An ``io.BytesIO`` would be copied twice before torch reads it.
    """
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("gsd-model"), "w+b")
    return cast(BinaryIO, tempfile.TemporaryFile())
