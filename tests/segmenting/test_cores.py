"""Models that tell cores of objects, through the engine and into all files."""

import csv
import json
import random
from functools import partial

import numpy as np
import pytest
import tifffile
import torch

import genselfdiff
from genselfdiff.errors import InputError, OutputError
from genselfdiff.inference.predictor import Predictor
from genselfdiff.masks import MaskReader, MaskWriter, PyramidShape, pyramid_writer
from genselfdiff.models.model_file import load_model, save_model
from genselfdiff.objects import write_objects
from genselfdiff.segmenting import one_slide
from genselfdiff.segmenting.many_slides import segment_all
from genselfdiff.segmenting.plan import plan_outputs
from genselfdiff.segmenting.shards import part as sharding
from genselfdiff.segmenting.shards.merge import merge_parts
from genselfdiff.segmenting.shards.part import Shard


@pytest.fixture
def slide(cells, write_slide):
    return write_slide(cells(300, 420))


def run(slide, mask, model, **options):
    return genselfdiff.segment(
        slide, mask, model, **({"device": "cpu", "precision": "float32"} | options)
    )


def planes(mask):
    with MaskReader(mask) as reader:
        assert reader.has_cores
        return np.concatenate(list(reader.stacks(0, reader.height, cores=True)), axis=1)


def expected(image):
    """Classes, and cores, that the model tells of the pixels themselves."""
    dark = image < 128
    return np.stack((dark[..., 1], dark[..., 0] & dark[..., 1])).astype(np.uint8)


def test_classes_and_cores_are_those_of_the_pixels(tmp_path, cells, slide, cells_model):
    image = cells(300, 420)
    result = run(slide, tmp_path / "m.tif", cells_model, probabilities=True, tissue=False)
    wanted = expected(image)
    np.testing.assert_array_equal(planes(tmp_path / "m.tif"), wanted)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "m.tif"), wanted[0])
    assert tifffile.imread(tmp_path / "m_probabilities.tif").shape[0] == 2
    assert result.pixels["nucleus"] == np.count_nonzero(wanted[0])


def test_no_core_lies_outside_a_class(tmp_path, slide, info):
    class Everywhere(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(20.0))

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            green = self.scale * x[:, 1:2]
            return torch.cat((green, -green, 0 * green, 0 * green + 9), dim=1)

    save_model(Everywhere(), info(instances=True), tmp_path / "model.ts")
    run(slide, tmp_path / "m.tif", tmp_path / "model.ts", tissue=False)
    classes, cores = planes(tmp_path / "m.tif")
    assert 0 < np.count_nonzero(classes) < classes.size
    np.testing.assert_array_equal(cores, classes)


@pytest.mark.parametrize("region", [None, (65, 30, 200, 220)])
def test_a_killed_run_goes_on_to_the_same_file(tmp_path, slide, cells_model, monkeypatch, region):
    options = {"region": region, "overlap": 0.5}
    run(slide, tmp_path / "whole.tif", cells_model, **options)
    right, left = one_slide.labels_of, iter(range(40))

    def stop(block):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return right(block)

    with monkeypatch.context() as patch:
        patch.setattr(pyramid_writer, "RECORD_SECONDS", 0.0)
        patch.setattr(one_slide, "labels_of", stop)
        # Rows of so small tiles end before one of the mask's tiles is full.
        patch.setattr(one_slide, "PyramidShape", partial(PyramidShape, tile=16))
        with pytest.raises(KeyboardInterrupt):
            run(slide, tmp_path / "m.tif", cells_model, **options)
        assert (tmp_path / ".m.tif.journal").exists()
        patch.setattr(one_slide, "labels_of", right)
        run(slide, tmp_path / "m.tif", cells_model, **options)
    np.testing.assert_array_equal(planes(tmp_path / "m.tif"), planes(tmp_path / "whole.tif"))


def test_a_region_has_the_cores_of_the_whole(tmp_path, slide, cells_model):
    run(slide, tmp_path / "whole.tif", cells_model, mpp=0.3)
    run(slide, tmp_path / "part.tif", cells_model, mpp=0.3, region=(33, 70, 200, 101))
    whole, part = planes(tmp_path / "whole.tif"), planes(tmp_path / "part.tif")
    wanted = np.zeros_like(whole)
    wanted[:, 70:171, 33:233] = whole[:, 70:171, 33:233]
    np.testing.assert_array_equal(part, wanted)
    assert part[1].any()


def test_tiles_are_multiples_of_what_the_network_sees(tmp_path, slide, info):
    class Halved(torch.nn.Module):
        size_multiple = 32

        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(20.0))

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            assert x.shape[2] % 32 == 0 and x.shape[3] % 32 == 0
            green = self.scale * x[:, 1:2]
            return torch.cat((green, -green), dim=1)

    save_model(Halved(), info(size_multiple=32), tmp_path / "model.ts")
    run(slide, tmp_path / "m.tif", tmp_path / "model.ts", overlap=0.3)
    with pytest.raises(InputError, match="tile size 72 must be a positive multiple of 32"):
        run(slide, tmp_path / "n.tif", tmp_path / "model.ts", tile_size=72)


