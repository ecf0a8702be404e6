"""Several processes on one slide, or on a list of them."""

import csv
import errno
import itertools
import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import genselfdiff
from genselfdiff.errors import InputError, OutputError
from genselfdiff.files import write_once
from genselfdiff.masks import MaskReader, MaskWriter, PyramidShape
from genselfdiff.models.model_file import save_model
from genselfdiff.segmenting import one_slide
from genselfdiff.segmenting.jobs.job import Job
from genselfdiff.segmenting.jobs.mask_description import MaskDescription
from genselfdiff.segmenting.many_slides import segment_all
from genselfdiff.segmenting.options import Options
from genselfdiff.segmenting.plan import plan_outputs
from genselfdiff.segmenting.shards import merge, part
from genselfdiff.segmenting.shards.folder import SharedJob, beside_options, read_job
from genselfdiff.segmenting.shards.merge import find_shared, merge_parts
from genselfdiff.segmenting.shards.part import Shard, share_out
from genselfdiff.text import shell_command

JOB = Job(
    slide="s.tif 0123",
    mpp=None,
    icc=False,
    model="m.ts 4567",
    tile_size=64,
    overlap=0.25,
    region=None,
    tissue=True,
    device="cpu",
    precision="float32",
    tta=1,
    batch_size=1,
    threads=1,
    genselfdiff="0.1.0",
    torch="2.13.0",
    kernels="avx2",
)


@pytest.fixture(autouse=True)
def cut_anywhere(monkeypatch):
    monkeypatch.setattr(part, "_CUT_AT", 32)


@pytest.fixture
def model(tmp_path, conv_net, info):
    save_model(conv_net(kernel=5), info(3, mpp=0.6), tmp_path / "model.ts")
    return tmp_path / "model.ts"


def run(plan, model, index, count, **options):
    options = {"device": "cpu", "precision": "float32"} | options
    outcomes = list(segment_all(plan, model, shard=Shard(index, count), **options))
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    return outcomes


def summary_of(folder):
    """The rows of a folder's table by slide, without the time."""
    with (folder / "summary.csv").open(encoding="utf-8", newline="") as text:
        rows = {row["slide"]: row for row in csv.DictReader(text)}
    assert all(float(row.pop("seconds")) >= 0 for row in rows.values())
    return rows


def test_shares_are_equal_and_complete():
    rng = random.Random(0)
    for _ in range(200):
        sizes = [
            rng.choice([0, 1, 7, 1000, rng.randrange(10**9)]) for _ in range(rng.randint(1, 9))
        ]
        count = rng.randint(1, 12)
        shared = share_out(sizes, count)
        work = [0.0] * count
        for size, pieces in zip(sizes, shared, strict=True):
            assert pieces[0].begin == 0.0
            assert pieces[-1].end == 1.0
            for piece, following in itertools.pairwise(pieces):
                assert piece.end == following.begin
                assert piece.shard < following.shard
            for piece in pieces:
                assert 1 <= piece.shard <= count
                work[piece.shard - 1] += (piece.end - piece.begin) * size
        assert max(work) <= sum(sizes) / count + 1.001
    assert all(len(pieces) == 1 for pieces in share_out([5] * 12, 4))


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("region", [None, (30, 41, 300, 350)])
def test_merged_it_is_what_one_process_makes(tmp_path, picture, write_slide, model, count, region):
    image = picture(500, 400)
    image[:150] = 244
    slide = write_slide(image)
    options = {"region": region, "geojson": True, "overlay": True, "probabilities": True}
    alone, together = tmp_path / "alone", tmp_path / "together"
    for folder in (alone, together):
        folder.mkdir()
    result = genselfdiff.segment(
        slide, alone / "m.tif", model, device="cpu", precision="float32", **options
    )
    plan = plan_outputs([slide], together / "m.tif")
    shares = []
    for index in random.Random(count).sample(range(1, count + 1), count):
        if count > 1:
            with pytest.raises(InputError, match=r"m\.tif: (not finished yet: run|no parts of it)"):
                merge_parts(together / "m.tif")
        (outcome,) = run(plan, model, index, count, **options)
        shares.append(outcome.result)
    if count > 1:
        assert shares[-1].missing == 0
        assert f"gsd merge {shell_command([together / 'm.tif'])}" in shares[-1].summary()
        assert find_shared([together]) == {together / "m.tif": None}
        merge_parts(together / "m.tif")
    assert result.tiles > count
    assert {path.name for path in alone.iterdir()} == {path.name for path in together.iterdir()}
    for path in alone.iterdir():
        assert path.read_bytes() == (together / path.name).read_bytes(), path.name
    assert len(np.unique(image)) > 1


