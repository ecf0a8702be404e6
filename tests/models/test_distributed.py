"""The network under DistributedDataParallel: gradients of two processes are those of one."""

import runpy
import subprocess
import sys
from pathlib import Path

import torch

SCRIPT = Path(__file__).with_name("process_of_two.py")


def test_gradients_of_two_processes_are_those_of_one(tmp_path):
    commands = [[sys.executable, str(SCRIPT), str(rank), str(tmp_path)] for rank in range(2)]
    processes = [subprocess.Popen(command) for command in commands]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    found = torch.load(tmp_path / "gradients.pt", weights_only=True)
    alone = runpy.run_path(str(SCRIPT))
    expected = alone["gradients"](alone["network"](), *alone["batch"]())
    assert found.keys() == expected.keys()
    for name, grad in expected.items():
        scale = grad.abs().max().clamp(min=1e-6)
        torch.testing.assert_close(found[name] / scale, grad / scale, atol=1e-4, rtol=0, msg=name)
