"""Help, completion, lists and mistakes: answered before anything large is loaded."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from gsd.main import main

MISTAKES = [
    ["sgment"],
    ["segment", "--modl", "x"],
    ["segment", "a.svs"],
    ["segment", "a.svs", "-o", "m.tif", "--tta", "3"],
    ["segment", "a.svs", "-o", "m.tif", "--shard", "3/2"],
    ["segment", "a.svs", "-o", "m.tif", "--dask", "here"],
    ["segment", "a.svs", "-o", "m.tif", "--tissue-mask", "t.png", "--no-tissue"],
    ["segment", "a.svs", "b.svs", "-o", "out/", "--overlay-to", "o.png"],
    ["train", "pretrian"],
    ["train", "pretrain", "--out", "run"],
    ["train", "pretrain", "tiles", "--mpp", "0.5"],
    ["train", "finetune", "--resume"],
    ["train", "finetune", "--images", "i", "--masks", "m", "--init", "none", "--classes", "a,b"],
    ["data", "check"],
    ["data", "import", "qupath", "slides"],
    ["data", "corrections"],
    ["objects", "mask.tif"],
    ["view"],
    ["view", "a.svs", "--port", "70000"],
    ["unknown", "a.svs", "-o", "m.tif"],
    ["suggest", "a.svs", "-o", "f.geojson", "--by", "chance"],
    ["suggest", "a.svs", "-o", "f.geojson", "--by", "random", "--model", "nuclei"],
    ["evaluate", "nuclei"],
    ["sample", "run", "-o", "a.png", "--from", "a.svs", "--size", "64"],
    ["models", "show"],
    ["doctor", "--dask", "here"],
]

PROGRAM = """
import json, sys
import click
from click.shell_completion import ShellComplete
from click.testing import CliRunner
import genselfdiff
from gsd.main import main

assert "segment" in dir(genselfdiff)

def lines(command, path):
    yield [*path, "--help"]
    if isinstance(command, click.Group):
        for name in command.list_commands(None):
            yield from lines(command.get_command(None, name), [*path, name])

shell = ShellComplete(main, {}, "gsd", "_GSD_COMPLETE")
for words, begun in ([], ""), (["segment"], "--"), (["segment", "--model"], "n"):
    assert shell.get_completions(words, begun), words
for line in lines(main, []):
    assert CliRunner().invoke(main, line).exit_code == 0, line
assert CliRunner().invoke(main, ["models"]).exit_code == 0
for line in json.loads(sys.argv[1]):
    assert CliRunner().invoke(main, line).exit_code == 2, line
missing = CliRunner().invoke(main, ["segment", "a.svs", "-o", "m.tif"])
assert missing.stderr == "Error: a.svs: no such file or folder\\n", missing.output
print(*(name for name in ("torch", "scipy", "skimage", "matplotlib") if name in sys.modules))
"""


def test_nothing_large_is_loaded_for_them() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(MISTAKES)], capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout) == (0, "\n"), ended.stderr


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("sgment", "segment"),
        ("segment a.svs --modl x", "--model"),
        ("train pretrian", "pretrain"),
        ("data import monseg", "monuseg"),
    ],
)
def test_what_is_misspelt_is_answered_with_what_is_near(line: str, meant: str) -> None:
    ended = CliRunner().invoke(main, line.split())
    assert ended.exit_code == 2
    assert "Did you mean" in ended.stderr
    assert f"'{meant}'" in ended.stderr.partition("Did you mean")[2]