@pytest.mark.parametrize(("shift", "chosen"), [(0, "bfloat16"), (3, "float32")])
def test_bfloat16_has_to_find_the_same_cores(
    tmp_path, cells, cells_model, monkeypatch, shift, chosen
):
    monkeypatch.setattr("genselfdiff.inference.predictor.has_fast_bfloat16", lambda device: True)
    predictor = Predictor(load_model(cells_model, "cpu"), "auto")
    right = predictor._run

    def other(precision, pixels, *turns):
        found = right(precision, pixels, *turns)
        moved = torch.roll(found[:, 2:], shift if precision == "bfloat16" else 0, 2)
        return torch.cat((found[:, :2], moved), 1)

    monkeypatch.setattr(predictor, "_run", other)
    tile = torch.from_numpy(cells(64, 64).copy()).permute(2, 0, 1)[None]
    predictor.choose_precision([tile] * 8)
    assert predictor.precision == chosen


FILES = {"geojson": ".geojson", "table": "_objects.csv", "labels": "_instances.tif"}


def test_pairs_are_told_apart_in_all_files_and_later_as_in_the_run(tmp_path, slide, cells_model):
    mask = tmp_path / "m.tif"
    result = run(slide, mask, cells_model, report=True, **dict.fromkeys(FILES, True))
    # 8 rows of 7 pairs, of which the last row and the last column are cut.
    assert result.objects == {"nucleus": 2 * 8 * 7}
    with (tmp_path / "m_objects.csv").open() as text:
        rows = list(csv.DictReader(text))
    assert len(rows) == 112
    features = json.loads((tmp_path / "m.geojson").read_bytes())["features"]
    assert {feature["properties"]["objectType"] for feature in features} == {"detection"}
    numbers = tifffile.imread(tmp_path / "m_instances.tif")
    np.testing.assert_array_equal(numbers != 0, planes(mask)[0] != 0)
    assert len(np.unique(numbers)) == len(features) + 1 == 113
    left, right = numbers[20, 15], numbers[20, 45]
    assert 0 != left != right != 0
    np.testing.assert_array_equal(numbers[20, 11:50], [left] * 20 + [right] * 19)
    assert "between the cores that the model tells" in (tmp_path / "m.html").read_text()
    again = {kind: tmp_path / f"again{end}" for kind, end in FILES.items()}
    assert write_objects(mask, **again).counts == result.objects
    for kind, end in FILES.items():
        assert again[kind].read_bytes() == (tmp_path / f"m{end}").read_bytes()


def test_without_more_options_the_table_is_written(tmp_path, slide, cells_model, darkness_model):
    run(slide, tmp_path / "m.tif", cells_model)
    run(slide, tmp_path / "not.tif", cells_model, instances=False)
    run(slide, tmp_path / "other.tif", darkness_model)
    assert sorted(path.name for path in tmp_path.glob("*.csv")) == ["m_objects.csv"]


def test_taken_apart_otherwise_they_are_made_again(tmp_path, slide, cells_model):
    mask = tmp_path / "m.tif"
    counts = [
        run(slide, mask, cells_model, geojson=True, **options).objects["nucleus"]
        for options in ({}, {"instances": False}, {"seed_distance": 20.0}, {"instances": True})
    ]
    assert counts == [112, 56, 56, 112]
    with pytest.raises(OutputError, match=r"m\.tif: exists already"):
        run(slide, mask, cells_model, overlap=0.5)


@pytest.mark.parametrize("region", [None, (30, 41, 300, 210)])
def test_merged_it_is_what_one_process_makes(tmp_path, slide, cells_model, monkeypatch, region):
    monkeypatch.setattr(sharding, "_CUT_AT", 32)
    options = {"region": region, "mpp": 0.4, "geojson": True, "labels": True}
    alone, together = tmp_path / "alone", tmp_path / "together"
    for folder in (alone, together):
        folder.mkdir()
    run(slide, alone / "m.tif", cells_model, **options)
    plan = plan_outputs([slide], together / "m.tif")
    for index in random.Random(0).sample(range(1, 4), 3):
        for outcome in segment_all(
            plan, cells_model, shard=Shard(index, 3), device="cpu", precision="float32", **options
        ):
            assert outcome.error is None
    merge_parts(together / "m.tif")
    assert {path.name for path in alone.iterdir()} == {path.name for path in together.iterdir()}
    for path in alone.iterdir():
        assert path.read_bytes() == (together / path.name).read_bytes(), path.name
    assert planes(together / "m.tif")[1].any()


def test_a_part_without_cores_is_none_of_it(tmp_path, slide, cells_model, monkeypatch):
    monkeypatch.setattr(sharding, "_CUT_AT", 32)
    plan = plan_outputs([slide], tmp_path / "m.tif")
    for index in (1, 2):
        shared = {"shard": Shard(index, 2), "device": "cpu", "precision": "float32"}
        assert [o.error for o in segment_all(plan, cells_model, **shared)] == [None]
    part = tmp_path / "m.tif.shards" / "part-2.tif"
    with MaskReader(part) as reader:
        told, labels = reader.description, np.concatenate(list(reader.bands()))
        shape = PyramidShape(reader.width, reader.height, reader.mpp)
    del told["cores"]
    names = told["classes"]
    palette = [(0, 0, 0)] * len(names)
    with MaskWriter(part, shape, palette=palette, class_names=names, description=told) as writer:
        writer.write_rows(labels)
    with pytest.raises(InputError, match=r"its parts do not fit its job\.json"):
        merge_parts(tmp_path / "m.tif")
