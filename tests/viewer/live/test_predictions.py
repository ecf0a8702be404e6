"""What the process that predicts is told, and when."""

import io
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genselfdiff.live import predictions as predictions_module
from genselfdiff.live.blocks import Block, Picture, blocks_in
from genselfdiff.live.messages import receive, send
from genselfdiff.live.predictions import Predictions
from genselfdiff.live.views import View, Views

HERE = Picture(0, 0)
LABELS = np.zeros((512, 512), np.uint8)


def test_of_a_large_view_a_part_is_told_and_more_only_when_half_is_done(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    waiting = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    monkeypatch.setattr(predictions_module, "PROCESS", waiting)
    with closing(Predictions([tmp_path / "a.svs"], ["nuclei"], {})) as predictions:
        told: list[Any] = []
        monkeypatch.setattr(predictions, "_tell", lambda content: told.append(content["wanted"]))
        monkeypatch.setattr(predictions, "_views", Views(lambda: 0.0))  # they stay, however slow
        blocks = blocks_in(0, 0, 512 * 20, 512 * 20)
        view = View((HERE,), tuple(blocks))
        for _ in range(3):
            predictions.look(view)
        assert told == [[(HERE, blocks[:64])]]
        for block in blocks[:32]:
            predictions.store.put(HERE, block, LABELS)
            predictions._want()
        assert len(told) == 1
        predictions.store.put(HERE, blocks[32], LABELS)
        predictions._want()
        assert told[1:] == [[(HERE, blocks[33:97])]]
        for block in blocks[33:]:
            predictions.store.put(HERE, block, LABELS)
            predictions._want()
        assert told[-1][0][1][-1] == blocks[-1]
        assert len(told) < 20


def test_a_view_that_moves_is_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    waiting = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    monkeypatch.setattr(predictions_module, "PROCESS", waiting)
    with closing(Predictions([tmp_path / "a.svs"], ["nuclei"], {})) as predictions:
        told: list[Any] = []
        monkeypatch.setattr(predictions, "_tell", lambda content: told.append(content["wanted"]))
        left, right = Block(0, 0), Block(9, 0)
        predictions.look(View((HERE,), ()))
        predictions.look(View((HERE,), (left,)))
        predictions.look(View((HERE,), (right, left)))
        assert told == [
            [(HERE, [])],
            [(HERE, [left])],
            [(HERE, [right, left])],
        ]
        predictions._errors[HERE] = "no such slide"
        predictions._want()
        assert told[-1] == []


def test_a_message_that_was_never_whole_is_the_end() -> None:
    stream = io.BytesIO()
    send(stream, {"block": [0, 0]}, b"labels")
    for size in range(len(stream.getvalue())):
        assert receive(io.BytesIO(stream.getvalue()[:size])) is None
    stream.seek(0)
    assert receive(stream) == ({"block": [0, 0]}, b"labels")
