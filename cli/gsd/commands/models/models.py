"""``gsd models``: the models that come with gsd, and their cards."""

import textwrap
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from genselfdiff.errors import InputError
from genselfdiff.models.shipped import catalogue
from genselfdiff.models.shipped.card import Evaluation, ModelCard, Score, Scores
from genselfdiff.text import aligned
from gsd.options import SHIPPED, verbosity
from gsd.output import say

if TYPE_CHECKING:
    from genselfdiff.models.shipped.weights import WholeWeights

WIDTH = 100
UNMEASURED = "not measured yet"


@click.group(
    invoke_without_command=True,
    epilog="""\b
Examples:
  gsd models
  gsd models show nuclei
""",
)
@click.pass_context
@verbosity
def models(ctx: click.Context) -> None:
    """List the models that come with gsd; show their cards.

    Where a command takes a model, its name will do: gsd segment --model nuclei, gsd evaluate
    nuclei, gsd train finetune --init nuclei, gsd export nuclei.
    """
    if ctx.invoked_subcommand is not None:
        return
    rows = [["name", "what it finds", "MB", "um/px", "classes", "licence"]]
    for name in catalogue.names():
        info, card = catalogue.read_info(name), catalogue.read_card(name)
        size = catalogue.weights_file(name).stat().st_size
        mpp = "any" if info.mpp is None else f"{info.mpp:g}"
        classes = ", ".join(info.classes)
        rows.append([name, card.summary, f"{size / 1e6:.1f}", mpp, classes, info.licence or "-"])
    if len(rows) == 1:
        say("this installation of gsd came without models")
        return
    say("\n".join(line.rstrip() for line in aligned(rows)))


@models.command()
@click.argument("name", type=SHIPPED)
@verbosity
def show(name: str) -> None:
    """Print the card of the model NAME: what it is for, how good and fast it is, whom it owes."""
    if catalogue.name_of(name) is None:
        names = ", ".join(catalogue.names()) or "none"
        raise InputError(f"no model {name!r} comes with gsd; there are: {names}")
    from genselfdiff.models.shipped.weights import read_weights

    say("\n".join(_card(name, read_weights(name), catalogue.read_card(name))))


def _card(name: str, weights: "WholeWeights", card: ModelCard) -> Iterator[str]:
    info = weights.info
    yield f"{name}: {card.summary}"
    yield from _section("What it is for", card.purpose)
    architecture = f"{info.architecture['name']}, width {info.architecture['width']}"
    given = ", ".join((*info.classes, *(["cores of objects"] if info.instances else [])))
    yield from _section(
        "What it is",
        [
            f"gives: {given}",
            "resolution: " + ("any" if info.mpp is None else f"{info.mpp:g} um/px"),
            f"network: {architecture}, {weights.parameters / 1e6:.1f} M parameters",
            f"weights: {catalogue.weights_file(name)} ({weights.digest})",
            f"licence: {info.licence or 'not stated'}",
        ],
    )
    yield from _section("Training", card.training)
    yield from _section("Where the data is from", info.attributions)
    yield "\nHow good it is (mean over images, 95 % interval)"
    for evaluation in card.evaluations:
        yield from _evaluation(evaluation)
    if not card.evaluations:
        yield f"  {UNMEASURED}"
    speeds = [f"{s.megapixels_per_second:g} Mpx/s: {s.what}; {s.machine}" for s in card.speeds]
    yield from _section("How fast it is", speeds or UNMEASURED)
    yield from _section("Where it fails", card.limits or "not looked for yet")
    yield from _section("Training it further", card.finetuning)
    masks = "--foreground --instances" if info.instances else "--classes ..."
    options = f"{masks} --mpp {info.mpp or 0.5:g} --init {name} --out run"
    yield f"  gsd train finetune --images fields/ --masks masks/ {options}"
    yield "  gsd export run -o model.ts && gsd segment slide.svs -o mask.tif --model model.ts"


def _section(title: str, text: str | Iterable[str]) -> Iterator[str]:
    """A paragraph, or a list of points."""
    yield f"\n{title}"
    if isinstance(text, str):
        yield from _wrapped(text)
        return
    for point in text:
        yield from _wrapped(f"- {point}", "  ")


def _wrapped(text: str, hanging: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent="  ",
        subsequent_indent=f"  {hanging}",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _evaluation(evaluation: Evaluation) -> Iterator[str]:
    yield from _wrapped(f"{evaluation.all.name}: {evaluation.about}")
    metrics = list(evaluation.all.scores)
    rows = [["", "images", *metrics]]
    for scores in (evaluation.all, *evaluation.groups):
        label = "all" if scores is evaluation.all else scores.name
        rows.append([label, str(scores.images), *_cells(scores, metrics)])
    yield from (f"    {line.rstrip()}" for line in aligned(rows))
    yield f"    again with: {evaluation.command}"


def _cells(scores: Scores, metrics: Iterable[str]) -> Iterator[str]:
    for metric in metrics:
        score = scores.scores.get(metric)
        yield "-" if score is None else _cell(score)


def _cell(score: Score) -> str:
    if score.interval is None:
        return f"{score.mean:.3f}"
    low, high = score.interval
    return f"{score.mean:.3f} ({low:.3f} to {high:.3f})"
