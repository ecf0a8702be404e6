"""What a run that goes on takes over of the one before, and what a later one does not repeat."""

import json
import os
import shutil

import numpy as np
import pytest
import tifffile

import genselfdiff
from genselfdiff.errors import InputError, OutputError
from genselfdiff.inference.predictor import Predictor
from genselfdiff.masks import MaskWriter, ProbabilityWriter, pyramid_writer
from genselfdiff.models.model_file import load_model, save_model
from genselfdiff.segmenting import one_slide
from genselfdiff.segmenting.jobs import job as job_module
from genselfdiff.segmenting.jobs.job import requested
from genselfdiff.segmenting.many_slides import segment_all
from genselfdiff.segmenting.options import Options
from genselfdiff.segmenting.plan import plan_outputs


@pytest.fixture
def slide(picture, write_slide):
    return write_slide(picture(300, 200))


@pytest.fixture
def tall(picture, write_slide):
    return write_slide(picture(600, 80), name="tall.tif")


def run(slide, mask, model, **options):
    return genselfdiff.segment(
        slide, mask, model, **({"device": "cpu", "precision": "float32"} | options)
    )


class Full(Exception):
    pass


def fail(*_: object) -> None:
    raise Full


def interrupt(monkeypatch, slide, mask, model, **options) -> None:
    """Stop a run when its first row of tiles is recorded."""
    right = one_slide.labels_of

    def stop(band):
        if mask.with_name(f".{mask.name}.journal").exists():
            raise KeyboardInterrupt
        return right(band)

    with monkeypatch.context() as patch:
        patch.setattr(pyramid_writer, "RECORD_SECONDS", 0.0)
        patch.setattr(one_slide, "labels_of", stop)
        with pytest.raises(KeyboardInterrupt):
            run(slide, mask, model, **options)


def test_a_finished_mask_is_not_made_again_nor_for_other_settings(tmp_path, slide, darkness_model):
    mask = tmp_path / "m.tif"
    assert not run(slide, mask, darkness_model, probabilities=True).finished_before
    before = mask.stat().st_mtime_ns
    assert run(slide, mask, darkness_model, probabilities=True).finished_before
    for other in ({"tta": 2}, {"overlap": 0.5}, {"tissue": False}, {"mpp": 0.51}):
        with pytest.raises(OutputError, match=r"m\.tif: exists already"):
            run(slide, mask, darkness_model, **other)
    assert mask.stat().st_mtime_ns == before


def test_another_machine_goes_on_with_a_mask(tmp_path, tall, darkness_model, monkeypatch, caplog):
    mask = tmp_path / "m.tif"
    interrupt(monkeypatch, tall, mask, darkness_model)
    monkeypatch.setattr(job_module, "kernels_here", lambda: "another")
    result = run(tall, mask, darkness_model)
    assert not result.finished_before
    assert 0 < result.share < 1
    assert "(the last " in result.summary()
    assert "m.tif: kernels another here" in caplog.text
    assert "a few pixels can differ" in caplog.text
    assert run(tall, mask, darkness_model).finished_before
    monkeypatch.undo()
    assert run(tall, mask, darkness_model).finished_before


def test_what_a_finished_mask_was_made_with_is_told(tmp_path, slide, darkness_model):
    mask = tmp_path / "m.tif"
    run(slide, mask, darkness_model, mpp=0.5)
    with pytest.raises(OutputError, match=r"was made with mpp 0\.5 instead of None: name another"):
        run(slide, mask, darkness_model)


@pytest.mark.parametrize(
    "told",
    [
        {"job": 5},
        {"job": {}},
        {"job": {"precision": "float32"}},
        {"pixels": [-5, 60_005]},
        {"pixels": [10**400, 0]},
        {"pixels": [60_000, 1]},
        {"scale": 0},
        {"scale": 10**400},
        {"tiles": -1},
        {"classes": ["a", "a"]},
        {},
    ],
)
def test_a_file_that_tells_odd_things_is_no_mask_of_ours(tmp_path, slide, darkness_model, told):
    mask = tmp_path / "m.tif"
    run(slide, mask, darkness_model)
    with tifffile.TiffFile(mask) as tiff:
        description = json.loads(tiff.pages[0].description)
    tifffile.imwrite(
        mask, np.zeros((200, 300), np.uint8), description=json.dumps(description | told)
    )
    if told:
        with pytest.raises(OutputError, match="exists already"):
            run(slide, mask, darkness_model)
    else:
        assert run(slide, mask, darkness_model).finished_before


