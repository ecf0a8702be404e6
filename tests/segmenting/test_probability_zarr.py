"""Probabilities as OME-Zarr: the numbers of the TIFF, whole or not at all."""

import json
import os
import shutil

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from genselfdiff.errors import InputError, OutputError
from genselfdiff.segmenting.many_slides import segment_all
from genselfdiff.segmenting.one_slide import segment
from genselfdiff.segmenting.plan import plan_outputs
from genselfdiff.segmenting.shards.merge import merge_parts
from genselfdiff.segmenting.shards.part import Shard
from genselfdiff.slides import find_slides
from gsd.main import main

NAME = "m_probabilities.ome.zarr"
WANTED = {"probabilities": True, "zarr": True, "tissue": False, "device": "cpu"}


@pytest.fixture
def slide(picture, write_slide):
    return write_slide(picture(700, 900), mpp=0.5)


def levels_of(folder):
    """The levels as the zarr package reads them."""
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(folder, mode="r")
    image = group.attrs["multiscales"][0]
    return image, [np.asarray(group[level["path"]]) for level in image["datasets"]]


def pages_of(path):
    with tifffile.TiffFile(path) as file:
        return [page.asarray() for page in file.pages]


def same_as_the_tiff(folder):
    image, levels = levels_of(folder / NAME)
    pages = pages_of(folder / "m_probabilities.tif")
    assert len(levels) == len(pages) > 1
    for level, page in zip(levels, pages, strict=True):
        np.testing.assert_array_equal(level, page)
    return image


def test_it_holds_what_the_tiff_holds(tmp_path, slide, darkness_model):
    segment(slide, tmp_path / "m.tif", darkness_model, **WANTED)
    image = same_as_the_tiff(tmp_path)
    axes = [(axis["name"], axis["type"], axis.get("unit")) for axis in image["axes"]]
    assert axes == [
        ("c", "channel", None),
        ("y", "space", "micrometer"),
        ("x", "space", "micrometer"),
    ]
    scales = [each["coordinateTransformations"][0]["scale"] for each in image["datasets"]]
    assert scales[:2] == [[1, 0.5, 0.5], [1, 1, 1]]
    told = json.loads((tmp_path / NAME / ".zattrs").read_text())
    channels = [(channel["label"], channel["color"]) for channel in told["omero"]["channels"]]
    assert channels == [("background", "000000"), ("nucleus", "FF0000")]
    found = [path.suffix for path in find_slides([tmp_path])]
    assert ".zarr" not in found, "it is no slide"


def test_ome_zarr_py_reads_it(tmp_path, slide, darkness_model):
    reader = pytest.importorskip("ome_zarr.reader")
    location = pytest.importorskip("ome_zarr.io")
    segment(slide, tmp_path / "m.tif", darkness_model, **WANTED)
    (node, *_) = list(reader.Reader(location.parse_url(tmp_path / NAME))())
    for level, page in zip(node.data, pages_of(tmp_path / "m_probabilities.tif"), strict=True):
        np.testing.assert_array_equal(np.asarray(level), page)
    assert node.metadata["channel_names"] == ["background", "nucleus"]


def test_of_a_region_all_else_is_nothing(tmp_path, slide, darkness_model):
    segment(slide, tmp_path / "m.tif", darkness_model, region=(300, 310, 200, 150), **WANTED)
    same_as_the_tiff(tmp_path)
    assert len(list((tmp_path / NAME / "0/0").rglob("*/*"))) == 1, "what is 0 takes no room"


def test_shards_make_it_too(tmp_path, slide, darkness_model):
    plan = plan_outputs([slide], tmp_path / "m.tif")
    for index in (1, 2):
        list(segment_all(plan, darkness_model, shard=Shard(index, 2), **WANTED))
    merge_parts(tmp_path / "m.tif")
    same_as_the_tiff(tmp_path)


def test_it_is_made_once(tmp_path, slide, darkness_model):
    segment(slide, tmp_path / "m.tif", darkness_model, **WANTED)
    before = (tmp_path / NAME).stat().st_ino
    again = segment(slide, tmp_path / "m.tif", darkness_model, **WANTED)
    assert again.finished_before
    assert (tmp_path / NAME).stat().st_ino == before
    shutil.rmtree(tmp_path / NAME)
    again = segment(slide, tmp_path / "m.tif", darkness_model, **WANTED)
    assert again.finished_before
    same_as_the_tiff(tmp_path)
    with pytest.raises(OutputError, match="exists already"):
        segment(slide, tmp_path / "m.tif", darkness_model, tta=2, **WANTED)
    told = tmp_path / NAME / ".zattrs"
    (tmp_path / "m.tif").unlink()
    told.write_text(told.read_text().replace('"overlap": ', '"overlap": 1'))
    with pytest.raises(OutputError, match=r"ome\.zarr: exists already, and was made otherwise"):
        segment(slide, tmp_path / "m.tif", darkness_model, **WANTED)
    segment(slide, tmp_path / "m.tif", darkness_model, overwrite=True, **WANTED)
    same_as_the_tiff(tmp_path)


def test_what_is_not_ours_stays(tmp_path, slide, darkness_model):
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "mine").touch()
    with pytest.raises(OutputError, match=r"ome\.zarr: exists already"):
        segment(slide, tmp_path / "m.tif", darkness_model, **WANTED)
    with pytest.raises(OutputError, match=r"ome\.zarr: is there, but not of gsd"):
        segment(slide, tmp_path / "m.tif", darkness_model, overwrite=True, **WANTED)
    assert (tmp_path / NAME / "mine").exists()
    shutil.rmtree(tmp_path / NAME)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").touch()
    (tmp_path / f".{NAME}.gsd-part").symlink_to(elsewhere)
    with pytest.raises(OutputError, match="cannot be written"):
        segment(slide, tmp_path / "m.tif", darkness_model, **WANTED)
    assert (elsewhere / "mine").exists()


def test_a_run_that_ends_meanwhile_leaves_none(tmp_path, slide, darkness_model, monkeypatch):
    def end():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "sync", end)
        with pytest.raises(KeyboardInterrupt):
            segment(slide, tmp_path / "m.tif", darkness_model, **WANTED)
    left = {path.name for path in tmp_path.iterdir() if path.name.startswith((".m", "m"))}
    assert left == {"m.tif", "m_probabilities.tif"}
    (tmp_path / f".{NAME}.gsd-part/0").mkdir(parents=True)  # of a run that was killed
    segment(slide, tmp_path / "m.tif", darkness_model, **WANTED)
    same_as_the_tiff(tmp_path)
    assert not (tmp_path / f".{NAME}.gsd-part").exists()


def test_as_it_is_typed(tmp_path, slide, darkness_model):
    def gsd(*options):
        command = ["segment", slide, "-o", tmp_path / "m.tif", "--model", darkness_model, *options]
        return CliRunner().invoke(main, [*map(str, command), "-q"])

    assert "add --probabilities" in gsd("--zarr").stderr
    done = gsd("--zarr", "--probabilities")
    assert done.exit_code == 0, done.output
    assert (tmp_path / NAME / ".zattrs").is_file()
    with pytest.raises(InputError, match="on this machine only: leave out --zarr"):
        segment(slide, "memory://bucket/m.tif", darkness_model, **WANTED)
