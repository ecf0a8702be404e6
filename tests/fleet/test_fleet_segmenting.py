"""Slides on the workers of a cluster: the bytes of one process, whatever happens."""

import csv
import errno
import os
import random
import time
from functools import partial

import numpy as np
import pytest
from distributed import Client

from genselfdiff.errors import GsdError, InputError, InUseError, OutputError
from genselfdiff.fleet import coordinator, machines, worker
from genselfdiff.fleet.part_queue import FAILURES, PartQueue, Size
from genselfdiff.fleet.segmenting import _recorded
from genselfdiff.fleet.worker import Order
from genselfdiff.resumable_file import ResumableFile
from genselfdiff.segmenting.many_slides import segment_all
from genselfdiff.segmenting.options import Options
from genselfdiff.segmenting.plan import plan_outputs
from genselfdiff.segmenting.shards.folder import read_job

OPTIONS = {"device": "cpu", "precision": "float32"}


def outcomes_of(plan, model, **options):
    return list(segment_all(plan, model, **OPTIONS | options))


def summary_of(folder):
    with (folder / "summary.csv").open(encoding="utf-8", newline="") as text:
        rows = {row["slide"]: row for row in csv.DictReader(text)}
    for row in rows.values():
        row.pop("seconds")
    return rows


def assert_same(alone, together):
    assert {path.name for path in alone.iterdir()} == {path.name for path in together.iterdir()}
    for path in alone.iterdir():
        if path.name != "summary.csv":
            assert path.read_bytes() == (together / path.name).read_bytes(), path.name
    assert summary_of(alone) == summary_of(together)


@pytest.fixture
def slides(picture, write_slide):
    heights = (500, 90, 1300, 200, 130)
    return [
        write_slide(picture(height, 160, seed=number), name=f"{number}.tif")
        for number, height in enumerate(heights)
    ]


@pytest.fixture
def alone(tmp_path, slides, model):
    outcomes_of(plan_outputs(slides, tmp_path / "alone"), model, **BESIDE)
    return tmp_path / "alone"


BESIDE = {"geojson": True, "overlay": True, "probabilities": True, "table": True}


def shuffled(monkeypatch, seed):
    """Let workers get their tasks in any order."""
    rng = random.Random(seed)
    right = coordinator.Coordinator._give_out

    def give_out(self):
        order = list(self._machines)
        rng.shuffle(order)
        self._machines = {name: self._machines[name] for name in order}
        right(self)

    monkeypatch.setattr(coordinator.Coordinator, "_give_out", give_out)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_it_is_what_one_process_makes(tmp_path, slides, model, alone, cluster, monkeypatch, count):
    cuts = []
    right = worker.agree

    def agree(*arguments):
        shared = right(*arguments)
        cuts.append((shared.slide, len(shared.parts)))
        return shared

    monkeypatch.setattr(worker, "agree", agree)
    shuffled(monkeypatch, count)
    plan = plan_outputs(slides, tmp_path / "together")
    outcomes = outcomes_of(plan, model, client=cluster(count), **BESIDE)
    assert {outcome.slide for outcome in outcomes} == set(slides)
    for outcome in outcomes:
        assert outcome.result.seconds > 0
        assert outcome.result.files.mask.name in outcome.result.summary()
        assert not outcome.result.finished_before
    assert_same(alone, tmp_path / "together")
    most = max((parts for _, parts in cuts), default=1)
    assert (most > count) == (count > 1)


def test_at_an_address_slides_are_cut_for_workers_to_come(
    tmp_path, slides, model, alone, cluster, monkeypatch
):
    """What is begun is not cut anew: a later worker finds parts that nobody has begun."""
    right, done = worker.predict_part, []
    monkeypatch.setattr(worker, "predict_part", lambda *a: done.append(a[-1]) or right(*a))
    with Client(cluster(1).scheduler.address) as client:
        outcomes_of(plan_outputs(slides, tmp_path / "together"), model, client=client, **BESIDE)
    assert_same(alone, tmp_path / "together")
    assert len(done) > 4


def test_a_worker_of_a_gpu_is_taken_whole(tmp_path, slides, model, alone, cluster, monkeypatch):
    """Its tasks take Dask's resource, so that nothing else that asks for it runs beside them."""
    client = cluster(2, resources={"GPU": 1})
    right, available = worker.predict_part, []

    def predict_part(*arguments):
        available.append(worker.get_worker().state.available_resources["GPU"])
        return right(*arguments)

    monkeypatch.setattr(worker, "predict_part", predict_part)
    outcomes_of(plan_outputs(slides, tmp_path / "together"), model, client=client, **BESIDE)
    assert_same(alone, tmp_path / "together")
    assert set(available) == {0}


