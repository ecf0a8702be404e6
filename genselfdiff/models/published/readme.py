"""The page of a model that is passed on: what the Hugging Face Hub reads of it, and what people do.

It begins with YAML between two lines of dashes, the form of which is the Hub's:
https://huggingface.co/docs/hub/model-cards. JSON is YAML, so its values are JSON.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from genselfdiff.models.model_info import EXTRA_FILE, ModelInfo
from genselfdiff.models.shipped.card import Evaluation, ModelCard, Score
from genselfdiff.text import shown
from genselfdiff.version import __version__

_TASK = "image-segmentation"
_TAGS = ("histology", "H-and-E", "pathology", "whole-slide", "semantic-segmentation", "unet")
_LICENCES = frozenset(
    (
        *("apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0"),
        *("cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-4.0"),
    )
)
"""Of SPDX that the Hub knows, in its lower case."""


def readme(name: str, info: ModelInfo, card: ModelCard | None) -> str:
    """The text of a README.md in Markdown.

    Args:
        name: of the model.
        info: what the weights say of themselves.
        card: what has been found out about it; None: nothing has.
    """
    front = "".join(f"{key}: {json.dumps(told)}\n" for key, told in _front(name, info, card))
    return f"---\n{front}---\n\n" + "\n".join(_page(name, info, card)) + "\n"


def _front(name: str, info: ModelInfo, card: ModelCard | None) -> Iterator[tuple[str, Any]]:
    licence = info.licence.strip().lower()
    if licence in _LICENCES:
        yield "license", licence
    else:
        yield "license", "other"
        yield "license_name", shown(info.licence)
    yield "library_name", "genselfdiff"
    yield "pipeline_tag", _TASK
    yield "tags", [*_TAGS, *(["instance-segmentation"] if info.instances else [])]
    # What stands before the first comma of an attribution is the name of a set of data.
    if sets := [shown(text.partition(",")[0].strip()) for text in info.attributions]:
        yield "datasets", sets
    evaluations = card.evaluations if card else ()
    if metrics := dict.fromkeys(m.lower() for each in evaluations for m in each.all.scores):
        yield "metrics", list(metrics)
    if evaluations:
        yield "model-index", [{"name": name, "results": list(map(_result, evaluations))}]


def _result(evaluation: Evaluation) -> dict[str, Any]:
    scores = evaluation.all
    kind = re.sub(r"[^a-z0-9]+", "-", scores.name.lower()).strip("-") or "images"
    return {
        "task": {"type": _TASK},
        "dataset": {"name": scores.name, "type": kind},
        "metrics": [
            {"type": metric.lower(), "name": metric, "value": score.mean}
            for metric, score in scores.scores.items()
        ],
    }


def _page(name: str, info: ModelInfo, card: ModelCard | None) -> Iterator[str]:
    given = ", ".join(map(_plain, info.classes))
    resolution = "any resolution" if info.mpp is None else f"{info.mpp:g} micrometres per pixel"
    yield f"# {_plain(name)}\n"
    yield f"{_plain(card.summary)}.\n" if card else f"Segments H&E histology: {given}.\n"
    if card:
        yield f"{_plain(card.purpose)}\n"
    yield f"- gives: {given}{', and cores of objects that touch' if info.instances else ''}"
    yield f"- takes: H&E-stained tissue at {resolution}; slides are brought to it"
    yield f"- network: {_told(info.architecture)}"
    yield f"- licence of the weights: {_plain(info.licence)}"
    yield f"- written by: genselfdiff {__version__}\n"
    yield "## Use\n"
    yield "```sh\ngsd segment slide.svs -o mask.tif --model FOLDER   # the folder of these files"
    yield "gsd pull hf://USER/NAME -o model.ts\n```\n"
    yield "## Training\n"
    if card:
        yield f"{_plain(card.training)}\n"
    for key, told in info.training.items():
        if key != "settings":
            yield f"- {_plain(key)}: {_plain(told)}"
    yield f"\n`{EXTRA_FILE}` has all settings.\n"
    yield "## Whose data it owes\n"
    yield from (f"- {_plain(text)}" for text in info.attributions or ("nobody's is told",))
    yield "\n## How good it is\n"
    if card and card.evaluations:
        for evaluation in card.evaluations:
            yield from _table(evaluation)
    else:
        yield "Nothing was measured on images that did not take part in training. `gsd evaluate`"
        yield "compares masks with labels of your own: do so before you rely on them.\n"
    if card and card.limits:
        yield "## Where it fails\n"
        yield from (f"- {_plain(limit)}" for limit in card.limits)
        yield ""
    if card:
        yield f"## Training it further\n\n{_plain(card.finetuning)}"


def _table(evaluation: Evaluation) -> Iterator[str]:
    metrics = list(evaluation.all.scores)
    yield f"{_plain(evaluation.all.name)}: {_plain(evaluation.about)}; mean over images, with"
    yield "its 95 % interval.\n"
    yield f"| | images | {' | '.join(map(_plain, metrics))} |"
    yield f"|---|---|{'---|' * len(metrics)}"
    for scores in (evaluation.all, *evaluation.groups):
        cells = " | ".join(_cell(scores.scores.get(metric)) for metric in metrics)
        label = "all" if scores is evaluation.all else _plain(scores.name)
        yield f"| {label} | {scores.images} | {cells} |"
    yield f"\nAgain with: `{evaluation.command}`\n"


def _cell(score: Score | None) -> str:
    if score is None:
        return "-"
    if score.interval is None:
        return f"{score.mean:.3f}"
    return f"{score.mean:.3f} ({score.interval[0]:.3f} to {score.interval[1]:.3f})"


def _told(architecture: dict[str, Any]) -> str:
    return ", ".join(f"{_plain(key)} {_plain(told)}" for key, told in architecture.items()) or "-"


def _plain(told: object) -> str:
    """A text of which Markdown makes nothing else."""
    return re.sub(r"([\\`*_<>|\[\]#])", r"\\\1", shown(str(told)))
