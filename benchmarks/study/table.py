"""Tables and plots of the study, of whatever results there are.

    python benchmarks/study/table.py --results FOLDER --out FOLDER [--metric dice]

OUT gets ``study.md``, ``labels.png`` (score over the number of labelled images) and, where there
are such runs, ``pretraining.png`` (score over the steps of stage 1). See run.py.
"""

import argparse
import sys
from pathlib import Path

from plan import read_plan
from plots import draw_labels, draw_pretraining
from summary import markdown, read_results, summarise

from genselfdiff.errors import GsdError
from genselfdiff.files import write_text


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--metric", choices=("dice", "aji", "pq"), default="dice")
    parser.add_argument("--plan", type=Path, default=Path(__file__).with_name("plan.toml"))
    options = parser.parse_args()
    try:
        plan = read_plan(options.plan)
        found = read_results(options.results, plan)
        for line in found.remarks:
            print(line)
        rows = summarise(plan, found.results, options.metric)
        options.out.mkdir(parents=True, exist_ok=True)
        write_text(options.out / "study.md", markdown(plan, rows, options.metric))
        draw_labels(rows, options.metric, options.out / "labels.png")
        draw_pretraining(plan, rows, options.metric, options.out / "pretraining.png")
    except GsdError as error:
        sys.exit(f"table.py: {error}")


if __name__ == "__main__":
    main()
