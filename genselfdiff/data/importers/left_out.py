"""What importers leave out: told where it is met, and added up at the end.

One odd entry never ends an import, and never is left out without a word.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from genselfdiff.data.naming import name_some
from genselfdiff.errors import InputError

logger = logging.getLogger("genselfdiff")

Item = TypeVar("Item")

Reasons = Mapping[str, int | Sequence[str]]
"""To each reason how many entries there are, or their names."""

FEW_VERTICES = "of fewer than 3 vertices"
NO_CLASS = "without a class"


def told(reasons: Reasons) -> str:
    """Count the entries by reason, and name some: empty if there is none."""
    return ", ".join(
        f"{entries} {reason}"
        if isinstance(entries, int)
        else f"{len(entries)} {reason} ({name_some(entries)})"
        for reason, entries in reasons.items()
        if entries
    )


class LeftOut:
    """What one import has left out until now."""

    def __init__(self) -> None:
        self._totals: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def tell(self, source: Path, kind: str, reasons: Reasons) -> None:
        """Log what of ``source`` is left out, if anything; ``kind`` says what, in the plural."""
        for reason, entries in reasons.items():
            count = entries if isinstance(entries, int) else len(entries)
            if count:
                self._totals[kind][reason] += count
        if any(reasons.values()):
            logger.warning("%s: %s left out: %s", source, kind, told(reasons))

    def each(self, readers: Sequence[Callable[[], Item]]) -> Iterator[Item]:
        """Give what each of ``readers`` reads; a file that cannot be used is left out.

        Raises:
            InputError: none reads anything; what the first says.
        """
        first: InputError | None = None
        is_empty = True
        for read in readers:
            try:
                item = read()
            except InputError as error:
                self._totals["images"]["that cannot be used with their labels"] += 1
                if is_empty and first is None:
                    first = error  # raised, not told as well, if nothing better comes
                else:
                    logger.warning("left out: %s", error)
                continue
            if is_empty and first is not None:
                logger.warning("left out: %s", first)
            is_empty = False
            yield item
        if is_empty and first is not None:
            raise first

    def summary(self) -> str:
        """One line with the totals by reason; empty if nothing is left out."""
        kinds = [
            f"{kind}: " + ", ".join(f"{count} {reason}" for reason, count in reasons.items())
            for kind, reasons in self._totals.items()
        ]
        return f"left out: {'; '.join(kinds)}" if kinds else ""