def test_a_list_is_cut_between_slides_where_it_can(tmp_path, picture, write_slide, model):
    slides = [write_slide(picture(160, 200, seed=i), name=f"{i}.tif") for i in range(5)]
    list(
        segment_all(plan_outputs(slides, tmp_path / "a"), model, precision="float32", device="cpu")
    )
    plan = plan_outputs(slides, tmp_path / "b")
    done = [len(run(plan, model, index, 2)) for index in (2, 1)]
    assert done == [3, 3]
    assert find_shared([tmp_path / "b"]) == {tmp_path / "b" / "2_mask.tif": None}
    merge_parts(tmp_path / "b" / "2_mask.tif")
    for path in (tmp_path / "a").glob("*_mask.tif"):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    alone, together = summary_of(tmp_path / "a"), summary_of(tmp_path / "b")
    assert len(alone) == 5
    assert together == alone
    assert [outcome.result.missing for outcome in run(plan, model, 1, 2)[2:]] == [0]


@pytest.mark.parametrize("setting", [{"region": (20, 20, 100, 100)}, {"mpp": 0.51}])
def test_all_shards_name_every_setting(tmp_path, picture, write_slide, model, setting):
    plan = plan_outputs([write_slide(picture(300, 200))], tmp_path / "m.tif")
    run(plan, model, 1, 2, **setting)
    with pytest.raises(
        OutputError, match=f"was begun with {next(iter(setting))} .* instead of None"
    ):
        run(plan, model, 2, 2)


