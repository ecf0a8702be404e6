import pytest
import torch

from genselfdiff.errors import InputError, ModelError, OutputError
from genselfdiff.inference.many import plan_outputs, segment_all


def test_one_slide_goes_to_the_file_named(tmp_path, picture, write_slide):
    slide = write_slide(picture(64, 64))
    assert plan_outputs([slide], tmp_path / "mask.tif") == [(slide, tmp_path / "mask.tif")]
    folder = tmp_path / "masks"
    folder.mkdir()
    assert plan_outputs([slide], folder) == [(slide, folder / "slide_mask.tif")]


def test_several_slides_go_into_a_folder(tmp_path, picture, write_slide):
    (tmp_path / "scans").mkdir()
    slides = [write_slide(picture(32, 32), name=f"scans/{name}.tif") for name in "ab"]
    out = tmp_path / "masks"
    expected = [(slides[0], out / "a_mask.tif"), (slides[1], out / "b_mask.tif")]
    assert plan_outputs(slides, out) == expected
    assert plan_outputs([tmp_path / "scans"], out) == expected
    assert out.is_dir()


def test_outputs_that_cannot_be_planned(tmp_path, picture, write_slide):
    for folder in ("one", "two", "empty"):
        (tmp_path / folder).mkdir()
    slides = [write_slide(picture(32, 32), name=f"{folder}/a.tif") for folder in ("one", "two")]
    with pytest.raises(InputError, match="different folders"):
        plan_outputs(slides, tmp_path / "masks")
    with pytest.raises(InputError, match="empty"):
        plan_outputs([tmp_path / "empty"], tmp_path / "masks")
    with pytest.raises(OutputError, match="name a folder"):
        plan_outputs([tmp_path / "one"], slides[1])
    with pytest.raises(OutputError, match="cannot be made"):
        plan_outputs([tmp_path / "one"], tmp_path / "no" / "masks")


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
    assert masks == ["a_mask.tif", "b_mask.tif", "d_mask.tif"]


def test_without_a_model_nothing_starts(tmp_path, picture, write_slide):
    slide = write_slide(picture(64, 64))
    torch.save({}, tmp_path / "model.ts")
    with pytest.raises(ModelError, match="checkpoint"):
        next(segment_all([(slide, tmp_path / "mask.tif")], tmp_path / "model.ts", device="cpu"))
