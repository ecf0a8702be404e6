"""Models that mean harm: each predicts, or is refused in a line, and does nothing else.

What is tried depends on a seed and a number only; to see one again:
``python tests/fuzz/model_worker.py KIND SEED NUMBER 1``.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).parent / "model_worker.py"
SEED = 1


def try_all(kind: str, first: int, count: int) -> None:
    ended = subprocess.run(
        [sys.executable, str(WORKER), kind, str(SEED), str(first), str(count)],
        capture_output=True,
        text=True,
        check=False,
    )
    outcomes = [json.loads(line) for line in ended.stdout.splitlines()]
    assert ended.returncode == 0, f"died of {outcomes[-1:]}: {ended.stderr[-2000:]}"
    assert len(outcomes) == 2 * count
    done = outcomes[1::2]
    wrong = [o for o in done if o["outcome"] not in ("mask", "refused") or "\n" in o["message"]]
    assert not wrong, "\n".join(json.dumps(outcome, indent=1) for outcome in wrong)
    refused = sum(outcome["outcome"] == "refused" for outcome in done)
    assert count / 3 < refused < count  # else the attacks are none, or nothing works at all


def test_a_sample_of_hostile_models() -> None:
    try_all("torchscript", 0, 40)


def test_a_sample_of_hostile_models_in_other_formats() -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    try_all("others", 0, 40)


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["torchscript", "others"])
def test_a_thousand_hostile_models(kind: str) -> None:
    for first in range(40, 1040, 100):
        try_all(kind, first, 100)
