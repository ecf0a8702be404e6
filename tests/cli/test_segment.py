"""``gsd segment`` and ``gsd evaluate`` as a user types them."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import nn

from genselfdiff.evaluation.evaluation_file import read_evaluation
from genselfdiff.models.model_file import save_model
from genselfdiff.models.model_info import ModelInfo
from gsd.main import main


class Darkness(nn.Module):
    """Class 1 where the green channel is below the middle."""

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        green = 50 * x[:, 1:2]
        return torch.cat((green, -green), dim=1)


PICTURE = np.full((120, 150, 3), (225, 170, 200), np.uint8)
PICTURE[20:70, 30:90] = (90, 40, 130)
DARK = (PICTURE[..., 1] < 127).astype(np.uint8)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ``model.ts`` and ``slide.tif``, which is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GSD_MODEL", raising=False)
    info = ModelInfo(("background", "nucleus"), ((0, 0, 0), (255, 0, 0)), 0.5, 64, "minus_one_one")
    save_model(Darkness(), info, tmp_path / "model.ts")
    write_slide("slide.tif")
    return tmp_path


def write_slide(name: str, mpp: float | None = 0.5) -> None:
    resolution = {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": 3}
    tifffile.imwrite(name, PICTURE, photometric="rgb", tile=(64, 64), **resolution)


def gsd(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["segment", *arguments, "--device", "cpu"])


def mask(name: str) -> np.ndarray:
    with tifffile.TiffFile(name) as file:
        return file.pages[0].asarray()


def test_one_slide(work):
    done = gsd("slide.tif", "-o", "mask.tif", "--model", "model.ts")
    assert done.exit_code == 0, done.output
    np.testing.assert_array_equal(mask("mask.tif"), DARK)
    assert "mask.tif: 150 x 120 pixels" in done.stdout
    assert "nucleus: 16.67 %" in done.stdout
    assert {path.name for path in work.iterdir()} == {"model.ts", "slide.tif", "mask.tif"}


def test_model_from_the_environment_and_overlay_beside_the_mask(work, monkeypatch):
    monkeypatch.setenv("GSD_MODEL", "model.ts")
    done = gsd("slide.tif", "-o", "mask.tif", "--overlay")
    assert done.exit_code == 0, done.output
    with Image.open("mask_overlay.png") as overlay:
        assert overlay.size == (150, 120 + 2 * 22), "below it a scale bar and the classes"


def test_overlay_by_name(work):
    done = gsd("slide.tif", "-o", "mask.tif", "--model", "model.ts", "--overlay-to", "look.png")
    assert done.exit_code == 0, done.output
    assert Path("look.png").exists()


def test_objects_beside_the_mask_and_from_it(work):
    options = ("--model", "model.ts", "--geojson", "--min-area", "1")
    done = gsd("slide.tif", "-o", "mask.tif", *options)
    assert done.exit_code == 0, done.output
    assert "mask.geojson: objects: 1 nucleus" in done.stdout
    (feature,) = json.loads(Path("mask.geojson").read_text(encoding="utf-8"))["features"]
    corners = [[30, 20], [90, 20], [90, 70], [30, 70], [30, 20]]
    assert feature["geometry"] == {"type": "Polygon", "coordinates": [corners]}
    assert feature["properties"]["measurements"] == {
        "gsd id": 1,
        "Area \u00b5m^2": 750.0,
        "Perimeter \u00b5m": 110.0,
        "Equivalent diameter \u00b5m": 30.9019,
        "Eccentricity": 0.5528,
    }
    again = ["objects", "mask.tif", "-o", "again.geojson", "--min-area"]
    done = CliRunner().invoke(main, [*again, "1"])
    assert (done.exit_code, done.stdout) == (0, "again.geojson: 1 nucleus\n")
    assert Path("again.geojson").read_bytes() == Path("mask.geojson").read_bytes()
    assert CliRunner().invoke(main, [*again, "800"]).exit_code == 1
    done = CliRunner().invoke(main, [*again, "800", "--overwrite"])
    assert done.stdout == "again.geojson: 0 nucleus\n"
    done = CliRunner().invoke(main, ["objects", "slide.tif", "-o", "no.geojson"])
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
    assert not Path("no.geojson").exists()


def test_geojson_of_several_slides(work):
    write_slide("other.tif")
    done = gsd("slide.tif", "other.tif", "-o", "masks/", "--model", "model.ts", "--geojson")
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in Path("masks").glob("*_mask*")) == [
        f"{name}_mask{end}" for name in ("other", "slide") for end in (".geojson", ".tif")
    ]


def test_instances_table_report_and_summary(work):
    write_slide("other.tif", mpp=None)
    options = ("--model", "model.ts", "--instances", "--geojson", "--table", "--labels", "--report")
    sizes = ("--overlay-width", "75", "--seed-distance", "3")
    done = gsd("slide.tif", "other.tif", "-o", "masks/", *options, *sizes)
    assert done.exit_code == 1  # the other has no resolution
    assert sorted(path.name for path in Path("masks").iterdir()) == [
        *(f"slide_mask{end}" for end in (".geojson", ".html", ".tif")),
        *("slide_mask_instances.tif", "slide_mask_objects.csv", "slide_mask_overlay.png"),
        "summary.csv",
    ]
    with Image.open("masks/slide_mask_overlay.png") as overlay:
        assert overlay.width == 75 and overlay.height > 60
    rows = list(
        csv.DictReader(
            Path("masks/slide_mask_objects.csv").read_text(encoding="utf-8").splitlines()
        )
    )
    assert [(row["class"], row["area_um2"]) for row in rows] == [("nucleus", "750.0")]
    page = Path("masks/slide_mask.html").read_text(encoding="utf-8")
    assert "slide.tif" in page and "16.67 %" in page and "<svg" in page
    slide, other = csv.DictReader(
        Path("masks/summary.csv").read_text(encoding="utf-8").splitlines()
    )
    assert (slide["slide"], slide["nucleus objects"], slide["error"]) == ("slide.tif", "1", "")
    assert (other["slide"], other["mask"], "--mpp" in other["error"]) == ("other.tif", "", True)
    done = gsd("slide.tif", "-o", "alone.tif", "--model", "model.ts", "--instances")
    assert "alone_objects.csv: objects: 1 nucleus" in done.stdout
    again = ["objects", "alone.tif", "--instances", "--table"]
    done = CliRunner().invoke(main, [*again, "again.csv", "-o", "again.geojson"])
    assert done.stdout == "again.geojson, again.csv: 1 nucleus\n"
    assert Path("again.csv").read_bytes() == Path("alone_objects.csv").read_bytes()
    done = CliRunner().invoke(main, [*again[:3], "--labels", "again.tif"])
    assert done.stdout == "again.tif: 1 nucleus\n"
    labels = Path("masks/slide_mask_instances.tif").read_bytes()
    assert Path("again.tif").read_bytes() == labels
    done = gsd("slide.tif", "-o", "l.tif", "--model", "model.ts", "--instances", "--labels")
    assert "l_instances.tif: objects: 1 nucleus" in done.stdout
    assert not Path("l_objects.csv").exists()
    assert Path("l_instances.tif").read_bytes() == labels
    done = gsd("slide.tif", "-o", "l.tif", "--model", "model.ts", "--overwrite", "--labels")
    assert "l_instances.tif: objects: 1 nucleus" in done.stdout
    assert CliRunner().invoke(main, ["objects", "alone.tif"]).exit_code == 2


def test_a_model_of_instances_takes_apart_unless_told_not_to(work):
    class Halves(nn.Module):
        """All of what is dark, with a core in its left and one in its right."""

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            green = 50 * x[:, 1:2]
            core = -50 * (x[:, 2:3] - 0.1)
            return torch.cat((green, -green, -core, core), dim=1)

    named = ("background", "nucleus"), ((0, 0, 0), (255, 0, 0))
    info = ModelInfo(*named, 0.5, 64, "minus_one_one", instances=True)
    save_model(Halves(), info, work / "halves.ts")
    picture = PICTURE.copy()
    picture[20:70, 55:65, 2] = 160
    resolution = {"resolution": (2e4, 2e4), "resolutionunit": 3}
    tifffile.imwrite("halves.tif", picture, photometric="rgb", tile=(64, 64), **resolution)
    run = ("halves.tif", "-o", "m.tif", "--model", "halves.ts")
    assert "m_objects.csv: objects: 2 nucleus" in gsd(*run).stdout
    assert "m.geojson: objects: 1 nucleus" in gsd(*run, "--geojson", "--no-instances").stdout

    def objects(*options: str) -> str:
        arguments = ["objects", "m.tif", "-o", "again.geojson", "--overwrite", *options]
        return CliRunner().invoke(main, arguments).stdout

    assert objects() == objects("--instances") == "again.geojson: 2 nucleus\n"
    assert (
        objects("--no-instances")
        == objects("--seed-distance", "9")
        == ("again.geojson: 1 nucleus\n")
    )


def test_overlay_does_not_swallow_a_slide(work):
    Image.fromarray(PICTURE).save("other.png", dpi=(50_800, 50_800))
    before = Path("other.png").read_bytes()
    options = ("-o", "masks/", "--model", "model.ts", "--overwrite")
    done = gsd("slide.tif", *options, "--overlay", "other.png")
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in Path("masks").glob("*_mask*")) == [
        f"{name}_mask{end}" for name in ("other", "slide") for end in (".tif", "_overlay.png")
    ]
    done = gsd("other.png", "-o", "mask.tif", *options[2:], "--overlay-to", "other.png")
    assert done.exit_code == 1
    assert "other.png: is an input of this run" in done.stderr
    assert Path("other.png").read_bytes() == before
    done = gsd("other.png", "slide.tif", *options, "--overlay-to", "look.png")
    assert done.exit_code == 2
    assert "--overlay" in done.stderr


def test_a_dry_run_writes_nothing(work):
    write_slide("other.tif")
    before = {path.name for path in work.iterdir()}
    options = ("-o", "masks/", "--model", "model.ts", "--dry-run")
    done = gsd("slide.tif", "other.tif", "absent.tif", *options)
    assert done.exit_code == 1
    assert "absent.tif: no such file" in done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["slide.tif", "other.tif"]
    assert "150 x 120 pixels of 0.5 um; level 0 (downsample 1), scale 1; 9 tiles to" in lines[0]
    assert {path.name for path in work.iterdir()} == before


def test_a_region(work):
    done = gsd("slide.tif", "-o", "mask.tif", "--model", "model.ts", "--region", "50,10,100,50")
    assert done.exit_code == 0, done.output
    expected = DARK.copy()
    expected[:, :50] = expected[:10] = expected[60:] = 0
    np.testing.assert_array_equal(mask("mask.tif"), expected)
    assert "nucleus: 32.00 %" in done.stdout


def test_several_slides_of_which_one_is_bad(work):
    write_slide("other.tif")
    Path("broken.tif").write_bytes(b"II*\x00")
    options = ("-o", "masks", "--model", "model.ts")
    done = gsd("slide.tif", "broken.tif", "other.tif", *options)
    assert done.exit_code == 1
    assert sorted(path.name for path in Path("masks").glob("*_mask*")) == [
        "other_mask.tif",
        "slide_mask.tif",
    ]
    errors = done.stderr.strip().splitlines()
    assert errors[0].startswith("Error: broken.tif:")
    assert errors[-1] == "1 of 3 slides failed: broken.tif"
    assert "Traceback" not in done.stderr
    done = gsd("slide.tif", "broken.tif", *options, "--overwrite", "-v")
    assert "Traceback" in done.stderr
    np.testing.assert_array_equal(mask("masks/other_mask.tif"), DARK)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["slide.tif", "-o", "mask.tif", "--model", "absent"], 1, "no such model file"),
        (["slide.tif", "-o", "mask.tif", "--model", "slide.tif"], 1, "not a model file"),
        (["absent.tif", "-o", "mask.tif", "--model", "model.ts"], 1, "absent.tif"),
        (["unscaled.tif", "-o", "mask.tif", "--model", "model.ts"], 1, "--mpp"),
        (["slide.tif", "-o", "no/mask.tif", "--model", "model.ts"], 1, "does not exist"),
        (["slide.tif", "-o", "taken.tif", "--model", "model.ts"], 1, "--overwrite"),
        (["slide.tif", "-o", "had.tif", "--model", "model.ts", "--geojson"], 1, "--overwrite"),
        (["slide.tif", "-o", "mask.tif", "--min-area", "-1"], 2, "--min-area"),
        (["slide.tif", "-o", "mask.tif", "--model", "model.ts", "--tile-size", "30"], 1, "of 8"),
        (["slide.tif", "-o", "mask", "--model", "model.ts"], 1, ".tif"),
        (["slide.tif", "model.ts", "-o", "m.tif", "--model", "model.ts"], 1, "name a folder"),
        (["slide.tif", "model.ts", "-o", "masks", "--model", "no.ts"], 1, "no.ts"),
        (["slide.tif", "-o", "mask.tif", "--model", "model.ts", "--mpp", "500"], 1, "um/px"),
        (["slide.tif", "-o", "mask.tif", "--overlap", "0.8"], 2, "--overlap"),
        (["slide.tif", "-o", "mask.tif", "--region", "1,2,3"], 2, "1,2,3"),
        (["slide.tif", "-o", "mask.tif", "--region", "0,0,a,9"], 2, "whole numbers"),
        (["slide.tif", "-o", "m.tif", "--model", "model.ts", "--region", "0,0,1,999"], 1, "inside"),
        (["slide.tif", "-o", "m.tif", "--tissue-mask", "a.png", "--no-tissue"], 2, "exclude"),
        (["slide.tif", "model.ts", "-o", "m", "--tissue-mask", "a.png"], 2, "one slide"),
        (
            ["slide.tif", "-o", "m.tif", "--model", "model.ts", "--tissue-mask", "a"],
            1,
            "a: no such",
        ),
        (["slide.tif"], 2, "--output"),
        (["-o", "mask.tif"], 2, "SLIDE"),
        (["slide.tif", "-o", ""], 2, "is empty"),
        (["", "-o", "mask.tif"], 2, "is empty"),
        (["n/" * 3000, "-o", "mask.tif"], 2, "File name too long"),
        (["slide.tif", "-o", f"{'n' * 300}.tif"], 2, "File name too long"),
        (["slide.tif", "-o", f"{'n' * 250}.tif", "--model", "model.ts"], 1, "File name too long"),
        (
            ["slide.tif", "-o", f"{'n' * 236}.tif", "--model", "model.ts", "--probabilities"],
            1,
            "File name too long",
        ),
        (["slide.tif", "-o", "link.tif", "--model", "model.ts"], 1, "is a link to taken.tif"),
        (
            ["slide.tif", "-o", "link.tif", "--model", "model.ts", "--overwrite"],
            1,
            "is a link to taken.tif",
        ),
        (
            ["slide.tif", "-o", "h.tif", "--model", "model.ts", "--report", "--overwrite"],
            1,
            "h.html: is a folder",
        ),
        (
            *(["slide.tif", "--overlay-to", "pipe.png", "-o", "m.tif", "--model", "model.ts"], 1),
            "is a device or a pipe",
        ),
    ],
)
def test_what_cannot_be_is_said_in_one_line(work, arguments, status, message):
    write_slide("unscaled.tif", mpp=None)
    Path("taken.tif").write_text("precious")
    Path("had.geojson").write_text("precious")
    Path("link.tif").symlink_to("taken.tif")
    Path("h.html").mkdir()
    os.mkfifo("pipe.png")
    before = {path.name for path in work.iterdir()}
    done = gsd(*arguments)
    assert done.exit_code == status
    assert message in done.stderr
    assert "Traceback" not in done.output
    if status == 1:
        assert len(done.stderr.strip().splitlines()) == 1
    assert {path.name for path in work.iterdir()} == before
    assert Path("taken.tif").read_text() == "precious"


def test_options_arrive(work):
    write_slide("unscaled.tif", mpp=None)
    Path("mask.tif").write_text("old")
    done = gsd(
        *("unscaled.tif", "-o", "mask.tif", "--model", "model.ts", "--mpp", "0.25"),
        *("--overwrite", "--no-tissue", "--tile-size", "16", "--overlap", "0"),
        *("--batch-size", "2", "--precision", "float32", "--tta", "2"),
    )
    assert done.exit_code == 0, done.output
    # 150 x 120 pixels at 0.25 are 75 x 60 at the model's 0.5: 5 x 4 tiles of 16.
    assert "20 tiles predicted, 0 without tissue skipped" in done.stdout
    assert "float32" in done.stdout
    with tifffile.TiffFile("mask.tif") as file:
        numerator, denominator = file.pages[0].tags["XResolution"].value
    assert 1e4 * denominator / numerator == pytest.approx(0.25)


def test_views_that_are_no_group_are_refused(work):
    done = gsd("slide.tif", "-o", "mask.tif", "--model", "model.ts", "--tta", "3")
    assert done.exit_code == 2
    assert "'1', '2', '4', '8'" in done.stderr


def test_as_a_process(work):
    done = subprocess.run(
        [sys.executable, "-m", "gsd", "segment", "slide.tif", "-o", "mask.tif", "--model", "no.ts"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "Error: no.ts: there is no such model file\n"


def test_sigterm_leaves_no_file_behind(work):
    large = np.tile(PICTURE, (20, 20, 1))
    tifffile.imwrite("large.tif", large, photometric="rgb", tile=(64, 64))
    before = {path.name for path in work.iterdir()}
    options = ("--model", "model.ts", "--mpp", "0.5", "--tile-size", "8", "--device", "cpu")
    process = subprocess.Popen(
        [sys.executable, "-m", "gsd", "segment", "large.tif", "-o", "mask.tif", *options],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while {path.name for path in work.iterdir()} == before and process.poll() is None:
            time.sleep(0.01)
        process.terminate()
        _, told = process.communicate(timeout=600)
    finally:
        process.kill()
    assert (process.returncode, told) == (143, "Stopped.\n")
    assert {path.name for path in work.iterdir()} == before


def test_sigterm_works_as_before_after_a_command(work):
    before = signal.getsignal(signal.SIGTERM)
    assert gsd("slide.tif", "-o", "mask.tif", "--model", "absent").exit_code == 1
    assert signal.getsignal(signal.SIGTERM) == before


def test_evaluate(work):
    for folder, array in (("images", PICTURE), ("masks", 255 * DARK)):
        Path(folder).mkdir()
        Image.fromarray(array).save(f"{folder}/field.png")
    arguments = ["evaluate", "model.ts", "--images", "images", "--masks", "masks"]
    files = ["--csv", "scores.csv", "--json", "scores.json", "--html", "scores.html"]
    done = CliRunner().invoke(main, [*arguments, "--mpp", "0.5", *files])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[2].split() == [
        "field",
        "1.0000",
        "1.0000",
        "0.00",
        *["1.0000"] * 2,
    ]
    assert Path("scores.csv").read_text().startswith("image,accuracy,")
    assert read_evaluation("scores.json").images[0].name == "field"
    assert "data:image/jpeg" in Path("scores.html").read_text(encoding="utf-8")
    again = CliRunner().invoke(main, [*arguments, "--mpp", "0.5", "--html", "scores.html"])
    assert again.exit_code == 1
    assert "--overwrite" in again.stderr
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 1
    assert "--mpp" in refused.stderr
    Path("link.csv").hardlink_to("masks/field.png")
    for option, name in (
        ("--html", "model.ts"),
        ("--csv", "images/field.png"),
        ("--json", "masks/../masks/field.png"),
        ("--csv", "link.csv"),
    ):
        refused = CliRunner().invoke(main, [*arguments, option, name, "--overwrite"])
        assert refused.exit_code == 1
        assert "is an input of this run" in refused.stderr
    lost = CliRunner().invoke(main, [*arguments, "--mpp", "0.5", "--html", "nowhere/scores.html"])
    assert lost.exit_code == 1
    assert "nowhere does not exist" in lost.stderr and not lost.stdout
    twice = CliRunner().invoke(main, [*arguments, "--csv", "x", "--json", "./x"])
    assert twice.exit_code == 1
    assert "x: is named for two results" in twice.stderr
    for one, other in (("scores.json", "x"), ("x.png", "scores.json")):
        outputs = ["--csv", one, "-o", other, "--overwrite"]
        refused = CliRunner().invoke(main, ["compare", "scores.json", "scores.json", *outputs])
        assert refused.exit_code == 1
        assert "scores.json: is an input of this run" in refused.stderr


@pytest.mark.parametrize("command", ["segment", "objects", "evaluate"])
def test_help_has_an_example(command):
    done = CliRunner().invoke(main, [command, "--help"])
    assert done.exit_code == 0
    assert f"gsd {command} " in done.stdout.split("Example")[1]
