import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from genselfdiff.errors import GsdError, InputError, ModelError, OutputError
from genselfdiff.models.model_file import save_model
from genselfdiff.segmenting import layout, one_slide
from genselfdiff.segmenting.many_slides import segment_all
from genselfdiff.segmenting.plan import Plan, plan_outputs


def test_one_slide_goes_to_the_file_named(tmp_path, picture, write_slide):
    slide = write_slide(picture(64, 64))
    for name in ("mask.tif", "mask.TIFF"):
        assert plan_outputs([slide], tmp_path / name) == Plan(((slide, tmp_path / name),))
    twice = [slide, tmp_path / "." / ".." / tmp_path.name / "slide.tif"]
    assert plan_outputs(twice, tmp_path / "mask.tif") == Plan(((slide, tmp_path / "mask.tif"),))


def test_one_slide_goes_into_a_folder(tmp_path, picture, write_slide):
    slide = write_slide(picture(64, 64))
    folder = tmp_path / "masks"
    expected = Plan(((slide, folder / "slide_mask.tif"),), folder)
    assert plan_outputs([slide], f"{folder}/") == expected
    folder.mkdir()
    assert plan_outputs([slide], folder) == expected


def test_several_slides_go_into_a_folder(tmp_path, picture, write_slide):
    (tmp_path / "scans").mkdir()
    slides = [write_slide(picture(32, 32), name=f"scans/{name}.tif") for name in "ab"]
    out = tmp_path / "masks"
    expected = Plan(((slides[0], out / "a_mask.tif"), (slides[1], out / "b_mask.tif")), out)
    assert plan_outputs(slides, out) == expected
    assert plan_outputs([tmp_path / "scans"], out) == expected
    assert plan_outputs([tmp_path / "scans", slides[1]], out) == expected
    assert not out.exists()  # made only once there is a model


@pytest.mark.parametrize("out", ["scans", "scans/masks", "masks"])
def test_a_second_run_finds_the_same_slides(
    tmp_path, picture, write_slide, darkness_model, monkeypatch, out
):
    monkeypatch.chdir(tmp_path)
    Path("scans").mkdir()
    for name in "ab":
        write_slide(picture(32, 32), name=f"scans/{name}.tif")
    options = {"device": "cpu", "overlay": True, "overwrite": True}
    plan = plan_outputs(["scans"], out)
    assert [slide.name for slide, _ in plan.pairs] == ["a.tif", "b.tif"]
    assert all(outcome.result for outcome in segment_all(plan, darkness_model, **options))
    assert plan_outputs(["scans"], out) == plan
    assert plan_outputs([Path("scans").resolve()], out).pairs[0][0].name == "a.tif"
    Path("scans/a.tif").unlink()
    Path("scans/b.tif").unlink()
    if out == "scans/masks":
        with pytest.raises(
            InputError, match="no slides but masks of gsd and what is in scans/masks"
        ):
            plan_outputs(["scans"], out)


def test_our_masks_are_no_slides(tmp_path, picture, write_slide, darkness_model):
    (tmp_path / "scans").mkdir()
    slide = write_slide(picture(64, 64), name="scans/a.tif")
    mask = tmp_path / "scans" / "renamed.tif"
    one_slide.segment(slide, mask, darkness_model, device="cpu")
    plan = plan_outputs([tmp_path / "scans"], tmp_path / "out")
    assert [path for path, _ in plan.pairs] == [slide]
    with pytest.raises(InputError, match=r"renamed\.tif: is a mask that gsd has written"):
        one_slide.segment(mask, tmp_path / "other.tif", darkness_model, device="cpu")
    named = list(segment_all(plan_outputs([slide, mask], tmp_path / "out"), darkness_model))
    assert [outcome.error is None for outcome in named] == [True, False]
    slide.unlink()
    with pytest.raises(InputError, match="no slides but masks of gsd"):
        plan_outputs([tmp_path / "scans"], tmp_path / "out")


def test_outputs_that_cannot_be_planned(tmp_path, picture, write_slide, darkness_model):
    for folder in ("one", "two", "empty"):
        (tmp_path / folder).mkdir()
    slides = [write_slide(picture(32, 32), name=f"{folder}/a.tif") for folder in ("one", "two")]
    with pytest.raises(InputError, match="different folders"):
        plan_outputs(slides, tmp_path / "masks")
    with pytest.raises(InputError, match="empty"):
        plan_outputs([tmp_path / "empty"], tmp_path / "masks")
    for taken in (slides[1], tmp_path / "new.tif", darkness_model):
        with pytest.raises(OutputError, match="name a folder"):
            plan_outputs([tmp_path / "one"], taken)
    for name in ("mask", "mask.png"):
        with pytest.raises(OutputError, match=r"must end in \.tif or \.tiff, or in / "):
            plan_outputs([slides[0]], tmp_path / name)
    plan = plan_outputs([tmp_path / "one"], tmp_path / "no" / "masks")
    with pytest.raises(OutputError, match="no/masks: cannot be made: No such file"):
        next(segment_all(plan, darkness_model, device="cpu"))


