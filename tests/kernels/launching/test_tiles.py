"""The table of how kernels are launched, and what finds better entries."""

import json
import multiprocessing
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from genselfdiff.kernels import tiles

pytest.importorskip("triton", reason="triton is not installed")
autotune = pytest.importorskip("autotune")

ENTRIES = [
    (capability, kernel, shape)
    for capability, kernels in tiles.table().items()
    for kernel, entries in kernels.items()
    for shape in entries
]


def test_the_table_is_whole_and_as_autotune_writes_it() -> None:
    assert set(ENTRIES) == {
        (capability, kernel, shape)
        for capability in ("80", "90")
        for kernel in autotune.SPACE
        for shape in autotune.SHAPES
    }
    file = Path(tiles.__file__).with_name("tiles.json")
    assert file.read_text() == autotune.text(json.loads(file.read_text()))


@pytest.mark.parametrize(("capability", "kernel", "shape"), ENTRIES)
def test_every_entry_and_candidate_can_be_launched(
    capability: str, kernel: str, shape: str
) -> None:
    entry = tiles.entry(kernel, int(capability), *shape.split())
    assert autotune.is_valid(kernel, shape, entry)
    for tile in autotune.candidates(kernel, shape, entry):
        assert tile != entry and tile.run % tile.block_t == 0


def test_a_program_holds_no_more_channels_than_it_has() -> None:
    entry = tiles.Tiles(block_t=64, block_c=64, run=64, held=True)
    assert autotune.is_valid("linear_attention.output", "bfloat16 narrow", entry)
    assert not autotune.is_valid("linear_attention.output", "bfloat16 wide", entry)
    fewer = replace(entry, block_c=32)
    assert not autotune.is_valid("linear_attention.output", "bfloat16 narrow", fewer)


def test_candidates_are_checked_in_other_processes_as_long_as_there_is_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel, shape = "group_norm_silu.apply", "float32 narrow"
    entry = tiles.entry(kernel, 90, *shape.split())
    asked = [(kernel, replace(entry, block_t=t)) for t in (16, 64)]
    search = autotune.Search("cpu", time.monotonic() + 0.1, None, few=2, processes=1)
    assert set(search._problems(shape, asked).values()) == {autotune.LATE}
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("channels", "shape"), [(64, "narrow"), (16, "narrow"), (20, "wide"), (80, "wide")]
)
def test_few_channels_that_16_divides_are_narrow(channels: int, shape: str) -> None:
    assert tiles.shape_class(channels) == shape
    x = torch.zeros(1, channels, 2, 2)
    assert tiles.tiles("linear_attention.context", x) == tiles.entry(
        "linear_attention.context", tiles.assumed_capability, "float32", shape
    )


def test_a_better_candidate_is_written(
    interpreted: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, shape = "group_norm_silu.apply", "float32 narrow"
    table = json.loads(json.dumps(tiles.table()))
    monkeypatch.setattr(tiles, "table", lambda: table)
    monkeypatch.setattr(autotune, "SPACE", {kernel: autotune.SPACE[kernel]})
    search = autotune.Search("cpu", float("inf"), tmp_path / "tiles.json", few=2, processes=0)
    times = iter([3.0, 4.0, 2.0])
    monkeypatch.setattr(search, "seconds", lambda call: next(times))
    before = tiles.entry(kernel, 90, *shape.split())
    second = list(autotune.candidates(kernel, shape, before))[1]
    x = torch.zeros(1, 16, 2, 2)
    assert tiles.tiles(kernel, x) == before
    try:
        search.run((shape,))
        assert tiles.tiles(kernel, x) == second
    finally:
        tiles.looked_up.cache_clear()
    written = json.loads((tmp_path / "tiles.json").read_text())
    assert tiles.Tiles(**written["90"][kernel][shape]) == second