def test_done_before_it_is_not_done_again(tmp_path, slides, model, alone, cluster, monkeypatch):
    plan = plan_outputs(slides, tmp_path / "alone")
    monkeypatch.setattr("genselfdiff.segmenting.one_slide._write", None)
    outcomes = outcomes_of(plan, model, client=cluster(2), **BESIDE)
    assert all(outcome.result.finished_before for outcome in outcomes)


def test_a_slide_that_fails_stops_no_other(tmp_path, slides, model, alone, cluster):
    bad = tmp_path / "bad.tif"
    bad.write_bytes(b"no slide")
    client = cluster(2)
    plan = plan_outputs([*slides, bad], tmp_path / "together")
    outcomes = outcomes_of(plan, model, client=client, **BESIDE)
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    assert [outcome.slide for outcome in failed] == [bad]
    assert isinstance(failed[0].error, InputError)
    assert "bad.tif" in str(failed[0].error)
    assert len(outcomes) == len(slides) + 1
    assert summary_of(tmp_path / "together")[str(bad)]["error"]
    again = outcomes_of(plan_outputs([bad], tmp_path / "b.tif"), model, client=client)
    assert isinstance(again[0].error, InputError)


def test_where_one_worker_has_no_space_another_does_it(
    tmp_path, slides, model, alone, cluster, monkeypatch
):
    client = cluster(3)
    full = min(client.nthreads())
    right = worker.predict_part

    def predict_part(*arguments):
        if worker.get_worker().address == full:
            raise OutputError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/scratch")
        return right(*arguments)

    monkeypatch.setattr(worker, "predict_part", predict_part)
    plan = plan_outputs(slides, tmp_path / "together")
    outcomes = outcomes_of(plan, model, client=client, **BESIDE)
    assert not [outcome.error for outcome in outcomes if outcome.error]
    assert_same(alone, tmp_path / "together")


def test_a_part_that_always_fails_ends_its_slide_with_the_cause(
    tmp_path, slides, model, cluster, monkeypatch
):
    right, tried = worker.predict_part, []

    def predict_part(task, output, shared, index):
        if task.source.path.name == "2.tif" and index == 2:
            tried.append(worker.get_worker().address)
            raise RuntimeError("the tube is broken")
        return right(task, output, shared, index)

    monkeypatch.setattr(worker, "predict_part", predict_part)
    plan = plan_outputs(slides, tmp_path / "together")
    outcomes = outcomes_of(plan, model, client=cluster(3))
    (failed,) = [outcome for outcome in outcomes if outcome.error is not None]
    assert failed.slide.name == "2.tif"
    assert "RuntimeError: the tube is broken" in str(failed.error)
    assert len(tried) == len(set(tried)) == 3
    assert len(outcomes) == len(slides)


def test_what_another_process_writes_is_waited_for(
    tmp_path, slides, model, alone, cluster, monkeypatch
):
    """As where a worker that was thought to be gone has not ended yet."""
    right, refused = worker.predict_part, []

    def predict_part(task, output, shared, index):
        if len(refused) < 2:
            refused.append(time.monotonic())
            raise InUseError(f"{output}: another run is writing it")
        return right(task, output, shared, index)

    monkeypatch.setattr(worker, "predict_part", predict_part)
    monkeypatch.setattr(coordinator, "IN_USE_SECONDS", 0.5)
    plan = plan_outputs(slides[2:3], tmp_path / "m.tif")
    begin = time.monotonic()
    (outcome,) = outcomes_of(plan, model, client=cluster(2))
    assert outcome.error is None
    assert len(refused) == 2
    assert time.monotonic() - begin > 0.5


def test_what_workers_log_is_told(tmp_path, picture, write_slide, model, cluster, caplog):
    slide = write_slide(np.full((200, 160, 3), 245, np.uint8))
    outcomes_of(plan_outputs([slide], tmp_path / "m.tif"), model, client=cluster(1))
    told = [record for record in caplog.records if "no tissue found" in record.getMessage()]
    assert "coordinator" in {record.module for record in told}


