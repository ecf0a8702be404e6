"""Folders that somebody else has prepared: all kinds of files under our names, jobs changed."""

import json
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import genselfdiff
from genselfdiff.errors import GsdError
from genselfdiff.models.model_file import LoadedModel, load_model, save_model
from genselfdiff.segmenting.many_slides import segment_all
from genselfdiff.segmenting.plan import plan_outputs
from genselfdiff.segmenting.shards.merge import merge_parts
from genselfdiff.segmenting.shards.part import Shard

SOAK = pytest.param(range(3, 200), marks=pytest.mark.soak)

OUTPUTS = ("m.tif", "m_probabilities.tif", "m.geojson", "m_overlay.png", "m.html")
NAMES = [
    *OUTPUTS,
    *(f".{name}.{end}" for name in OUTPUTS for end in ("partial", "journal")),
    *(f".{name}.gsd-{number}{Path(name).suffix}" for name in OUTPUTS for number in (0, 1)),
]

VALUES: list[Any] = [
    *(None, True, 0, -1, 2**70, 1e308, float("nan"), [], {}, [[]], {"a": 1}, [0, 10**9]),
    *("", "..", "../mine/thesis", "/etc/passwd", "a" * 5000, "\ud800", "\x1b[2J", "-rf", "1"),
]


@pytest.fixture
def model(tmp_path, conv_net, info) -> LoadedModel:
    save_model(conv_net(kernel=5), info(3, mpp=0.5), tmp_path / "model.ts")
    return load_model(tmp_path / "model.ts", "cpu")


@pytest.fixture
def mine(tmp_path) -> Iterator[Path]:
    """A folder of the user's, which nothing changes."""
    folder = tmp_path / "mine"
    folder.mkdir()
    thesis = folder / "thesis"
    thesis.write_bytes(b"precious")
    thesis.chmod(0o600)
    before = thesis.stat()
    yield folder
    after = thesis.stat()
    assert os.listdir(folder) == ["thesis"]
    assert thesis.read_bytes() == b"precious"
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


def plant(rng: random.Random, path: Path, mine: Path) -> None:
    kind = rng.randrange(7)
    if kind < 3:
        path.symlink_to((mine / "thesis", mine / "new", mine)[kind])
    elif kind == 3:
        os.link(mine / "thesis", path)
    elif kind == 4:
        os.mkfifo(path)
    elif kind == 5:
        path.mkdir()
    else:
        path.write_bytes(rng.randbytes(rng.randrange(200)))


@pytest.mark.parametrize("seeds", [range(3), SOAK])
def test_a_prepared_folder_leads_nowhere(tmp_path, picture, write_slide, model, mine, seeds):
    slide = write_slide(picture(90, 70))
    for seed in seeds:
        rng = random.Random(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        for name in rng.sample(NAMES, rng.randint(1, 5)):
            plant(rng, folder / name, mine)
        with suppress(GsdError):
            genselfdiff.segment(
                slide,
                folder / "m.tif",
                model,
                overwrite=rng.random() < 0.7,
                **dict.fromkeys(("probabilities", "geojson", "overlay", "report"), True),
            )
        assert (mine / "thesis").read_bytes() == b"precious", seed


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in JSON there is a value."""
    inner = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in inner:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


@pytest.mark.parametrize("seeds", [range(3), SOAK])
def test_a_changed_job_leads_nowhere(tmp_path, picture, write_slide, model, mine, seeds):
    (tmp_path / "whole").mkdir()
    plan = plan_outputs([write_slide(picture(300, 70))], tmp_path / "whole" / "m.tif")
    for index in (1, 2):
        list(segment_all(plan, model, shard=Shard(index, 2), overlay=True, probabilities=True))
    for seed in seeds:
        rng = random.Random(seed)
        folder = tmp_path / "changed" / str(seed)
        shutil.copytree(tmp_path / "whole", folder)
        job = folder / "m.tif.shards" / "job.json"
        content = json.loads(job.read_text())
        for _ in range(rng.randint(1, 3)):
            *way, last = rng.choice(list(places(content)))
            place = content
            for key in way:
                place = place[key]
            place[last] = rng.choice(VALUES)
        job.write_text(json.dumps(content))
        with suppress(GsdError):
            merge_parts(folder / "m.tif")
        there = {path.name for path in folder.iterdir()}
        assert there <= {"m.tif", "m.tif.shards", *OUTPUTS, "summary.csv"}, seed
    assert {path.name for path in (tmp_path / "changed").iterdir()} == set(map(str, seeds))
