"""Put what evaluate.py has measured into the card of the shipped model.

    python benchmarks/nuclei/card.py benchmarks/nuclei/results.json genselfdiff/shipped/nuclei.json

Of the card only the evaluations change; its texts and speeds are written by hand.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from genselfdiff.files import write_text
from genselfdiff.models.shipped.card import ModelCard

METRICS = {"dice": "Dice", "aji": "AJI", "pq": "PQ"}
"""What a card shows, of what evaluate.py measures."""

ABOUT = {
    "MoNuSeg": (
        "MoNuSeg",
        "30 images of its training set, seven organs, of other hospitals than all that was trained"
        " on; nothing was chosen by them",
    ),
    "nuinsseg": ("NuInsSeg", "blocks of ten images that were kept back, 31 organs"),
    "tnbc": ("TNBC", "images of patients 3, 7 and 10, which were kept back"),
    "consep": ("CoNSeP", "its published test part"),
    "dsb2018": ("DSB 2018", "its published test part, stained images"),
}
"""Name and description of each set, in the order of the card."""


def evaluations(sets: dict[str, Any]) -> list[dict[str, Any]]:
    """What a card tells of the ``sets`` of a file of results; "SET, PART" is a part of SET."""
    return [
        {
            "about": about,
            "command": "python benchmarks/nuclei/evaluate.py",
            "all": _scores(name, sets[key]),
            "groups": [
                _scores(other.removeprefix(f"{key}, "), figures)
                for other, figures in sets.items()
                if other.startswith(f"{key}, ")
            ],
        }
        for key, (name, about) in ABOUT.items()
        if key in sets
    ]


def _scores(name: str, figures: dict[str, Any]) -> dict[str, Any]:
    means = {title: figures[key] for key, title in METRICS.items()}
    return {
        "name": name,
        "images": figures["images"],
        "scores": {
            title: [figure["mean"], *(figure["interval"] or [])] for title, figure in means.items()
        },
    }


def main() -> None:
    """Change the card."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("card", type=Path)
    options = parser.parse_args()
    sets = json.loads(options.results.read_text(encoding="utf-8"))["sets"]
    card = json.loads(options.card.read_text(encoding="utf-8"))
    text = json.dumps(card | {"evaluations": evaluations(sets)}, indent=2, ensure_ascii=False)
    ModelCard.from_json(text, options.card)
    write_text(options.card, text + "\n")


if __name__ == "__main__":
    main()
