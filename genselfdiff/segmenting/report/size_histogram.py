"""How large objects are: their diameters as a drawing."""

import math
from collections import Counter
from typing import TYPE_CHECKING

from genselfdiff.text import counted

if TYPE_CHECKING:
    from markupsafe import Markup

_MOST_BARS = 30
_SHOWN = 0.995
"""Of the objects; the few that are larger share the last bar, or it alone would fill the axis."""

_WIDTH, _HEIGHT = 480, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 10, 12, 48


def diameter(area: float, mpp: float | None) -> float:
    """Diameter of the circle of ``area`` pixels, in um, or in pixels without ``mpp``."""
    return math.sqrt(4 * area / math.pi) * (1.0 if mpp is None else mpp)


def middle(sizes: Counter[int]) -> int:
    """The median of at least one area: the lower of the two in the middle."""
    return _quantile(sizes, 0.5)


def bars_of(sizes: Counter[int], mpp: float | None) -> tuple[float, list[int]]:
    """Width of the bars, and how many objects have a diameter in each, the first from 0 on.

    What is beyond the last bar is counted in it.
    """
    largest = diameter(_quantile(sizes, _SHOWN), mpp)
    step = _round_step(largest / _MOST_BARS)
    counts = [0] * (math.floor(largest / step) + 1)
    for area, number in sizes.items():
        counts[min(math.floor(diameter(area, mpp) / step), len(counts) - 1)] += number
    return step, counts


def histogram_svg(sizes: Counter[int], mpp: float | None, colour: str, unit: str) -> "Markup":
    """Draw the distribution of diameters of at least one object.

    Args:
        sizes: how many objects there are of each area in pixels.
        mpp: micrometres per pixel; None: diameters in pixels.
        colour: of the bars, as CSS has it.
        unit: of the diameters.
    """
    from markupsafe import Markup

    step, counts = bars_of(sizes, mpp)
    across = (_WIDTH - _LEFT - _RIGHT) / len(counts)
    down = _HEIGHT - _TOP - _BOTTOM
    floor = _TOP + down
    highest = max(counts)
    unit_y = _round_step(highest / 4) if highest > 4 else 1
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"'
        f' aria-label="Histogram of {counted(sizes.total(), "diameter")}">'
    ]
    for i in range(math.floor(highest / unit_y) + 1):
        y = floor - down * i * unit_y / highest
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="#dde2e9"/>')
        parts.append(
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{i * unit_y:,.0f}</text>'
        )
    for i, count in enumerate(counts):
        height = down * count / highest
        last = i + 1 == len(counts)
        to = "and more" if last else f"to {(i + 1) * step:g} {unit}"
        parts.append(
            f'<rect x="{_LEFT + i * across + 1:.1f}" y="{floor - height:.1f}"'
            f' width="{across - 2:.1f}" height="{height:.1f}" fill="{colour}"'
            f' stroke="#0005" stroke-width="0.5">'
            f"<title>{i * step:g} {to}: {count:,}</title></rect>"
        )
    labelled = math.ceil(len(counts) / 7)
    for i in range(0, len(counts), labelled):
        parts.append(
            f'<text x="{_LEFT + i * across:.1f}" y="{floor + 16}"'
            f' text-anchor="middle">{i * step:g}</text>'
        )
    parts.append(
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">'
        f"equivalent diameter, {unit} (the last bar: and more)</text></svg>"
    )
    return Markup("".join(parts))


def _quantile(sizes: Counter[int], share: float) -> int:
    """The smallest area that is not exceeded by ``share`` of the objects."""
    wanted = share * sizes.total()
    area = passed = 0
    for area in sorted(sizes):
        passed += sizes[area]
        if passed >= wanted:
            break
    return area


def _round_step(least: float) -> float:
    """The next of 1, 2, 5, 10, ... and their tenths that is not below ``least``."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * n for n in (1, 2, 5, 10) if power * n >= least * (1 - 1e-9))
