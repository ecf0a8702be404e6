"""Runs of the real command that are killed at random moments and started again."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from genselfdiff.models.model_file import save_model

_PROGRAM = """
import sys, time
from genselfdiff.masks import pyramid_writer
from genselfdiff.masks.bigtiff import BigTiffFile
from gsd.main import main

pyramid_writer.RECORD_SECONDS = 0.0
add = BigTiffFile.add_data
def slow(self, data):
    time.sleep({pause})
    return add(self, data)
BigTiffFile.add_data = slow
main(sys.argv[1:])
"""
"""The command with a record after every row of tiles, and slow enough to be killed anywhere."""


@pytest.fixture
def command(tmp_path, picture, write_slide, conv_net, info):
    """What segments a slide into ``out`` with everything beside the mask."""
    told = info(3, mpp=0.6, instances=True)
    save_model(conv_net(kernel=5, classes=5), told, tmp_path / "model.ts")
    image = picture(2200, 1200)
    image[:600] = 244
    write_slide(image)

    def make(out: str, pause: float = 0.01) -> list[str]:
        options = ["--model", "model.ts", "--overlay", "--geojson", "--probabilities", "-q"]
        program = _PROGRAM.format(pause=pause)
        return [sys.executable, "-c", program, "segment", "slide.tif", "-o", out, *options]

    return make


def start(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )


def finish(command: list[str], folder: Path) -> float:
    begin = time.monotonic()
    with start(command, folder) as process:
        error = process.communicate()[1]
    assert process.returncode == 0, error.decode()
    return time.monotonic() - begin


def check_kills(command, folder: Path, kills: int, seed: int) -> None:
    (folder / "whole").mkdir()
    (folder / "killed").mkdir()
    duration = finish(command("whole/m.tif"), folder)
    rng = random.Random(seed)
    went_on = 0
    journal = folder / "killed" / ".m.tif.journal"
    for kill in range(kills):
        with start(command("killed/m.tif"), folder) as process:
            if kill:
                time.sleep(rng.uniform(0.2, 1.0) * duration)
            else:  # one at least in the midst of writing, however busy the machine is
                while not journal.exists() and process.poll() is None:
                    time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
        visible = {path.name for path in (folder / "killed").glob("[!.]*")}
        for name in visible:
            whole, killed = folder / "whole" / name, folder / "killed" / name
            assert killed.read_bytes() == whole.read_bytes(), f"{name} appeared before it was whole"
        went_on += journal.exists()
        if "m.geojson" in visible:  # the last to come: begin anew
            for path in (folder / "killed").iterdir():
                path.unlink()
    assert went_on, "no kill came while rows were written"
    finish(command("killed/m.tif"), folder)
    left = {path.name for path in (folder / "killed").iterdir()}
    assert left == {"m.tif", "m.geojson", "m_overlay.png", "m_probabilities.tif"}
    for name in left:
        assert (folder / "killed" / name).read_bytes() == (folder / "whole" / name).read_bytes()


def test_killed_and_started_again(tmp_path, command):
    check_kills(command, tmp_path, 2, seed=0)


@pytest.mark.soak
def test_killed_twenty_times(tmp_path, command):
    check_kills(command, tmp_path, 20, seed=1)


def test_interrupted_it_ends_and_goes_on(tmp_path, command):
    """Ctrl-C, as SIGTERM, ends a run long before its mask is whole."""
    finish(command("whole.tif", pause=0), tmp_path)
    with start(command("m.tif", pause=0.1), tmp_path) as process:
        journal = tmp_path / ".m.tif.journal"
        while not (journal.exists() and journal.stat().st_size):
            time.sleep(0.01)
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        told = process.communicate()[1].decode()
    assert process.returncode == 130, told
    assert not (tmp_path / "m.tif").exists()
    assert np.fromfile(tmp_path / ".m.tif.partial", np.uint8)[:2].tobytes() == b"II"
    finish(command("m.tif", pause=0), tmp_path)
    assert (tmp_path / "m.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_two_runs_side_by_side(tmp_path, command):
    """The same command twice at once: one makes the mask, the other says so and does no harm."""
    first, second = (start(command("m.tif"), tmp_path) for _ in range(2))
    told = [process.communicate()[1].decode() for process in (first, second)]
    assert sorted((first.returncode, second.returncode)) in ([0, 0], [0, 1])
    for process, message in zip((first, second), told, strict=True):
        assert process.returncode == 0 or "another run is writing it" in message
    finish(command("alone.tif", pause=0), tmp_path)
    assert (tmp_path / "m.tif").read_bytes() == (tmp_path / "alone.tif").read_bytes()
