"""Splitting labelled pairs into training and validation images: by image, never by patch."""

import re
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from genselfdiff.data.labelled.pairs import Pair
from genselfdiff.data.naming import name_some, names_in, one_form
from genselfdiff.errors import InputError
from genselfdiff.input_files import is_regular_file, read_csv_rows, read_text
from genselfdiff.text import counted

Fold = tuple[int, int]
"""The k-th, from 1, of n parts."""


def split_pairs(
    pairs: Sequence[Pair],
    val: str | Sequence[str] | None = None,
    fraction: float = 0.2,
    seed: int = 0,
    *,
    group: str | None = None,
    fold: Fold | None = None,
) -> tuple[list[Pair], list[Pair]]:
    """Split into (training, validation), each in the order of ``pairs``.

    ``val`` names the validation images: a comma-separated list, or a text file with one name a
    line (empty lines and lines from ``#`` on do not count). A name is the stem or file name of an
    image, a group (the beginning of stems, up to a character that is no letter or digit: a
    patient, say), or a pattern with ``*``, ``?`` or ``[]`` that the stem matches. A sequence holds
    whole stems (an earlier split). With None, images are drawn with ``seed``: ``fraction`` of
    them, at least one, or with ``fold`` the k-th of n parts of about equal size.

    Images of a ``group``, see ``groups_of``, are drawn together.

    Raises:
        InputError: a name matches no image, no image is left on one side, a group is on both, there
            are fewer groups than parts, or a file cannot be read.
    """
    if len(pairs) < 2:
        raise InputError(
            f"{pairs[0].image if pairs else 'no pair'}: one labelled image cannot be split into "
            "training and validation: give at least two"
        )
    groups = groups_of(pairs, group)
    if val is None:
        held_out = _drawn(groups, fraction, seed) if fold is None else _part(groups, fold, seed)
        chosen = {index for index, name in enumerate(groups) if name in held_out}
    elif fold is not None and isinstance(val, str):
        raise InputError("--val and --fold both say what validates: give one of them")
    else:
        chosen = _named(pairs, val)
    split = {groups[index] for index in chosen} & {
        name for index, name in enumerate(groups) if index not in chosen
    }
    if split:
        raise InputError(
            f"--val {val}: takes some images of {name_some(sorted(split))} and leaves others for"
            " training: name whole groups"
        )
    return (
        [pair for index, pair in enumerate(pairs) if index not in chosen],
        [pair for index, pair in enumerate(pairs) if index in chosen],
    )


def budgeted(pairs: Sequence[Pair], count: int | None, seed: int) -> list[Pair]:
    """``count`` of ``pairs``, drawn with ``seed``; a smaller draw is part of a larger one.

    None takes all.

    Raises:
        InputError: there are fewer.
    """
    if count is None:
        return list(pairs)
    if count > len(pairs):
        raise InputError(
            f"--train-images {count}: only {counted(len(pairs), 'image')} left for training: give"
            " fewer"
        )
    order = np.random.default_rng(seed).permutation(len(pairs))
    return [pairs[index] for index in sorted(order[:count])]


def groups_of(pairs: Sequence[Pair], group: str | None) -> list[str]:
    """The patient, slide or organ of each image: what must not be on both sides of a split.

    Args:
        pairs: the images.
        group: a ``.csv`` with the columns name and group, where a name is the stem or file name of
            an image; or a regular expression that every stem begins with, whose first parenthesis,
            or else all of what it matches, is the group. None: each image is its own.

    Raises:
        InputError: the file cannot be read or lacks an image; or the expression is none, or does
            not match a stem.
    """
    if group is None:
        return [pair.stem for pair in pairs]
    if group.lower().endswith(".csv"):
        told = _read_groups(Path(group))
        found = [told.get(pair.stem, told.get(one_form(pair.image.name))) for pair in pairs]
        without = f"--group {group}: has no row for"
    else:
        try:
            matches = [re.match(one_form(group), pair.stem) for pair in pairs]
        except re.error as error:
            raise InputError(f"--group {group}: is no regular expression: {error}") from error
        found = [match and (match[1] if match.re.groups else match[0]) for match in matches]
        without = f"--group {group}: does not match"
    lacking = [pair.stem for pair, name in zip(pairs, found, strict=True) if not name]
    if lacking:
        raise InputError(f"{without} {name_some(lacking)}")
    return [str(name) for name in found]