def test_what_is_left_of_another_run_is_taken_up(
    tmp_path, slides, model, alone, cluster, monkeypatch
):
    """With parts as they were cut then, of which those that are there are not made again."""
    right, made, is_broken = worker.predict_part, [], True

    def predict_part(task, output, shared, index):
        if is_broken and index > 2:
            raise OutputError("no space")
        right(task, output, shared, index)
        made.append((task.source.path.name, index))

    monkeypatch.setattr(worker, "predict_part", predict_part)
    plan = plan_outputs(slides, tmp_path / "together")
    first = outcomes_of(plan, model, client=cluster(2), **BESIDE)
    assert [outcome for outcome in first if outcome.error]
    before = read_job(tmp_path / "together" / "2_mask.tif.shards")
    is_broken = False
    outcomes = outcomes_of(plan, model, client=cluster(5), **BESIDE)
    assert not [outcome.error for outcome in outcomes if outcome.error]
    assert_same(alone, tmp_path / "together")
    assert len(made) == len(set(made)), "a part was made twice"
    of_one = {index for name, index in made if name == "2.tif"}
    assert of_one == set(before.parts)


def test_workers_that_do_not_fit_get_no_work(tmp_path, slides, model, cluster, monkeypatch, caplog):
    client = cluster(4)
    others = dict(zip(sorted(client.nthreads()), ({}, *CHANGES), strict=False))
    change_machines(monkeypatch, others)
    used = set()
    right = worker.perform

    def perform(*arguments):
        used.add(worker.get_worker().address)
        return right(*arguments)

    monkeypatch.setattr("genselfdiff.fleet.segmenting.perform", perform)
    outcomes = outcomes_of(plan_outputs(slides, tmp_path / "together"), model, client=client)
    assert not [outcome.error for outcome in outcomes if outcome.error]
    told = [record.getMessage() for record in caplog.records if "no work" in record.getMessage()]
    assert len(told) == len(CHANGES)
    for address, change in others.items():
        if change:
            assert address not in used
            (line,) = [line for line in told if line.startswith(address)]
            assert str(*change.values()) in line or "model" in change


CHANGES = ({"genselfdiff": "0.0.9"}, {"model": "another"}, {"device": "cuda"})


def change_machines(monkeypatch, changes):
    """Let workers, by their addresses, tell other things of themselves."""
    right = machines.Machine.of.__func__

    def of(cls, *arguments, **details):
        made = right(cls, *arguments, **details)
        change = changes[worker.get_worker().address]
        return machines.Machine(**vars(made) | change)

    monkeypatch.setattr(machines.Machine, "of", classmethod(of))


def test_where_pixels_could_differ_it_is_told(
    tmp_path, slides, model, cluster, monkeypatch, caplog
):
    client = cluster(2)
    first, second = sorted(client.nthreads())
    change_machines(monkeypatch, {first: {}, second: {"torch": "2.99", "kernels": "sse"}})
    outcomes_of(plan_outputs(slides[:2], tmp_path / "together"), model, client=client)
    told = " ".join(record.getMessage() for record in caplog.records)
    assert ("torch 2.99 here" in told) or ("2.99 elsewhere" in told)
    assert "a few pixels can differ" in told


def test_no_worker_fits(tmp_path, slides, model, cluster, monkeypatch):
    client = cluster(1)
    change_machines(monkeypatch, {key: {"has_folder": False} for key in client.nthreads()})
    with pytest.raises(GsdError, match=r"no worker fits: .* does not see the folder"):
        outcomes_of(plan_outputs(slides, tmp_path / "together"), model, client=client)


def test_it_excludes_what_is_for_one_process(tmp_path, slides, model, cluster):
    plan = plan_outputs(slides, tmp_path / "together")
    with pytest.raises(InputError, match="with a client, neither overwrite"):
        outcomes_of(plan, model, client=cluster(1), overwrite=True)


def test_a_model_of_a_name_and_files_named_from_here(
    tmp_path, picture, write_slide, cluster, ship, monkeypatch
):
    """Workers may work in other folders: they are told where things are."""
    ship()
    write_slide(picture(200, 160))
    monkeypatch.chdir(tmp_path)
    plan = plan_outputs(["slide.tif"], "m.tif")
    right, given = worker.perform, []

    def perform(order, task, slide, mask, listed):
        given.extend((order.folder, order.options.overlay, slide, mask))
        return right(order, task, slide, mask, listed)

    monkeypatch.setattr("genselfdiff.fleet.segmenting.perform", perform)
    (outcome,) = outcomes_of(plan, "nuclei", client=cluster(1), overlay="drawn.png")
    assert str(outcome.result.files.mask) == "m.tif"
    assert str(outcome.result.files.overlay) == "drawn.png"
    assert (tmp_path / "drawn.png").exists()
    assert all(path.is_absolute() for path in given)


