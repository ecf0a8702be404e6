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
    """Draw ``curves.png`` from ``metrics.jsonl``: losses above; below them scores, if there are."""
    from matplotlib.figure import Figure  # writes a cache into HOME, which no other command needs

    records = run.read_metrics()
    training = [(r["step"], r["loss"]) for r in records if "loss" in r]
    validation = [(r["step"], r["validation"]) for r in records if "validation" in r]
    # A class that no validation image holds has a figure where it is found.
    curves: dict[str, list[tuple[int, float]]] = {}
    for step, figures in validation:
        for name in sorted(figures.keys() - {"score"}):
            curves.setdefault(name, []).append((step, figures[name]))
    losses = {"training": training, "validation": curves.pop("loss", [])}
    panels = [("loss", losses)] + ([("score", curves)] if curves else [])
    figure = Figure(figsize=(7, 1 + 3 * len(panels)), layout="constrained")
    figure.suptitle(plot_label(run.path.resolve().name))
    every = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (kind, lines) in zip(every, panels, strict=True):
        for name, points in lines.items():
            if points:
                marker = "" if name == "training" else "."
                axes.plot(*zip(*points, strict=True), marker=marker, label=plot_label(name))
        if axes.lines:
            axes.legend()
        axes.set_ylabel(kind)
        axes.grid(alpha=0.3)
    every[-1].set_xlabel("step")
    with atomic_file(run.curves) as temporary:
        figure.savefig(temporary, format="png")