def test_no_output_is_an_input_of_another_slide(tmp_path, picture, write_slide, darkness_model):
    slides = [write_slide(picture(32, 32), name=name) for name in ("a.tif", "a_mask.tif")]
    before = slides[1].read_bytes()
    plan = plan_outputs(slides, tmp_path)
    assert len(plan.pairs) == 2
    with pytest.raises(OutputError, match=r"a_mask\.tif: is an input of this run"):
        next(segment_all(plan, darkness_model, device="cpu", overwrite=True))
    assert slides[1].read_bytes() == before


def test_a_bad_slide_does_not_stop_the_others(tmp_path, picture, write_slide, darkness_model):
    slides = [write_slide(picture(64, 80), name=f"{name}.tif") for name in "abd"]
    (tmp_path / "c.tif").write_bytes(b"II*\x00 not a slide")
    slides[2:2] = [tmp_path / "c.tif", tmp_path / "absent.tif"]
    outcomes = list(
        segment_all(plan_outputs(slides, tmp_path / "out"), darkness_model, device="cpu")
    )
    assert [outcome.slide for outcome in outcomes] == slides
    assert [outcome.error is None for outcome in outcomes] == [True, True, False, False, True]
    assert {str(o.error).split(":")[0] for o in outcomes[2:4]} == {str(s) for s in slides[2:4]}
    assert outcomes[4].result is not None
    masks = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert masks == ["a_mask.tif", "b_mask.tif", "d_mask.tif", "summary.csv"]
    with (tmp_path / "out" / "summary.csv").open(encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    assert [row["slide"] for row in rows] == [str(slide) for slide in slides]
    assert [bool(row["error"]) for row in rows] == [False, False, True, True, False]


def test_a_fault_does_not_stop_the_others(
    tmp_path, picture, write_slide, darkness_model, monkeypatch
):
    slides = [write_slide(picture(64, 80), name=f"{name}.tif") for name in "ab"]
    right = layout.model_view

    def wrong_once(slide, mpp):
        if slide.path == slides[0]:
            raise ZeroDivisionError("division\nby zero")
        return right(slide, mpp)

    monkeypatch.setattr(layout, "model_view", wrong_once)
    plan = plan_outputs(slides, tmp_path / "out")
    bad, good = segment_all(plan, darkness_model, device="cpu")
    assert type(bad.error) is GsdError
    assert str(bad.error) == (
        f"{slides[0]}: failed unexpectedly: ZeroDivisionError: division; -v says where"
    )
    assert isinstance(bad.error.__cause__, ZeroDivisionError)
    assert good.result is not None


def test_without_a_model_nothing_starts(tmp_path, picture, write_slide):
    slide = write_slide(picture(64, 64))
    torch.save({}, tmp_path / "model.ts")
    with pytest.raises(ModelError, match="checkpoint"):
        next(segment_all(plan_outputs([slide], f"{tmp_path}/new/"), tmp_path / "model.ts"))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("mpp", [0.001, 250.0])
def test_mpp_out_of_range_is_told_once(tmp_path, picture, write_slide, darkness_model, mpp):
    plan = plan_outputs([write_slide(picture(64, 64))], f"{tmp_path}/new/")
    with pytest.raises(InputError, match="must be between"):
        next(segment_all(plan, darkness_model, device="cpu", mpp=mpp))


def test_a_mask_does_not_depend_on_the_other_slides(
    tmp_path, picture, write_slide, conv_net, info, monkeypatch
):
    """Each slide chooses its precision by itself, and is predicted in that alone."""
    monkeypatch.setattr("genselfdiff.inference.predictor.has_fast_bfloat16", lambda _: True)
    save_model(conv_net(kernel=5), info(3), tmp_path / "model.ts")
    white = np.full((200, 200, 3), 244, np.uint8)
    images = {"a": white, "b": picture(200, 300), "c": picture(300, 200, seed=1)}
    slides = [write_slide(image, name=f"{name}.tif") for name, image in images.items()]
    plan = plan_outputs(slides, tmp_path / "out")
    together = list(segment_all(plan, tmp_path / "model.ts", device="cpu"))
    assert {outcome.result.precision for outcome in together} == {"float32", "bfloat16"}
    for outcome in together:
        alone = tmp_path / "alone.tif"
        options = {"device": "cpu", "overwrite": True}
        result = one_slide.segment(outcome.slide, alone, tmp_path / "model.ts", **options)
        assert result.precision == outcome.result.precision
        assert alone.read_bytes() == outcome.result.files.mask.read_bytes()
        options["precision"] = result.precision
        one_slide.segment(outcome.slide, alone, tmp_path / "model.ts", **options)
        assert alone.read_bytes() == outcome.result.files.mask.read_bytes()