@pytest.mark.parametrize("setting", [{"region": (20, 20, 100, 100)}, {"mpp": 0.51}])
def test_a_setting_that_is_left_out_asks_for_another_mask(tmp_path, slide, darkness_model, setting):
    mask = tmp_path / "m.tif"
    run(slide, mask, darkness_model, **setting)
    with pytest.raises(OutputError, match=r"m\.tif: exists already"):
        run(slide, mask, darkness_model)
    assert run(slide, mask, darkness_model, **setting).finished_before
    assert run(slide, mask, darkness_model, **setting, precision="auto").finished_before


def test_probabilities_without_their_mask(tmp_path, slide, darkness_model, monkeypatch):
    """A short run that fails between its two files has recorded nothing of the mask."""
    whole, mask = tmp_path / "whole.tif", tmp_path / "m.tif"
    run(slide, whole, darkness_model, probabilities=True)
    with monkeypatch.context() as patch:
        patch.setattr(MaskWriter, "_finish", fail)
        with pytest.raises(Full):
            run(slide, mask, darkness_model, probabilities=True)
    beside = tmp_path / "m_probabilities.tif"
    assert beside.exists()
    assert not mask.exists()
    made = beside.stat().st_ino
    with pytest.raises(OutputError, match=r"m_probabilities\.tif: exists already"):
        run(slide, mask, darkness_model, probabilities=True, tta=2)
    run(slide, mask, darkness_model, probabilities=True)
    assert mask.read_bytes() == whole.read_bytes()
    assert beside.stat().st_ino == made
    assert beside.read_bytes() == (tmp_path / "whole_probabilities.tif").read_bytes()


def test_probabilities_of_another_job_do_not_belong_to_a_mask(
    tmp_path, slide, darkness_model, monkeypatch
):
    """An overwriting run that fails between its two files leaves the old mask."""
    mask = tmp_path / "m.tif"
    run(slide, mask, darkness_model, probabilities=True)
    old = mask.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(MaskWriter, "_finish", fail)
        with pytest.raises(Full):
            run(slide, mask, darkness_model, probabilities=True, tta=2, overwrite=True)
    assert mask.read_bytes() == old
    with pytest.raises(OutputError, match="exists already"):
        run(slide, mask, darkness_model, probabilities=True)
    run(slide, mask, darkness_model, probabilities=True, overwrite=True)
    assert mask.read_bytes() == old


