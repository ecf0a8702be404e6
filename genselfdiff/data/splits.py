"""Splitting labelled pairs into training and validation images: by image, never by patch."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from genselfdiff.data.pairs import Pair
from genselfdiff.errors import InputError


def split_pairs(
    pairs: Sequence[Pair],
    val: str | Sequence[str] | None = None,
    fraction: float = 0.2,
    seed: int = 0,
) -> tuple[list[Pair], list[Pair]]:
    """Split into (training, validation), each in the order of ``pairs``.

    ``val`` names the validation images: a comma-separated list, or a text file with one name a
    line (empty lines and lines from ``#`` on do not count). A name is the stem or file name of an
    image, a group (the beginning of stems, up to a character that is no letter or digit: a
    patient, say), or a pattern with ``*``, ``?`` or ``[]`` that the stem matches. A sequence holds
    whole stems (an earlier split). With None, ``fraction`` of the images, at least one, are drawn
    with ``seed``.

    Raises:
        InputError: a name matches no image, no image is left on one side, or ``val`` is a file
            that cannot be read.
    """
    if len(pairs) < 2:
        raise InputError(
            f"{pairs[0].image if pairs else 'no pair'}: one labelled image cannot be split into "
            "training and validation: give at least two"
        )
    if val is None:
        held_out = min(max(1, round(fraction * len(pairs))), len(pairs) - 1)
        chosen = set(np.random.default_rng(seed).permutation(len(pairs))[:held_out].tolist())
    else:
        chosen = set()
        matches = _matches if isinstance(val, str) else _is
        for name in _names(val) if isinstance(val, str) else val:
            matching = {index for index, pair in enumerate(pairs) if matches(pair, name)}
            if not matching:
                raise InputError(
                    f"--val {name}: matches none of the {len(pairs)} images ({pairs[0].stem}, ...)"
                )
            chosen |= matching
        if not chosen:
            raise InputError(f"--val {val}: names no image: give names, groups or a pattern")
        if len(chosen) == len(pairs):
            raise InputError(f"--val {val}: matches every image: leave some for training")
    return (
        [pair for index, pair in enumerate(pairs) if index not in chosen],
        [pair for index, pair in enumerate(pairs) if index in chosen],
    )


def _names(val: str) -> list[str]:
    try:
        is_file = Path(val).is_file()
    except OSError:  # a list longer than any file name
        is_file = False
    try:
        if is_file:
            lines = Path(val).read_text("utf-8").splitlines()
            names = [line.partition("#")[0] for line in lines]
        else:
            names = val.split(",")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--val {val}: no text file of names, one a line ({error})") from error
    return [name.strip() for name in names if name.strip()]


def _is(pair: Pair, stem: str) -> bool:
    return pair.stem == stem


def _matches(pair: Pair, name: str) -> bool:
    if name in (pair.stem, pair.image.name):
        return True
    rest = pair.stem.removeprefix(name)
    if rest != pair.stem and not rest[0].isalnum():
        return True
    return fnmatchcase(pair.stem, name)