def test_a_summary_of_somebody_else_keeps_the_parts(tmp_path, picture, write_slide, model):
    slide = write_slide(picture(300, 200))
    plan = plan_outputs([slide], f"{tmp_path}/masks/")
    for index in (1, 2):
        run(plan, model, index, 2)
    (mask,) = find_shared([tmp_path / "masks"])
    summary = tmp_path / "masks" / "summary.csv"
    summary.write_text("name\na\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"summary\.csv: is no summary that gsd has written"):
        merge_parts(mask)
    summary.unlink()
    merge_parts(mask)
    assert list(summary_of(tmp_path / "masks")) == [str(slide)]


def test_what_lies_beside_a_mask_is_made_when_it_is_merged(tmp_path, picture, write_slide, model):
    slide = write_slide(picture(300, 200))
    wanted = dict.fromkeys(("geojson", "table", "labels", "instances", "report", "overlay"), True)
    one = plan_outputs([slide], tmp_path / "one.tif")
    list(segment_all(one, model, precision="float32", device="cpu", **wanted))
    plan = plan_outputs([slide], tmp_path / "m.tif")
    for index in (1, 2):
        run(plan, model, index, 2, **wanted)
    merge_parts(tmp_path / "m.tif")
    assert not (tmp_path / "summary.csv").exists()
    for end in (".geojson", "_objects.csv", "_instances.tif", "_overlay.png"):
        assert (tmp_path / f"m{end}").read_bytes() == (tmp_path / f"one{end}").read_bytes()
    assert "made by an earlier run" in (tmp_path / "m.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("options", [{"min_area": 50.0}, {"geojson": True}])
def test_beside_a_finished_mask_shards_make_nothing(tmp_path, picture, write_slide, model, options):
    plan = plan_outputs([write_slide(picture(300, 200))], tmp_path / "m.tif")
    for index in (1, 2):
        run(plan, model, index, 2, table=True)
    merge_parts(tmp_path / "m.tif")
    assert run(plan, model, 1, 2, table=True)[0].result.missing == 0
    with pytest.raises(OutputError, match="repeat the command without --shard"):
        run(plan, model, 1, 2, **{"table": True} | options)
    list(segment_all(plan, model, device="cpu", precision="float32", **{"table": True} | options))
    assert run(plan, model, 1, 2, **{"table": True} | options)[0].result.missing == 0


def test_shards_obey_the_first(tmp_path, picture, write_slide, model, monkeypatch):
    slide = write_slide(picture(300, 200))
    plan = plan_outputs([slide], tmp_path / "m.tif")
    run(plan, model, 2, 3, tile_size=32, precision="bfloat16")
    with pytest.raises(OutputError, match=r"m\.tif\.shards: was begun with tile size 32 instead"):
        run(plan, model, 1, 3, precision="bfloat16")
    with pytest.raises(OutputError, match="was begun with precision bfloat16 instead of float32"):
        run(plan, model, 1, 3, tile_size=32)
    with pytest.raises(OutputError, match="was begun with shards 3 instead of 4"):
        run(plan, model, 1, 4, tile_size=32, precision="bfloat16")
    with pytest.raises(OutputError, match="was begun with geojson False instead of True"):
        run(plan, model, 1, 3, tile_size=32, precision="bfloat16", geojson=True)
    used = []
    right = one_slide.Predictor.obey
    monkeypatch.setattr(
        one_slide.Predictor, "obey", lambda self, *job: used.append(job) or right(self, *job)
    )
    run(plan, model, 1, 3, tile_size=32, precision="auto")
    assert used == [("bfloat16", 1)]
    shutil.rmtree(tmp_path / "m.tif.shards")
    run(plan, model, 1, 3)


def test_another_machine_is_told(tmp_path, picture, write_slide, model, monkeypatch, caplog):
    slide = write_slide(picture(300, 200))
    plan = plan_outputs([slide], tmp_path / "m.tif")
    run(plan, model, 1, 2)
    monkeypatch.setattr(torch, "__version__", "2.99")
    run(plan, model, 2, 2)
    assert "torch 2.99 here" in caplog.text
    merge_parts(tmp_path / "m.tif")


@pytest.fixture
def half(tmp_path, picture, write_slide, model):
    """A slide of which the first of two parts is there, with an overlay to come."""
    slide = write_slide(picture(300, 200))
    plan = plan_outputs([slide], tmp_path / "m.tif")
    run(plan, model, 1, 2, overlay=True)
    return plan


def test_the_folder_holds_the_job_and_the_parts_only(tmp_path, half):
    names = {path.name for path in (tmp_path / "m.tif.shards").iterdir()}
    assert names == {"job.json", "part-1.tif"}


def test_without_hard_links(tmp_path, picture, write_slide, model, monkeypatch):
    def refuse(source, target):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(source), None, str(target))

    monkeypatch.setattr(os, "link", refuse)
    assert write_once(tmp_path / "a", "1")
    assert not write_once(tmp_path / "a", "2")
    assert (tmp_path / "a").read_text() == "1"
    plan = plan_outputs([write_slide(picture(300, 200))], tmp_path / "m.tif")
    for index in (1, 2):
        run(plan, model, index, 2)
    merge_parts(tmp_path / "m.tif")


def test_a_merge_that_was_stopped_while_it_tidied_up(tmp_path, half, model, monkeypatch):
    run(half, model, 2, 2, overlay=True)
    right = os.unlink

    def stop(path, **where):
        right(path, **where)
        if where:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", stop)
        with pytest.raises(KeyboardInterrupt):
            merge_parts(tmp_path / "m.tif")
    merge_parts(tmp_path / "m.tif")
    assert not (tmp_path / "m.tif.shards").exists()
    (outcome,) = run(half, model, 1, 2, overlay=True)
    assert "gsd merge" not in outcome.result.summary()


def test_two_merges_at_once(tmp_path, half, model, monkeypatch):
    run(half, model, 2, 2, overlay=True)
    monkeypatch.setattr(merge, "write_beside", lambda *_, **__: merge_again())

    def merge_again():
        monkeypatch.undo()
        merge_parts(tmp_path / "m.tif")

    merge_parts(tmp_path / "m.tif")
    assert (tmp_path / "m_overlay.png").exists()
    assert not (tmp_path / "m.tif.shards").exists()


def test_parts_of_another_job_do_not_count(tmp_path, half, model):
    run(half, model, 2, 2, overlay=True)
    (tmp_path / "m.tif.shards" / "job.json").unlink()
    run(half, model, 1, 2, overlay=True, tta=2)
    with pytest.raises(InputError, match=r"not finished yet: run gsd segment with --shard 2/2"):
        merge_parts(tmp_path / "m.tif")
    run(half, model, 2, 2, overlay=True, tta=2)
    merge_parts(tmp_path / "m.tif")


def test_a_mask_that_one_process_has_begun_is_not_shared_out(
    tmp_path, picture, write_slide, model, monkeypatch
):
    plan = plan_outputs([write_slide(picture(600, 80))], tmp_path / "m.tif")

    def stop(band):
        if (tmp_path / ".m.tif.journal").exists():
            raise KeyboardInterrupt
        return right(band)

    right = one_slide.labels_of
    with monkeypatch.context() as patch:
        patch.setattr("genselfdiff.masks.pyramid_writer.RECORD_SECONDS", 0.0)
        patch.setattr(one_slide, "labels_of", stop)
        with pytest.raises(KeyboardInterrupt):
            list(segment_all(plan, model, device="cpu", precision="float32"))
    with pytest.raises(OutputError, match=r"a run without --shard has begun it: .* delete .*part"):
        run(plan, model, 1, 2)
    (tmp_path / ".m.tif.partial").unlink()
    for index in (1, 2):
        run(plan, model, index, 2)
    merge_parts(tmp_path / "m.tif")


def test_merged_from_another_folder(tmp_path, picture, write_slide, model, monkeypatch):
    slide = write_slide(picture(300, 200))
    (tmp_path / "work").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    plan = plan_outputs([slide], "m.tif")
    for index in (1, 2):
        run(plan, model, index, 2, overlay="drawn.png")
    monkeypatch.chdir(tmp_path / "elsewhere")
    merge_parts(tmp_path / "work" / "m.tif")
    assert {path.name for path in (tmp_path / "work").iterdir()} == {"m.tif", "drawn.png"}


def test_merged_without_its_slide(tmp_path, half, model):
    run(half, model, 2, 2, overlay=True)
    slide = half.pairs[0][0]
    slide.rename(tmp_path / "moved.tif")
    with pytest.raises(InputError, match=r"slide\.tif: is not there.*repeat gsd merge"):
        merge_parts(tmp_path / "m.tif")
    (tmp_path / "moved.tif").rename(slide)
    merge_parts(tmp_path / "m.tif")
    assert (tmp_path / "m_overlay.png").exists()


def test_merging_takes_away_only_what_shards_have_left(tmp_path, half, model, caplog):
    run(half, model, 2, 2, overlay=True)
    folder, mine = tmp_path / "m.tif.shards", tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis").write_text("precious")
    (folder / "notes.txt").write_text("mine")
    (folder / "part-3.tif").symlink_to(mine / "thesis")
    (folder / "part-4.tif").mkdir()
    (folder / ".part-5.tif.partial").write_bytes(b"of a killed run")
    (folder / ".job.json.gsd-0.json").write_bytes(b"of a killed run")
    merge_parts(tmp_path / "m.tif")
    assert {path.name for path in folder.iterdir()} == {"notes.txt", "part-3.tif", "part-4.tif"}
    assert "stays, for what is not of gsd: " in caplog.text
    assert (mine / "thesis").read_text() == "precious"
    assert find_shared([tmp_path / "m.tif"]) == {tmp_path / "m.tif": None}  # for what is left there
    assert find_shared([tmp_path]) == {}


def test_a_folder_of_parts_is_no_link(tmp_path, half, model):
    folder, elsewhere = tmp_path / "m.tif.shards", tmp_path / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    before = {path.name for path in elsewhere.iterdir()}
    with pytest.raises(OutputError, match=r"m\.tif\.shards: is a link"):
        run(half, model, 2, 2, overlay=True)
    with pytest.raises(OutputError, match=r"m\.tif\.shards: is a link"):
        merge_parts(tmp_path / "m.tif")
    assert {path.name for path in elsewhere.iterdir()} == before


def test_of_shards_everything_lies_beside_the_mask(tmp_path, picture, write_slide, model):
    plan = plan_outputs([write_slide(picture(300, 200))], tmp_path / "m.tif")
    (tmp_path / "elsewhere").mkdir()
    for name in ("elsewhere/drawn.png", "elsewhere/../elsewhere/a.png", "-drawn.png"):
        with pytest.raises(InputError, match=rf"{name}: of shards, it has to lie beside the mask"):
            run(plan, model, 1, 2, overlay=tmp_path / name)
    assert not (tmp_path / "m.tif.shards").exists()


def changed_job(folder: Path, *keys: str, value: object) -> None:
    """Write a job with another value at a place in it."""
    content = json.loads((folder / "job.json").read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    (folder / "job.json").write_text(json.dumps(content))


HOSTILE = [
    (("options", "overlay"), "../mine/new.png"),
    (("options", "overlay"), "/tmp/gsd-new.png"),
    (("options", "overlay"), ".."),
    (("options", "overlay"), ".hidden.png"),
    (("options", "overlay"), ["a.png"]),
    (("options", "table"), "../mine/new.csv"),
    (("options", "table"), 1),
    (("options", "on_error"), "ask"),
    (("options", "min_area"), "0"),
    (("options", "min_area"), -1.0),
    (("options", "min_area"), float("nan")),
    (("options", "geojson"), 1),
    (("options", "colour"), "red"),
    (("slide",), None),
    (("listed",), 3),
    (("classes",), True),
    (("classes",), 10**9),
    (("shards",), 0),
    (("parts",), {}),
    (("parts",), {"1": [0, 200], "2": [100, 300]}),
    (("parts",), {"1": [0, 100], "2": [200, 300]}),
    (("parts", "1"), [0]),
    (("parts", "1"), [0.0, 100.0]),
    (("parts", "../../1"), [300, 301]),
    (("parts", "3"), [300, 301]),
    (("parts", "-1"), [300, 301]),
    (("told", "scale"), "1"),
    (("told", "tiles"), None),
    (("told", "job"), {}),
    (("told", "job", "precision"), "float8"),
    (("told", "job", "threads"), -1),
    (("told", "job", "batch size"), "x"),
    (("told", "job", "region"), [0, 0, 1]),
    (("told", "job", "slide"), 3),
]


@pytest.mark.parametrize(("keys", "value"), HOSTILE)
def test_jobs_that_somebody_has_changed(tmp_path, keys, value):
    shared = SharedJob(
        slide="/slides/s.tif",
        listed=None,
        classes=3,
        shards=2,
        parts={1: (0, 160), 2: (160, 300)},
        options=beside_options(Options(overlay=True), tmp_path / "m.tif"),
        description=MaskDescription(tiles=3, skipped=0, scale=1.2, job=JOB),
    )
    (tmp_path / "job.json").write_text(json.dumps(shared.as_json()))
    assert read_job(tmp_path) == shared
    changed_job(tmp_path, *keys, value=value)
    with pytest.raises(InputError, match=r"job\.json: is no job of this version.* delete "):
        read_job(tmp_path)


@pytest.fixture
def whole(tmp_path, half, model):
    run(half, model, 2, 2, overlay=True)
    return tmp_path / "m.tif.shards"


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("parts",), {"1": [0, 160], "2": [160, 10**9]}),
        (("classes",), 2),
        (("told", "job", "region"), [0, 0, 10**9, 300]),
        (("told", "job", "region"), [10, -20, 100, 100]),
        (("told", "job", "region"), [10, 10, 100, 100]),
    ],
)
def test_jobs_that_do_not_fit_their_parts(tmp_path, whole, keys, value):
    changed_job(whole, *keys, value=value)
    job = json.loads((whole / "job.json").read_text())
    for index, rows in job["parts"].items():  # as if all of it came from one hand
        with MaskReader(whole / f"part-{index}.tif") as reader:
            told = reader.description | {"job": job["told"]["job"] | {"rows": rows}}
            bands = list(reader.bands())
            shape = PyramidShape(reader.width, reader.height, reader.mpp)
            looks = {"palette": reader.palette[:3], "class_names": reader.class_names}
        with MaskWriter(whole / f"part-{index}.tif", shape, description=told, **looks) as writer:
            for band in bands:
                writer.push(band[None])
    with pytest.raises(InputError, match=r"its parts do not fit its job\.json"):
        merge_parts(tmp_path / "m.tif")
    assert not (tmp_path / "m.tif").exists()


