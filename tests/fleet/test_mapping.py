"""Files that workers do one by one, as ``map`` would."""

import shutil
from functools import partial

import pytest
from click.testing import CliRunner

from genselfdiff.data.cutting import CutSettings, cut_tiles
from genselfdiff.errors import InputError
from genselfdiff.fleet import clusters
from genselfdiff.fleet.mapping import map_on
from gsd.main import main


@pytest.fixture
def slides(picture, write_slide):
    return [write_slide(picture(300 + 70 * i, 256, seed=i), name=f"{i}.tif") for i in range(4)]


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}


def test_tiles_are_those_of_one_process(tmp_path, slides, cluster):
    settings = CutSettings(mpp=0.5, tile_size=64)
    alone = cut_tiles(slides, tmp_path / "alone", settings)
    mapping = partial(map_on, cluster(3))
    together = cut_tiles(slides, tmp_path / "together", settings, mapping=mapping)
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
    assert "tiles of 4 slides; 1 slides could not be read" in ended.stdout
    assert (tmp_path / "tiles" / "tiles.csv").exists()


def refuse(item):
    if item == 2:
        raise InputError("two is too many")
    return item


def test_an_error_is_raised_where_it_is(cluster):
    results = map_on(cluster(2), refuse, range(4))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(InputError, match="two is too many"):
        next(results)
