"""The loss curves of a run as a picture."""

from genselfdiff.files import atomic_file
from genselfdiff.text import shown
from genselfdiff.training.run_folder import RunFolder


def plot_label(name: str) -> str:
    """``name`` as matplotlib draws it letter by letter, and lists it.

    Between dollar signs it would look for mathematics, and leaves names that begin with an
    underscore out of legends.
    """
    text = shown(name).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def draw_curves(run: RunFolder) -> None:
    """Draw ``curves.png`` from ``metrics.jsonl``: training loss above, validation below."""
    from matplotlib.figure import Figure  # writes a cache into HOME, which no other command needs

    records = run.read_metrics()
    training = [(r["step"], r["loss"]) for r in records if "loss" in r]
    validation = [(r["step"], r["validation"]) for r in records if "validation" in r]
    figure = Figure(figsize=(7, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    if training:
        above.plot(*zip(*training, strict=True), color="tab:blue", linewidth=1)
    above.set_ylabel("training loss")
    names = dict.fromkeys(name for _, figures in validation for name in figures if name != "score")
    for name in names:  # a class that no validation image holds has a figure where it is found
        told = [(step, figures[name]) for step, figures in validation if name in figures]
        below.plot(*zip(*told, strict=True), marker=".", label=plot_label(name))
    if names:
        below.legend()
    below.set_ylabel("validation")
    below.set_xlabel("step")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    with atomic_file(run.curves) as temporary:
        figure.savefig(temporary, format="png")
