"""Choosing fields: unsure ones that differ from each other, only different ones, or any."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from genselfdiff.suggesting.field import Field

_UNSURE = 0.5
"""Share of the fields, the most uncertain, among which different ones are chosen."""

_AT_LEAST = 2
"""Times the number wanted that these are, if there are so many."""


def choose(
    fields: Sequence[Field], count: int, by: str, per_slide: int | None, seed: int
) -> list[Field]:
    """Choose fields, the first first.

    Args:
        fields: all there are.
        count: how many are wanted.
        by: one of ``choices.FIELD_RANKINGS``. "model": of the more uncertain half, of all or where
            ``per_slide`` is given of each slide, the most uncertain one, and then always that which
            differs most from those chosen (greedy k-centre, Gonzalez 1985; for labels, Sener and
            Savarese 2018). "variety": the same of all, beginning with the one in their middle.
            "random": drawn with ``seed``.
        per_slide: at most so many of one slide; None: any number.
        seed: of the draw.

    Returns:
        ``count`` fields, or fewer where there are not so many.
    """
    if by == "random":
        order = np.random.default_rng(seed).permutation(len(fields)).tolist()
        return _taken(
            fields, count, per_slide, lambda left, chosen: next(i for i in order if i in left)
        )
    if by == "model":
        fields = _uncertain(fields, count, per_slide)
    looks = np.stack([field.looks for field in fields])
    middle = np.linalg.norm(looks - looks.mean(0), axis=1)

    def furthest(left: Sequence[int], chosen: Sequence[int]) -> int:
        if not chosen:
            return left[0] if by == "model" else min(left, key=lambda i: middle[i])
        nearest = np.linalg.norm(looks[left][:, None] - looks[chosen][None], axis=2).min(1)
        return left[int(nearest.argmax())]

    return _taken(fields, count, per_slide, furthest)


def _uncertain(fields: Sequence[Field], count: int, per_slide: int | None) -> list[Field]:
    """The more uncertain fields, the most uncertain first."""
    groups = defaultdict[object, list[Field]](list)
    for field in sorted(fields, key=lambda field: -field.uncertainty):
        groups[field.slide if per_slide else None].append(field)
    wanted = min(count, per_slide or count)
    kept = [f for group in groups.values() for f in group[: _most(len(group), wanted)]]
    return sorted(kept, key=lambda field: -field.uncertainty)


def _most(there: int, wanted: int) -> int:
    return max(round(_UNSURE * there), _AT_LEAST * wanted)


def _taken(
    fields: Sequence[Field],
    count: int,
    per_slide: int | None,
    best: Callable[[list[int], list[int]], int],
) -> list[Field]:
    """Take what is ``best`` of those left, given those chosen, until there are enough."""
    left, chosen = list(range(len(fields))), list[int]()
    taken: Counter[object] = Counter()
    while left and len(chosen) < count:
        index = best(left, chosen)
        chosen.append(index)
        slide = fields[index].slide
        taken[slide] += 1
        full = taken[slide] == per_slide
        left = [i for i in left if i != index and not (full and fields[i].slide == slide)]
    return [fields[index] for index in chosen]
