"""``gsd data``, as it is typed."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from gsd.main import main


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A working folder with pictures/a.png."""
    monkeypatch.chdir(tmp_path)
    Path("pictures").mkdir()
    Image.fromarray(np.full((20, 30, 3), 200, np.uint8)).save("pictures/a.png")


def gsd(*arguments):
    return CliRunner().invoke(main, ["data", *arguments])


@pytest.mark.usefixtures("work")
def test_labelbox_then_check():
    square = [{"x": x, "y": y} for x, y in [(3, 3), (9, 3), (9, 9), (3, 9)]]
    entry = {"External ID": "a.png", "Label": {"tumor": [{"geometry": square}]}}
    Path("export.json").write_text(json.dumps([entry]))
    done = gsd("import", "labelbox", "export.json", "--images", "pictures", "-o", "fields", "-q")
    assert done.exit_code == 0, done.output
    assert "fields: 1 labelled image, 1 object\n  0 background: 91.83 %" in done.output
    assert "next: gsd train finetune fields --init nuclei --out fields-run" in done.output
    again = gsd("import", "labelbox", "export.json", "--images", "pictures", "-o", "fields", "-q")
    assert again.exit_code == 1
    done = gsd("check", "fields", "--sheet", "sheet.png", "-q")
    assert done.exit_code == 0, done.output
    assert "value 1: 8.17 % of the pixels, in 1 image\nno problems" in done.output
    assert Path("sheet.png").is_file()
    before = Path("fields/masks/a.png").read_bytes()
    refused = gsd("check", "fields", "--sheet", "fields/masks/a.png", "--overwrite")
    assert refused.exit_code == 1
    assert "a.png: is an input of this run" in refused.output
    assert Path("fields/masks/a.png").read_bytes() == before
    Path("fields/masks/a.png").rename("fields/masks/b.png")
    done = gsd("check", "fields", "-q")
    assert done.exit_code == 1
    assert "no image has a mask of its name\n1 problem\n" in done.output


@pytest.mark.usefixtures("work")
def test_other_kinds_are_asked_for_in_the_same_way():
    Path("masks").mkdir()
    Image.new("L", (30, 20), 255).save("masks/a.png")
    table = ("0=background", "255=gland")
    done = gsd("import", "folder", "--images", "pictures", "--masks", "masks", *table, "-o", "f")
    assert "1 gland: 100.00 %" in done.output
    for kind, told in (("monuseg", "XML file"), ("glas", "annotation")):
        done = gsd("import", kind, "pictures", "-o", "x")
        assert done.exit_code == 1
        assert told in done.output
    Path("a.geojson").write_text("[]")
    done = gsd("import", "qupath", "pictures/a.png", "--annotations", "a.geojson", "-o", "x")
    assert "a.geojson: holds no outline with a class: it is empty" in done.output
    assert gsd("check").exit_code == 2


@pytest.mark.usefixtures("work")
def test_slides_that_cannot_be_cut_are_counted():
    Image.new("RGB", (80, 80), (180, 90, 150)).save("pictures/b.png")
    Path("pictures/c.png").write_bytes(Path("pictures/b.png").read_bytes()[:60])
    sizes = ("--mpp", "0.5", "--image-mpp", "0.5", "--tile-size", "32", "--tissue", "0")
    done = gsd("tiles", "pictures", *sizes, "-o", "tiles", "-q")
    assert done.exit_code == 1
    assert "tiles: 4 tiles of 2 slides; 1 slide could not be read" in done.output