def test_masks_by_url(tmp_path, slides, model, alone, cluster, monkeypatch):
    """They grow, whole or in parts, in a folder that all see, and are sent from there."""
    fsspec = pytest.importorskip("fsspec")
    storage = fsspec.filesystem("memory")
    client, cuts = cluster(3), []
    right = worker.merge_parts
    monkeypatch.setattr(worker, "merge_parts", lambda *a: cuts.append(a) or right(*a))
    for again in (False, True):
        plan = plan_outputs(slides, "memory://masks/", scratch=tmp_path / "scratch")
        outcomes = outcomes_of(plan, model, client=client, **BESIDE)
        assert not [outcome.error for outcome in outcomes if outcome.error]
        assert [outcome.result.finished_before for outcome in outcomes] == [again] * len(slides)
        assert all("memory://masks/" in outcome.result.summary() for outcome in outcomes)
        storage.get("/masks/", str(tmp_path / "sent"), recursive=True)
        assert_same(alone, tmp_path / "sent")
        assert not [path for path in (tmp_path / "scratch").rglob("*") if path.is_file()]
    assert len(cuts) > 1
    storage.pipe("/masks/2_mask.geojson", b"mine")
    (failed, *_) = sorted(
        outcomes_of(plan, model, client=client, **BESIDE), key=lambda outcome: not outcome.error
    )
    assert "2_mask.geojson: exists already" in str(failed.error)
    assert storage.cat("/masks/2_mask.geojson") == b"mine"


def test_slides_by_url(tmp_path, slides, model, alone, cluster):
    fsspec = pytest.importorskip("fsspec")
    storage = fsspec.filesystem("memory")
    for slide in slides:
        storage.pipe(f"/fleet/{slide.name}", slide.read_bytes())
    plan = plan_outputs(["memory://fleet/"], tmp_path / "together")
    outcomes = outcomes_of(plan, model, client=cluster(2), **BESIDE)
    assert not [outcome.error for outcome in outcomes if outcome.error]
    for path in alone.glob("*.tif"):
        assert path.read_bytes() == (tmp_path / "together" / path.name).read_bytes(), path.name


def test_a_worker_keeps_model_and_slide(tmp_path, slides, model, cluster, monkeypatch):
    def counted(name):
        right, calls = getattr(worker, name), []

        def call(*arguments, **details):
            calls.append(worker.get_worker().address)
            return right(*arguments, **details)

        monkeypatch.setattr(worker, name, call)
        return calls

    opened, loaded, done = map(counted, ("requested", "find_model", "predict_part"))
    client = cluster(2)
    outcomes_of(plan_outputs(slides[2:3], tmp_path / "m.tif"), model, client=client)
    assert len(done) > 4
    assert len(opened) == len(set(opened)) <= 2
    assert sorted(loaded) == sorted(client.nthreads())


def test_a_death_counts_only_where_the_journal_has_not_grown(tmp_path):
    queue, mask = PartQueue([Size(100, 1)]), tmp_path / "m.tif"
    order = Order("nuclei", "0123", Options(), tmp_path)
    told, recorded = [(tmp_path / "s.tif", mask, None)], partial(_recorded, [mask])
    fleet = coordinator.Coordinator(None, order, queue, worker.perform, told, recorded)

    def die(row: int | None) -> list[object]:
        queue.add_worker("w")
        task = queue.take("w")
        fleet._machines["w"] = object()
        fleet._tasks["w"] = coordinator._Given(task, fleet._recorded(task))
        if row is not None:
            with ResumableFile(mask, {"rows": 9}) as file:
                file.stream.write(b"row")
                file.record({"row": row})
        return list(fleet._lose("w"))

    assert not any(die(row) for row in range(5))
    assert not any(die(None) for _ in range(FAILURES - 1))
    ((_, report, ended),) = die(None)
    assert ended
    assert "its workers have died, perhaps for want of memory" in str(report.error)
