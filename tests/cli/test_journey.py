"""The commands of the README, typed as a user would, on generated slides."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from PIL import Image

from genselfdiff.models.shipped import catalogue
from gsd.main import COMMANDS, main

SMALL = ["--tile-size", "32", "--batch-size", "4", "--device", "cpu", "--precision", "float32"]


def gsd(*arguments, code=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def tissue(seed, height, width):
    """Purple discs on pink, and their mask."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    mask = np.zeros((height, width), np.uint8)
    for _ in range(height * width // 1200):
        cy, cx = rng.integers(0, height), rng.integers(0, width)
        mask[(y - cy) ** 2 + (x - cx) ** 2 < 60] = 1
    image = np.where(mask[..., None] == 1, (90, 60, 140), (225, 160, 190))
    image = image + rng.normal(0, 8, image.shape)
    return image.clip(0, 255).astype(np.uint8), mask


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for folder in ("slides", "images", "masks"):
        (root / folder).mkdir()
    slide, truth = tissue(100, 200, 264)
    tifffile.imwrite(
        root / "slides" / "slide.tif",
        slide,
        tile=(64, 64),
        photometric="rgb",
        resolution=(20000, 20000),
        resolutionunit="CENTIMETER",
    )
    np.save(root / "truth.npy", truth)
    for i in range(4):
        image, mask = tissue(i, 96, 96)
        Image.fromarray(image).save(root / "images" / f"p{i}.png")
        Image.fromarray(mask * 255).save(root / "masks" / f"p{i}.png")
    return root


@pytest.fixture(scope="module")
def model(data):
    """The first four commands of the journey."""
    pretrain = ["--steps", "6", "--validate-every", "3", "--sample-every", "6"]
    finetune = ["--steps", "60", "--validate-every", "20", "--learning-rate", "2e-3"]
    small = ["--architecture", "tiny", "--width", "8", *SMALL]
    gsd(
        "train",
        "pretrain",
        data / "slides",
        "--mpp",
        0.5,
        "--out",
        data / "run1",
        *pretrain,
        *small,
    )
    gsd(
        *("train", "finetune", "--images", data / "images", "--masks", data / "masks"),
        *("--mpp", 0.5, "--init", data / "run1", "--out", data / "run2"),
        *("--val", "p0", "--classes", "background,disc", *finetune, *SMALL),
    )
    gsd("export", data / "run2", "-o", data / "model.ts")
    return data / "model.ts"


def test_journey_ends_in_a_mask_that_is_right(data, model, tmp_path):
    overlay = tmp_path / "overlay.png"
    gsd(
        *("segment", data / "slides" / "slide.tif", "-o", tmp_path / "mask.tif"),
        *("--model", model, "--overlay-to", overlay),
    )
    mask = tifffile.imread(tmp_path / "mask.tif", key=0)
    truth = np.load(data / "truth.npy")
    assert mask.shape == truth.shape
    dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
    assert dice > 0.8
    with Image.open(overlay) as picture:
        assert picture.mode == "RGB"
    for name in ("curves.png", "metrics.jsonl", "config.toml"):
        assert (data / "run1" / name).exists()
    gsd("sample", data / "run1", "-o", tmp_path / "grid.png", "--count", 2, "--steps", 2)
    scores = gsd(
        "evaluate",
        model,
        "--images",
        data / "images",
        "--masks",
        data / "masks",
        "--mpp",
        0.5,
        "--foreground",
    )
    assert "p3" in scores.output


@pytest.fixture(scope="module")
def portable(data, model):
    gsd("export", data / "run2", "-o", data / "portable.ts", "--portable")
    return data / "portable.ts"


def test_both_flavours_give_the_same_mask(data, model, portable, tmp_path):
    masks = []
    for file in (model, portable):
        mask = tmp_path / f"{file.stem}.tif"
        gsd(
            *("segment", data / "slides" / "slide.tif", "-o", mask, "--model", file),
            *("--device", "cpu", "--precision", "float32"),
        )
        masks.append(tifffile.imread(mask, key=0))
    assert (masks[0] != masks[1]).mean() < 1e-4
    assert 0.05 < masks[0].mean() < 0.95


def test_portable_model_needs_only_torch(portable):
    code = (
        "import sys; sys.modules['genselfdiff'] = None\n"
        "import torch\n"
        f"m = torch.jit.load({str(portable)!r})\n"
        "y = m(torch.zeros(2, 3, 13, 21, dtype=torch.uint8))\n"
        "assert y.shape == (2, 2, 13, 21) and y.dtype == torch.float32\n"
        "assert torch.allclose(y.sum(1), torch.ones(2, 13, 21))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=os.path.dirname(portable))


def test_resume_takes_the_settings_of_the_run(data, model):
    gsd("train", "pretrain", "--out", data / "run1", "--resume")
    gsd("train", "pretrain", "--out", data / "run1", "--resume", "--device", "cpu")
    for option, value in (("--seed", 0), ("--learning-rate", 0.1)):
        told = gsd("train", "pretrain", "--out", data / "run1", "--resume", option, value, code=2)
        assert f"leave out {option}" in told.output


@pytest.mark.parametrize(
    "command", [["train", "pretrain"], ["train", "finetune"], *[[c] for c in COMMANDS]]
)
def test_every_command_has_help_with_an_example(command):
    told = gsd(*command, "--help").output
    if command != ["train"] and command != ["info"]:
        assert "Example" in told
        assert "gsd " + " ".join(command) in told


def bad_inputs(data, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.tif").write_text("not a slide")
    (tmp_path / "model.ts").write_text("not a model")
    slide, images, masks = data / "slides" / "slide.tif", data / "images", data / "masks"
    out = tmp_path / "out"
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    for path in masks.iterdir():
        mask = np.zeros((96, 96), np.uint8)
        mask[0, 0] = 7
        Image.fromarray(mask if path.stem == "p2" else mask * 0 + 1).save(wrong / path.name)
    small = tmp_path / "small"
    small.mkdir()
    for path in masks.iterdir():
        Image.fromarray(np.ones((9, 9), np.uint8)).save(small / path.name)
    few = tmp_path / "few"
    few.mkdir()
    Image.fromarray(np.ones((96, 96), np.uint8)).save(few / "p0.png")
    pretrain = ["train", "pretrain", "--mpp", 0.5, "--out", out]
    finetune = [
        "train",
        "finetune",
        "--images",
        images,
        "--mpp",
        0.5,
        "--init",
        "none",
        "--out",
        out,
    ]
    model, mask = data / "model.ts", tmp_path / "mask.tif"
    segment = ["segment", slide, "-o", mask, "--model", model]
    return {
        "missing folder": (
            [*pretrain, tmp_path / "nowhere"],
            "nowhere: no such file or folder",
        ),
        "empty folder": (
            [*pretrain, tmp_path / "empty"],
            "empty: no images in this folder",
        ),
        "unreadable image": (
            [*pretrain, tmp_path / "text.tif"],
            "text.tif: is no TIFF, SVS, DICOM, PNG or JPEG",
        ),
        "existing folder": (
            [*pretrain, slide, "--out", wrong],
            "wrong: exists already",
        ),
        "unpaired": (
            [*finetune, "--masks", few],
            "3 images without a mask (p1, p2, p3)",
        ),
        "sizes differ": (
            [*finetune, "--masks", small],
            "p0.png: 9 x 9 pixels, but",
        ),
        "values beyond the classes": (
            [*finetune, "--masks", wrong, "--classes", "a,b"],
            "p2.png: mask values 7 are beyond the 2 classes",
        ),
        "bad init": (
            [*finetune, "--masks", masks, "--init", images],
            "not a run folder of gsd train (no config.toml in it)",
        ),
        "export of nothing": (
            ["export", tmp_path / "empty", "-o", out],
            "empty: not a run folder of gsd train",
        ),
        "not a model": (
            [*segment, "--model", tmp_path / "model.ts"],
            "model.ts: not a model file, or damaged",
        ),
        "no model": (
            segment[:-2],
            "GSD_MODEL",
        ),
        "no slide": (
            ["segment", tmp_path / "no.svs", *segment[2:]],
            "no.svs: no such file",
        ),
        "slide without mpp": (
            ["segment", images / "p0.png", *segment[2:]],
            "p0.png: does not state its resolution; give it with --mpp",
        ),
        "mask exists": (
            [*segment, "-o", tmp_path / "text.tif"],
            "text.tif: exists already: name another file, or use --overwrite",
        ),
        "no folder to write to": (
            [*segment, "-o", tmp_path / "no" / "m.tif"],
            "does not exist: create it first",
        ),
    }


CASES = (
    "missing folder",
    "empty folder",
    "unreadable image",
    "existing folder",
    "unpaired",
    "sizes differ",
    "values beyond the classes",
    "bad init",
    "export of nothing",
    "not a model",
    "no model",
    "no slide",
    "slide without mpp",
    "mask exists",
    "no folder to write to",
)


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_told_in_one_line(data, model, tmp_path, monkeypatch, case):
    monkeypatch.delenv("GSD_MODEL", raising=False)
    monkeypatch.setattr(catalogue, "FOLDER", tmp_path)
    arguments, told = bad_inputs(data, tmp_path)[case]
    if arguments[0] == "train":
        arguments = [*arguments, *SMALL, "--steps", "1"]
    before = sorted(tmp_path.rglob("*"))
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code in (1, 2), result.output
    error = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert len(error) == 1, result.output
    assert told in error[0]
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)
    assert sorted(tmp_path.rglob("*")) == before, "a file was left behind"
