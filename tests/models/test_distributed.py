"""The network in two processes: gradients are those of one, and the processes end well."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import torch

SCRIPT = Path(__file__).with_name("process_of_two.py")


def test_gradients_of_two_processes_are_those_of_one(tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    subprocess.run(
        [sys.executable, *launcher, SCRIPT, tmp_path],
        check=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    found = torch.load(tmp_path / "gradients.pt", weights_only=True)
    alone = runpy.run_path(str(SCRIPT))
    expected = alone["gradients"](alone["network"](), *alone["batch"]())
    assert found.keys() == expected.keys()
    for name, grad in expected.items():
        scale = grad.abs().max().clamp(min=1e-6)
        torch.testing.assert_close(found[name] / scale, grad / scale, atol=1e-4, rtol=0, msg=name)
    for rank in range(2):
        # One that is left may give a tensor back to an interpreter that is gone, which aborts.
        assert "gloo" not in (tmp_path / f"threads{rank}").read_text()
