"""Runs keep within the memory they are given."""

import re
import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch

import genselfdiff
from genselfdiff.errors import InputError
from genselfdiff.inference.predictor import Predictor
from genselfdiff.models.model_file import load_model, save_model
from genselfdiff.segmenting import one_slide

_PROGRAM = """
import atexit, re, pathlib, sys, torch
torch.set_num_threads(8)
from gsd.main import main
status = pathlib.Path("/proc/self/status")
atexit.register(lambda: print(re.search(r"VmHWM:.*", status.read_text())[0]))
main(sys.argv[1:])
"""


class Greedy(torch.nn.Module):
    """Holds 128 MB for a tile of 256 pixels."""

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        wide = x[:, :1].repeat(1, 512, 1, 1) + t.reshape(-1, 1, 1, 1)
        return torch.stack((wide.mean(1), -wide.mean(1)), dim=1)


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
def test_the_limit_is_kept(tmp_path, picture, write_slide, info):
    save_model(Greedy(), info(tile_size=256), tmp_path / "model.ts")
    write_slide(picture(700, 700))

    def peak(*options: str, slides: str = "slide.tif", masks: str = "m.tif") -> float:
        arguments = ["segment", slides, "-o", masks, "--model", "model.ts", "--no-tissue"]
        arguments += ["--overwrite", "--device", "cpu", "--precision", "float32", *options]
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return int(re.search(r"VmHWM:\s*(\d+) kB", done.stdout)[1]) / 1024

    free = peak()
    whole = (tmp_path / "m.tif").read_bytes()
    limit = 1700
    assert free > limit + 200, "eight workers should need more"
    assert peak("--max-memory", f"{limit}M") < limit
    (tmp_path / "slides").mkdir()
    for name in ("a.tif", "b.tif"):
        shutil.copy(tmp_path / "slide.tif", tmp_path / "slides" / name)
    several = peak("--max-memory", f"{limit}M", slides="slides", masks="masks")
    assert several < limit, "the second slide counts what the first has left once"
    assert len(whole) > 1000


def test_a_limit_that_cannot_be_kept(tmp_path, picture, write_slide, darkness_model):
    told = r"slide\.tif: needs .* with one worker, more than the 0\.10 GiB of --max-memory"
    with pytest.raises(InputError, match=told):
        genselfdiff.segment(
            write_slide(picture(300, 300)),
            tmp_path / "m.tif",
            darkness_model,
            device="cpu",
            max_memory=100 * 2**20,
        )
    assert not (tmp_path / "m.tif").exists()


def test_fewer_workers_make_the_same_mask(
    tmp_path, picture, write_slide, conv_net, info, monkeypatch
):
    save_model(conv_net(kernel=5), info(3), tmp_path / "model.ts")
    slide = write_slide(picture(300, 420))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    masks = []
    for workers in (1, 4):
        predictor = Predictor(load_model(tmp_path / "model.ts", "cpu"), "float32")
        one_thread = partial(predictor.obey, "float32", 1)
        monkeypatch.setattr(predictor, "choose_precision", lambda _, obey=one_thread: obey())
        predictor.max_workers = workers
        one_slide.segment(slide, tmp_path / f"{workers}.tif", predictor, tissue=False)
        masks.append(np.fromfile(tmp_path / f"{workers}.tif", np.uint8))
    np.testing.assert_array_equal(*masks)
