"""How the time of a GPU day is shared out between its steps."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gpu.commands import Command, Day


@dataclass(frozen=True)
class Step:
    """A part of the day.

    Attributes:
        name: on the command line and in the records.
        title: in the table.
        wanted: seconds that it takes at most.
        least: seconds below which it is not worth beginning.
        worth: steps with the lowest are left out first.
        commands: what it runs one after the other, in so many seconds.
    """

    name: str
    title: str
    wanted: float
    least: float
    worth: int
    commands: Callable[[Day, float], Iterable[Command]]


def shares(steps: Sequence[Step], seconds: float) -> dict[str, float]:
    """Seconds of each step that there is time for.

    Steps of least worth are left out until the others have the least that they need. What is left
    beyond that is shared out in proportion to what they want beyond it.
    """
    kept = list(steps)
    while kept and sum(step.least for step in kept) > seconds:
        kept.remove(min(kept, key=lambda step: step.worth))
    spare = seconds - sum(step.least for step in kept)
    wishes = sum(step.wanted - step.least for step in kept)
    granted = min(1.0, spare / wishes) if wishes else 0.0
    return {step.name: step.least + granted * (step.wanted - step.least) for step in kept}