@pytest.mark.parametrize("named", ["/", ".", "other/slide.tif", "pipe/slide.tif"])
def test_a_job_shows_no_other_slide(tmp_path, whole, named):
    for name in ("other", "pipe"):
        (tmp_path / name).mkdir()
    (tmp_path / "other" / "slide.tif").write_bytes(b"somebody else's")
    os.mkfifo(tmp_path / "pipe" / "slide.tif")
    changed_job(whole, "slide", value=str(tmp_path / named))
    with pytest.raises(InputError, match="is not there, or another slide by now"):
        merge_parts(tmp_path / "m.tif")
    assert not (tmp_path / "m_overlay.png").exists()


def test_an_output_of_a_job_is_not_its_slide(tmp_path, whole):
    changed_job(whole, "slide", value=str(tmp_path / "m_overlay.png"))
    with pytest.raises(OutputError, match=r"m_overlay\.png: is an input of this run"):
        merge_parts(tmp_path / "m.tif")


@pytest.mark.parametrize(
    "content", [" " * 2**20 + "{}", "[" * 10**5, "", "[1]", '{"told": {"job": {}}}', '{"told": 3}']
)
def test_jobs_that_are_none(tmp_path, half, model, content, monkeypatch):
    monkeypatch.setattr("genselfdiff.segmenting.shards.folder._PATIENCE", 1)
    (tmp_path / "m.tif.shards" / "job.json").write_text(content)
    with pytest.raises(InputError, match=r"job\.json: .* delete .*m\.tif\.shards to start anew"):
        merge_parts(tmp_path / "m.tif")
    with pytest.raises(InputError, match=r"job\.json: "):
        run(half, model, 2, 2, overlay=True)


def test_nothing_to_merge(tmp_path):
    with pytest.raises(InputError, match="neither masks nor parts of them in it"):
        find_shared([tmp_path])
    with pytest.raises(InputError, match=r"m\.tif: no parts of it"):
        merge_parts(tmp_path / "m.tif")
