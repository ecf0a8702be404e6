"""What is put in the place of a file to do harm, a pure function of a seed and a number."""

import os
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np

Attack = Callable[[Path, np.random.Generator], str]

_BOMB = 2**28


def attack(path: Path, rng: np.random.Generator) -> str:
    """Replace a slide's file, or one in its folder; returns in words what was done."""
    return _ATTACKS[int(rng.integers(len(_ATTACKS)))](path, rng)


def _pipe(path: Path, rng: np.random.Generator) -> str:
    path.unlink()
    os.mkfifo(path)
    return "a pipe"


def _link(path: Path, rng: np.random.Generator) -> str:
    target = str(rng.choice(["/dev/zero", "/proc/self/mem", path.name, "..", "/nowhere"]))
    path.unlink()
    path.symlink_to(target)
    return f"a link to {target}"


def _moved(path: Path, rng: np.random.Generator) -> str:
    """The same bytes, by way of a link out of the slide's folder."""
    elsewhere = path.parent.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    return "a link to its content elsewhere"


def _folder(path: Path, rng: np.random.Generator) -> str:
    path.unlink()
    path.mkdir()
    return "a folder"


def _sparse(path: Path, rng: np.random.Generator) -> str:
    """Blanks without end that take no disk; what is in front of them stays."""
    size = path.stat().st_size + int(2 ** rng.uniform(10, 38))
    os.truncate(path, size)
    return f"{size} bytes long"


def _bomb(path: Path, rng: np.random.Generator) -> str:
    kind = str(rng.choice(["zlib", "gzip", "zstd"]))
    if kind == "zstd":
        path.write_bytes(imagecodecs.zstd_encode(bytes(_BOMB)))
    else:
        deflate = zlib.compressobj(1, wbits=31 if kind == "gzip" else 15)
        blanks = bytes(2**20)
        parts = [deflate.compress(blanks) for _ in range(_BOMB // len(blanks))]
        path.write_bytes(b"".join((*parts, deflate.flush())))
    return f"{_BOMB} bytes in {kind}"


_ATTACKS: list[Attack] = [_pipe, _link, _moved, _folder, _sparse, _bomb]