def _read_groups(path: Path) -> dict[str, str]:
    columns, rows = read_csv_rows(path)
    if not {"name", "group"} <= set(columns):
        raise InputError(f"--group {path}: needs the columns name and group")
    groups: dict[str, str] = {}
    for row in rows:
        name, group = one_form(row["name"].strip()), row["group"].strip()
        if groups.setdefault(name, group) != group:
            raise InputError(f"--group {path}: {name} is of {groups[name]} and of {group}")
    return groups


def _drawn(groups: Sequence[str], fraction: float, seed: int) -> set[str]:
    """Groups, drawn until they have ``fraction`` of the images; at least one stays."""
    sizes = Counter(groups)
    if len(sizes) < 2:
        raise InputError(
            f"{counted(len(groups), 'image')}, of one group, {groups[0]}: none is left to validate"
        )
    wanted, chosen, count = round(fraction * len(groups)), set[str](), 0
    for name in _shuffled(groups, seed)[:-1]:
        if chosen and count >= wanted:
            break
        chosen.add(name)
        count += sizes[name]
    return chosen


def _part(groups: Sequence[str], fold: Fold, seed: int) -> set[str]:
    """The groups of one of n parts; the larger groups are dealt first, each to the smallest."""
    number, count = fold
    sizes = Counter(groups)
    if not 1 <= number <= count or not 2 <= count <= len(sizes):
        raise InputError(
            f"--fold {number}/{count}: give K/N with K from 1 to N, and N from 2 to the"
            f" {len(sizes)} groups or images there are"
        )
    parts: list[set[str]] = [set() for _ in range(count)]
    filled = [0] * count
    for name in sorted(_shuffled(groups, seed), key=lambda name: -sizes[name]):
        smallest = filled.index(min(filled))
        parts[smallest].add(name)
        filled[smallest] += sizes[name]
    return parts[number - 1]


def _shuffled(groups: Sequence[str], seed: int) -> list[str]:
    names = list(dict.fromkeys(groups))
    return [names[index] for index in np.random.default_rng(seed).permutation(len(names))]


def _named(pairs: Sequence[Pair], val: str | Sequence[str]) -> set[int]:
    """The images that ``val`` names, see ``split_pairs``."""
    chosen: set[int] = set()
    matches = _matches if isinstance(val, str) else _is
    for name in _names(val) if isinstance(val, str) else val:
        matching = {index for index, pair in enumerate(pairs) if matches(pair, name)}
        if not matching:
            raise InputError(
                f"--val {name}: matches none of {counted(len(pairs), 'image')}"
                f" ({pairs[0].stem}, ...)"
            )
        chosen |= matching
    if not chosen:
        raise InputError(f"--val {val}: names no image: give names, groups or a pattern")
    if len(chosen) == len(pairs):
        raise InputError(f"--val {val}: matches every image: leave some for training")
    return chosen


def _names(val: str) -> list[str]:
    if is_regular_file(val):
        names = [line.partition("#")[0] for line in read_text(val).splitlines()]
    else:
        names = list(names_in(val))
    return [one_form(name.strip()) for name in names if name.strip()]


def _is(pair: Pair, stem: str) -> bool:
    return pair.stem == stem


def _matches(pair: Pair, name: str) -> bool:
    if name in (pair.stem, one_form(pair.image.name)):
        return True
    rest = pair.stem.removeprefix(name)
    if rest != pair.stem and not rest[0].isalnum():
        return True
    return fnmatchcase(pair.stem, name)
