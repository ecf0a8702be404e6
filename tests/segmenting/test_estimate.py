"""What a dry run tells is what a run then does."""

import subprocess
import sys

import numpy as np
import pytest
import tifffile

import genselfdiff
from genselfdiff.errors import InputError
from genselfdiff.progress import duration
from genselfdiff.segmenting import estimate as module
from genselfdiff.segmenting.estimate import estimate
from genselfdiff.segmenting.many_slides import segment_all
from genselfdiff.segmenting.plan import plan_outputs
from genselfdiff.segmenting.shards.part import Shard


@pytest.mark.parametrize("region", [None, (100, 200, 300, 80)])
@pytest.mark.parametrize("mpp", [0.5, 0.2])
def test_the_tiles_are_those_of_a_run(tmp_path, picture, write_slide, darkness_model, mpp, region):
    image = np.full((700, 900, 3), 244, np.uint8)
    image[200:400, 300:500] = picture(200, 200)
    options = {"device": "cpu", "mpp": mpp, "region": region, "overlap": 0.5, "tile_size": 32}
    told = estimate(write_slide(image, mpp=None), darkness_model, **options)
    assert set(tmp_path.iterdir()) == {tmp_path / "slide.tif", darkness_model}
    done = genselfdiff.segment(
        tmp_path / "slide.tif", tmp_path / "mask.tif", darkness_model, **options
    )
    for name in ("width", "height", "mpp", "scale", "tiles", "skipped", "device", "precision"):
        assert getattr(told, name) == getattr(done, name), name
    assert told.tiles > 0
    assert told.seconds > 0


def test_the_level_is_the_one_that_is_read(tmp_path, picture, darkness_model):
    image = picture(512, 768)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for step in (1, 2, 4):
            writer.write(image[::step, ::step], tile=(64, 64), photometric="rgb")
    told = estimate(tmp_path / "a.tif", darkness_model, mpp=0.2, device="cpu")
    assert (told.level, told.downsample, told.scale) == (1, 2.0, 2.5)
    assert "level 1 (downsample 2), scale 2.5; " in told.summary()


def test_the_time_is_that_of_the_measured_tiles(picture, write_slide, darkness_model, monkeypatch):
    monkeypatch.setattr(module, "_seconds_per_tile", lambda *_: 2.0)
    monkeypatch.setattr(module, "_seconds_per_row", lambda *_: 0.01)
    told = estimate(write_slide(picture(300, 300)), darkness_model, device="cpu")
    assert told.seconds == pytest.approx(2 * told.tiles + 3)
    assert f"about {duration(told.seconds)} on cpu" in told.summary()


def test_without_tissue(write_slide, darkness_model):
    blank = write_slide(np.full((300, 200, 3), 244, np.uint8))
    told = estimate(blank, darkness_model, device="cpu")
    assert told.tiles == 0 < told.skipped
    with pytest.raises(InputError, match="not inside"):
        estimate(blank, darkness_model, device="cpu", region=(0, 0, 999, 1))


def test_of_a_slide_that_is_cut_a_shard_tells_its_own_part(
    tmp_path, picture, write_slide, darkness_model, monkeypatch
):
    monkeypatch.setattr(module, "_seconds_per_tile", lambda *_: 2.0)
    plan = plan_outputs([write_slide(picture(900, 300))], tmp_path / "m.tif")
    options = {"dry_run": True, "device": "cpu", "tissue": False}
    (whole,) = (outcome.result for outcome in segment_all(plan, darkness_model, **options))
    parts = [
        outcome.result
        for index in (1, 2, 3)
        for outcome in segment_all(plan, darkness_model, shard=Shard(index, 3), **options)
    ]
    assert len(parts) == 3
    assert sum(part.seconds for part in parts) == pytest.approx(whole.seconds, rel=0.05)
    assert all(0 < part.tiles < whole.tiles for part in parts)


@pytest.mark.parametrize("probabilities", [False, True])
def test_the_memory_is_a_bound(tmp_path, picture, write_slide, darkness_model, probabilities):
    image = np.tile(picture(240, 240), (10, 25, 1))
    write_slide(image)
    program = f"""
from genselfdiff.segmenting.one_slide import segment
from genselfdiff.segmenting.estimate import estimate
from genselfdiff.machine import peak_bytes
options = dict(device="cpu", mpp=0.25, probabilities={probabilities})
told = estimate("slide.tif", {str(darkness_model)!r}, **options).memory
segment("slide.tif", "mask.tif", {str(darkness_model)!r}, **options)
print(told, peak_bytes())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    told, taken = map(int, done.stdout.split())
    assert taken < told < taken + 600 * 2**20
