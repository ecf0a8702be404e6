"""The benchmarks compare what computes the same, and their table says what was measured."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import operations
import pytest
import table
import torch
import training_profile
from forms import error, is_right
from network import in_one, operations_of, prepare, rows
from nuclei import card
from torch.profiler import DeviceType

from genselfdiff.models.shipped import catalogue
from genselfdiff.models.shipped.card import ModelCard, Score


@pytest.mark.parametrize("case", list(operations.cases(tile=16)), ids=lambda case: case.name)
def test_every_form_of_an_operation_gives_its_numbers(case):
    arguments = case.arguments()
    truth = case.truth(arguments)
    for name, form in case.forms.items():
        if name != "compile":  # takes seconds each
            found = form(arguments)()
            assert is_right(error(found, truth(found)), case.dtype), name


def test_every_form_of_the_network_gives_its_numbers():
    for group in rows():
        truth = None
        for row in group:
            if row.form == "compile" or row.batch > 1:
                continue
            with operations_of(row.form):
                found = in_one(prepare(row, "tiny", 32)())
            truth = found if truth is None else truth
            assert is_right(error([found], [truth]), getattr(torch, row.dtype)), row


def test_table_takes_the_fastest_right_form_of_the_authors():
    shared = {"operation": "o", "size": "1 x 2", "dtype": "float32", "floor_bytes": 3e9}

    def measured(seconds, form, right=True):
        told = {"form": form, "error": 1e-6 if right else 1.0, "right": right}
        return shared | told | {"seconds": seconds}

    heading, row = table.operation_rows(
        [
            measured(1.0, "authors, NCHW", right=False),
            measured(3.0, "authors, channels_last"),
            measured(4.0, "authors, NCHW, autocast"),
            measured(2.5, "plain", right=False),
            measured(1.5, "ours"),
            {"operation": "copy", "seconds": 2.0, "floor_bytes": 8e9},
        ]
    )
    found = dict(zip(heading, row, strict=True))
    assert found["authors"] == "3000.00 (channels_last)"
    assert found["plain"] == "wrong"
    assert found["compile"] == "-"
    assert found["ours"] == "1500.00"
    assert (found["x authors"], found["x plain"]) == ("2.00", "")
    assert (found["GB/s"], found["of copying"]) == ("2.0", "0.50")


def test_table_prints_no_speed_for_a_network_that_computes_wrongly():
    shared = {"task": "inference", "batch": 1, "peak_bytes": 2**30, "wall_s": 7.0}

    def record(dtype, form, cpu_s, right=True):
        measured = {"dtype": dtype, "form": form, "cpu_s": cpu_s, "error": 0.0, "right": right}
        return shared | measured

    records = [
        record(dtype, form, cpu_s, right)
        for dtype, right in (("float32", True), ("bfloat16", False))
        for form, cpu_s in (("authors, NCHW", 6.0), ("plain", 3.0), ("ours", 2.0))
    ]
    heading, *found = (list(row) for row in table.network_rows(records))
    right, wrong = (dict(zip(heading, row, strict=True)) for row in found)
    assert (right["ours"], right["ours, wall time"], right["x authors"]) == ("2.00", "7.00", "3.00")
    assert (wrong["ours"], wrong["ours, wall time"], wrong["x authors"]) == ("wrong", "", "")
    assert wrong["x authors in float32"] == ""


def test_a_profile_tells_when_the_gpu_is_idle_and_waited_for():
    def event(name, start=0, end=0, kind=DeviceType.CUDA, annotation=False):
        return SimpleNamespace(
            name=name,
            device_type=kind,
            time_range=SimpleNamespace(start=start, end=end),
            is_user_annotation=annotation,
        )

    found = training_profile.gpu_figures(
        [
            event("kernel", 20, 30),
            event("kernel", 0, 10),
            event("Memcpy DtoH (Device -> Pageable)", 5, 12),
            event("Optimizer.step", 0, 40, annotation=True),
            event("cudaStreamSynchronize", kind=DeviceType.CPU),
            event("cudaDeviceSynchronize", kind=DeviceType.CPU),  # the profile's own
        ]
    )
    assert found == {"idle": pytest.approx(8 / 30), "waits": 1, "copies to the host": 1}


def measured_sets() -> dict[str, Any]:
    def figures(mean, images=5):
        figure = {"mean": mean, "interval": [mean - 0.1, mean + 0.1]}
        return {"images": images} | dict.fromkeys(("dice", "aji", "pq", "dq", "sq"), figure)

    one = figures(0.3, 1) | {"pq": {"mean": 0.3, "interval": None}}
    return {"MoNuSeg": figures(0.8), "MoNuSeg, liver": one, "consep": figures(0.5)}


def test_the_card_gets_what_was_measured_by_set_and_part(tmp_path, monkeypatch):
    results, written = tmp_path / "results.json", tmp_path / "nuclei.json"
    results.write_text(json.dumps({"sets": measured_sets()}))
    written.write_text((catalogue.FOLDER / "nuclei.json").read_text(encoding="utf-8"))
    monkeypatch.setattr("sys.argv", ["card.py", str(results), str(written)])
    card.main()
    first, second = ModelCard.from_json(written.read_text(encoding="utf-8"), written).evaluations
    assert (first.all.name, first.all.images, second.all.name) == ("MoNuSeg", 5, "CoNSeP")
    assert list(first.all.scores) == ["Dice", "AJI", "PQ"]
    (liver,) = first.groups
    assert (liver.name, liver.images) == ("liver", 1)
    assert liver.scores["PQ"] == Score(0.3, None)
    assert second.groups == ()


def test_the_card_tells_the_committed_results():
    path = Path(card.__file__).with_name("results.json")
    told = json.loads((catalogue.FOLDER / "nuclei.json").read_text(encoding="utf-8"))["evaluations"]
    sets = json.loads(path.read_text(encoding="utf-8"))["sets"] if path.exists() else {}
    assert told == card.evaluations(sets)
