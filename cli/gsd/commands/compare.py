"""``gsd compare``: runs or evaluations side by side."""

from pathlib import Path

import click

from genselfdiff.files import refuse_existing, refuse_inputs
from gsd.options import FILE, overwriting, verbosity
from gsd.output import say


@click.command(
    epilog="""\b
Examples:
  gsd compare scratch pretrained -o comparison.png
  gsd compare budget5 budget10 budget20 --csv budgets.csv
  gsd compare scratch.json pretrained.json
"""
)
@click.argument("runs", nargs=-1, required=True, type=FILE, metavar="RUN...")
@click.option("-o", "--output", type=FILE, help="Also draw a plot, as PNG.")
@click.option("--csv", type=FILE, help="Also write the table to it.")
@overwriting
@verbosity
def compare(runs: tuple[Path, ...], output: Path | None, csv: Path | None, overwrite: bool) -> None:
    """Compare runs of one stage, or what gsd evaluate --json has written of models.

    RUN is a run folder, which has its best validation, or a JSON file of gsd evaluate, which has
    scores of test images that no choice was made by. The table has the settings in which they
    differ, and the mean difference from the first RUN over the images that both have.
    """
    from genselfdiff.training.comparison import compare as compare_runs
    from genselfdiff.training.run_folder import RunFolder

    outputs = [path for path in (output, csv) if path is not None]
    for path in outputs:
        refuse_existing(path, overwrite)
    refuse_inputs(outputs, [path for run in runs for path in (run, *RunFolder(run).files())])
    comparison = compare_runs(runs)
    say(comparison.table())
    if csv is not None:
        comparison.write_csv(csv)
    if output is not None:
        comparison.draw(output)