def test_a_failed_overwrite_keeps_the_old_files(tmp_path, slide, darkness_model, monkeypatch):
    mask = tmp_path / "m.tif"
    run(slide, mask, darkness_model, probabilities=True)
    kept = {path: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(ProbabilityWriter, "_finish", fail)
    with pytest.raises(Full):
        run(slide, mask, darkness_model, probabilities=True, tta=2, overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == kept


def test_what_is_obeyed_for_a_slide_is_not_for_the_next(
    tmp_path, tall, picture, write_slide, darkness_model, monkeypatch
):
    """The first slide was begun in bfloat16; this machine chooses float32 by itself."""
    monkeypatch.setattr("genselfdiff.inference.predictor.has_fast_bfloat16", lambda _: False)
    other = write_slide(picture(100, 100), name="z.tif")
    folder = tmp_path / "masks"
    folder.mkdir()
    interrupt(monkeypatch, tall, folder / "tall_mask.tif", darkness_model, precision="bfloat16")
    plan = plan_outputs([tall, other], folder)
    outcomes = list(segment_all(plan, darkness_model, device="cpu"))
    assert [outcome.result.precision for outcome in outcomes] == ["bfloat16", "float32"]


def test_a_tissue_image_is_told_by_all_of_it(tmp_path, slide, darkness_model):
    image, mask = np.ones((900, 600), np.uint8), tmp_path / "m.tif"
    tifffile.imwrite(tmp_path / "tissue.tif", image)
    run(slide, mask, darkness_model, tissue=tmp_path / "tissue.tif")
    image[300:320, 200:220] = 0
    tifffile.imwrite(tmp_path / "tissue.tif", image)
    with pytest.raises(OutputError, match="exists already"):
        run(slide, mask, darkness_model, tissue=tmp_path / "tissue.tif")


def test_a_model_is_what_it_was_when_it_was_read(tmp_path, slide, info, conv_net, darkness_model):
    predictor = Predictor(load_model(darkness_model, "cpu"), "float32")
    before = requested(slide, predictor, Options())
    save_model(conv_net(classes=2), info(), darkness_model)
    assert requested(slide, predictor, Options()) == before
    again = Predictor(load_model(darkness_model, "cpu"), "float32")
    assert requested(slide, again, Options()).model != before.model


def test_a_folder_is_the_same_on_another_file_system(tmp_path, darkness_model):
    predictor = Predictor(load_model(darkness_model, "cpu"), "float32")
    here, there = tmp_path / "here" / "a.zarr", tmp_path / "there" / "a.zarr"
    (here / "0").mkdir(parents=True)
    (here / "0" / "0").write_bytes(b"pixels")
    shutil.copytree(here, there)
    for i in range(2000):  # a folder stays as large as it once was on some file systems, not on all
        (there / "0" / f"{i:0200}").touch()
    for file in (there / "0").glob("0" * 100 + "*"):
        file.unlink()
    jobs = [requested(folder, predictor, Options()) for folder in (here, there)]
    assert jobs[0].slide == jobs[1].slide


def test_what_is_kept_is_told_by_the_run_that_kept_it(
    tmp_path, tall, darkness_model, monkeypatch, caplog
):
    caplog.set_level("INFO", "genselfdiff")
    told = "the same command goes on"
    interrupt(monkeypatch, tall, tmp_path / "m.tif", darkness_model)
    assert told in caplog.text
    caplog.clear()
    with pytest.raises(OutputError, match="was begun with tta 1 instead of 2"):
        run(tall, tmp_path / "m.tif", darkness_model, tta=2)
    assert told not in caplog.text
    run(tall, tmp_path / "m.tif", darkness_model)
    assert "goes on at row 512 of 600" in caplog.text


def test_a_slide_that_was_changed_in_its_middle_is_another(
    tmp_path, picture, write_slide, darkness_model, monkeypatch
):
    tall = write_slide(picture(600, 80), name="tall.tif", compression=None)
    mask, times = tmp_path / "m.tif", tall.stat()
    interrupt(monkeypatch, tall, mask, darkness_model)
    content = bytearray(tall.read_bytes())
    content[len(content) // 2] ^= 1
    tall.write_bytes(content)
    os.utime(tall, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(OutputError, match=r"begun with slide tall\.tif .* instead of tall\.tif"):
        run(tall, mask, darkness_model)
    run(tall, mask, darkness_model, overwrite=True)
    content[len(content) // 2] ^= 1
    tall.write_bytes(content)
    with pytest.raises(OutputError, match=r"exists already, and was made with slide tall\.tif"):
        run(tall, mask, darkness_model)


def test_a_slide_that_changes_while_it_is_read_makes_no_mask(
    tmp_path, slide, darkness_model, monkeypatch
):
    right = one_slide.labels_of

    def change(band):
        with slide.open("ab") as file:
            file.write(b"more")
        return right(band)

    monkeypatch.setattr(one_slide, "labels_of", change)
    with pytest.raises(InputError, match=r"slide\.tif: was changed while it was read"):
        run(slide, tmp_path / "m.tif", darkness_model)
    assert not (tmp_path / "m.tif").exists()
