"""Files that workers do one by one, as ``map`` would."""

import logging
import shutil
from functools import partial

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from genselfdiff.data.cutting import CutSettings, cut_tiles
from genselfdiff.errors import GsdError, InputError
from genselfdiff.evaluation.evaluate import evaluate
from genselfdiff.evaluation.evaluation_file import write_evaluation
from genselfdiff.fleet import clusters, mapping
from genselfdiff.fleet.mapping import map_on
from genselfdiff.segmenting.many_slides import segment_all
from genselfdiff.segmenting.plan import plan_outputs
from gsd.main import main


@pytest.fixture
def slides(picture, write_slide):
    return [write_slide(picture(300 + 70 * i, 256, seed=i), name=f"{i}.tif") for i in range(4)]


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}


def test_tiles_are_those_of_one_process(tmp_path, slides, cluster):
    settings = CutSettings(mpp=0.5, tile_size=64)
    alone = cut_tiles(slides, tmp_path / "alone", settings)
    shared = partial(map_on, cluster(3))
    together = cut_tiles(slides, tmp_path / "together", settings, mapping=shared)
    assert together == alone
    assert files_of(tmp_path / "together") == files_of(tmp_path / "alone")
    assert len(files_of(tmp_path / "alone")) > 30


def test_the_command_shares_tiles_out(tmp_path, slides, cluster, monkeypatch):
    client = cluster(2)
    monkeypatch.setattr(clusters, "_local", lambda count: client.cluster)
    shutil.copy(slides[0], tmp_path / "damaged.tif")
    with (tmp_path / "damaged.tif").open("r+b") as file:
        file.truncate(5000)
    monkeypatch.chdir(tmp_path)
    names = [*(path.name for path in slides), "damaged.tif"]
    line = ["data", "tiles", *names, "-o", "tiles", "--mpp", "0.5", "--dask", "local:2"]
    ended = CliRunner().invoke(main, line)
    assert ended.exit_code == 1
    assert f"{slides[0]}: " in ended.stdout
    assert "tiles of 4 slides; 1 slide could not be read" in ended.stdout
    assert (tmp_path / "tiles" / "tiles.csv").exists()


def test_objects_of_many_masks_are_those_of_one_process(
    tmp_path, slides, model, cluster, monkeypatch
):
    client = cluster(2)
    monkeypatch.setattr(clusters, "_local", lambda count: client.cluster)
    monkeypatch.chdir(tmp_path)
    how = {"device": "cpu", "geojson": True, "table": True, "labels": True, "probabilities": True}
    outcomes = list(segment_all(plan_outputs(slides, "masks/"), model, **how))
    assert all(outcome.error is None for outcome in outcomes)
    shutil.copy(tmp_path / "masks" / "0_mask.tif", tmp_path / "masks" / "9_mask.tif")
    with (tmp_path / "masks" / "9_mask.tif").open("r+b") as file:
        file.seek(2000)
        file.write(bytes(3000))
    told = []
    for folder, more in (("alone", []), ("together", ["--dask", "local:2"])):
        outputs = [f"--output={folder}", f"--table={folder}", f"--labels={folder}"]
        ended = CliRunner().invoke(main, ["objects", "masks", *outputs, *more])
        assert ended.exit_code == 1
        assert "1 of 5 masks failed: masks/9_mask.tif" in ended.stderr
        told.append(ended.stdout.replace(folder, ""))
    assert told[0] == told[1]
    assert files_of(tmp_path / "alone") == files_of(tmp_path / "together")
    assert len(files_of(tmp_path / "alone")) == 3 * len(slides)
    for name, content in files_of(tmp_path / "alone").items():
        assert content == (tmp_path / "masks" / name).read_bytes(), name


def warn(item):
    logging.getLogger("genselfdiff").warning("%d is odd", item)
    return item


def test_what_workers_warn_of_is_told(cluster, caplog):
    assert list(map_on(cluster(1), warn, [1])) == [1]
    assert [r.module for r in caplog.records if r.getMessage() == "1 is odd"][-1] == "mapping"


def test_a_worker_of_another_version_does_nothing(cluster, monkeypatch):
    results = map_on(cluster(1), refuse, [0])
    monkeypatch.setattr(mapping, "partial", lambda work, version, *rest: partial(work, "9", *rest))
    with pytest.raises(GsdError, match=r"has genselfdiff .* instead of 9"):
        next(results)


def refuse(item):
    if item == 2:
        raise InputError("two is too many")
    return item


def test_an_error_is_raised_where_it_is(cluster):
    results = map_on(cluster(2), refuse, range(4))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(InputError, match="two is too many"):
        next(results)


@pytest.fixture
def fields(tmp_path, picture, monkeypatch):
    """Five images, their classes and numbers of objects, named as from the folder they are in."""
    for folder in ("images", "masks", "instances"):
        (tmp_path / folder).mkdir()
    for seed in range(5):
        image = picture(60 + 20 * seed, 100, seed)
        inside = (image[..., 1] < 128).astype(np.uint8)
        numbers = inside * (np.arange(len(inside), dtype=np.uint8)[:, None] // 30 + 1)
        for folder, pixels in (("images", image), ("masks", inside), ("instances", numbers)):
            Image.fromarray(pixels).save(tmp_path / folder / f"{seed}.png")
    monkeypatch.chdir(tmp_path)
    return "images", "masks"


HOW = {"truth_objects": "instances", "mpp": 0.6, "device": "cpu"}


def test_an_evaluation_is_that_of_one_process(tmp_path, fields, model, cluster):
    client, cases = cluster(2), []
    write_evaluation(tmp_path / "alone.json", evaluate(model, *fields, **HOW))
    together = evaluate(model, *fields, **HOW, client=client, watch=cases.append)
    write_evaluation(tmp_path / "together.json", together)
    assert (tmp_path / "together.json").read_bytes() == (tmp_path / "alone.json").read_bytes()
    assert [case.comparison.scores.name for case in cases] == ["0", "1", "2", "3", "4"]
    assert all(case.image.shape[:2] == case.prediction.shape for case in cases)


def test_an_image_that_does_not_fit_ends_an_evaluation(fields, model, cluster):
    Image.new("L", (5, 5)).save("instances/3.png")
    with pytest.raises(InputError, match=r"3\.png: 5 x 5 pixels, but the image has"):
        evaluate(model, *fields, **HOW, client=cluster(2))


def test_the_command_shares_an_evaluation_out(tmp_path, fields, model, cluster, monkeypatch):
    client = cluster(2)
    monkeypatch.setattr(clusters, "_local", lambda count: client.cluster)
    line = ["evaluate", str(model), "--images", "images", "--masks", "masks", "--mpp", "0.6"]
    line += ["--device", "cpu"]
    told = []
    for name, more in (("alone", []), ("together", ["--dask", "local:2"])):
        files = [f"--{kind}={name}.{kind}" for kind in ("csv", "json", "html")]
        ended = CliRunner().invoke(main, [*line, *files, *more])
        assert ended.exit_code == 0, ended.output
        told.append(ended.stdout)
    assert told[0] == told[1]
    for kind in ("csv", "json", "html"):
        assert (tmp_path / f"alone.{kind}").read_bytes() == (
            tmp_path / f"together.{kind}"
        ).read_bytes()
