"""Tensors on a device that is not the others' are refused, or brought over."""

import subprocess
import sys
from pathlib import Path

from .conftest import DEVICE


def test_tensors_on_another_device_do_no_harm(request):
    script = Path(__file__).with_name("bad_devices.py")
    done = subprocess.run(
        [sys.executable, str(script), DEVICE.type, "cpu"],
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout)
    request.node.user_properties.append(("outcomes", done.stdout.count("\n")))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "WRONG" not in done.stdout
