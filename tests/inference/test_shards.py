"""Several processes on one slide, or on a list of them."""

import itertools
import random
import shutil

import numpy as np
import pytest
import torch

import genselfdiff
from genselfdiff.errors import InputError, OutputError
from genselfdiff.inference import engine, shards
from genselfdiff.inference.many import plan_outputs, segment_all
from genselfdiff.inference.model_file import save_model
from genselfdiff.inference.shards import Shard, find_shared, merge_parts, share_out


@pytest.fixture(autouse=True)
def cut_anywhere(monkeypatch):
    monkeypatch.setattr(shards, "_CUT_AT", 32)


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
        assert "gsd merge" in shares[-1].summary()
        assert find_shared([together]) == [together / "m.tif"]
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
    assert find_shared([tmp_path / "b"]) == [tmp_path / "b" / "2_mask.tif"]
    merge_parts(tmp_path / "b" / "2_mask.tif")
    for path in (tmp_path / "a").glob("*_mask.tif"):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert [outcome.result.missing for outcome in run(plan, model, 1, 2)[2:]] == [0]


def test_what_lies_beside_a_mask_is_made_when_it_is_merged(tmp_path, picture, write_slide, model):
    slide = write_slide(picture(300, 200))
    wanted = {"geojson": True, "table": True, "instances": True, "report": True, "overlay": True}
    one = plan_outputs([slide], tmp_path / "one.tif")
    list(segment_all(one, model, precision="float32", device="cpu", **wanted))
    plan = plan_outputs([slide], tmp_path / "m.tif")
    for index in (1, 2):
        run(plan, model, index, 2, **wanted)
    merge_parts(tmp_path / "m.tif")
    for end in (".geojson", "_objects.csv", "_overlay.png"):
        assert (tmp_path / f"m{end}").read_bytes() == (tmp_path / f"one{end}").read_bytes()
    assert "made by an earlier run" in (tmp_path / "m.html").read_text(encoding="utf-8")


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
    right = engine.Predictor.obey
    monkeypatch.setattr(
        engine.Predictor, "obey", lambda self, *job: used.append(job) or right(self, *job)
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


def test_nothing_to_merge(tmp_path):
    with pytest.raises(InputError, match="no parts of masks in it"):
        find_shared([tmp_path])
    with pytest.raises(InputError, match=r"m\.tif: no parts of it"):
        merge_parts(tmp_path / "m.tif")
