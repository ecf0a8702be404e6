import errno
import os
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner
from torch.utils.data import DataLoader, Dataset

from genselfdiff.errors import InputError, OutputError, one_line, outside_cause
from gsd.main import main


class Unreadable(Dataset[int]):
    def __getitem__(self, index: int) -> int:
        raise InputError("a.tif: is truncated: copy it again")

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("a.tif: is no TIFF: convert it"), "a.tif: is no TIFF: convert it"),
        (InputError("\n a.tif: is bad \n"), "a.tif: is bad"),
        (InputError("a\nb.Error: lost"), "a\\x0ab.Error: lost"),
        (ValueError("\x1b[1m"), "\\x1b[1m"),
        (InputError(""), "InputError"),
        (ValueError(" \n"), "ValueError"),
        (ValueError("x" * 1000), "x" * 200),
        (InputError("x" * 1000), "x" * 1000),
        (OSError(28, "No space left on device", "a"), "No space left on device"),
        (OutputError("a: exists"), "a: exists"),
        (RuntimeError("Failed in:\n  x\ntorch.Error: 2 != 3\n  ^ here"), "2 != 3"),
        (RuntimeError("CUDA error: bad\nCompile with X: see Y"), "CUDA error: bad"),
    ],
)
def test_one_line(error: Exception, line: str) -> None:
    assert one_line(error) == line


def test_an_error_of_a_data_loading_process_is_told_as_it_was() -> None:
    with pytest.raises(InputError) as caught:
        next(iter(DataLoader(Unreadable(), num_workers=1)))
    assert one_line(caught.value) == "a.tif: is truncated: copy it again"


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_an_error_of_torchscript_is_told_without_its_traceback() -> None:
    function = torch.jit.script(square)
    with pytest.raises(RuntimeError) as caught:
        function(torch.zeros(3))
    assert one_line(caught.value) == "shape '[2, 2]' is invalid for input of size 3"


def square(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(2, 2)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError(), "there is not enough memory"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 B"),
            "there is not enough memory",
        ),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "there is not enough memory"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (PermissionError(errno.EACCES, "Permission denied", "a.tif"), "a.tif: Permission denied"),
    ],
)
def test_causes_that_are_not_in_our_code(error, line, monkeypatch):
    assert line in outside_cause(error)

    def fail(runs):
        raise error

    monkeypatch.setattr("genselfdiff.training.comparison.compare", fail)
    ended = CliRunner().invoke(main, ["compare", "a", "b"])
    assert ended.exit_code == 1
    assert ended.stderr.startswith("Error: ")
    assert line in ended.stderr


@pytest.mark.parametrize("error", [RuntimeError("a mistake"), OSError(5, "I/O error"), KeyError(1)])
def test_mistakes_of_ours_keep_their_traceback(error, monkeypatch):
    assert outside_cause(error) is None

    def fail(runs):
        raise error

    monkeypatch.setattr("genselfdiff.training.comparison.compare", fail)
    assert CliRunner().invoke(main, ["compare", "a", "b"]).exception is error


def test_no_command_writes_into_home_before_it_begins(tmp_path):
    pytest.importorskip("zarr")  # a module of ours needs it
    program = (
        "import importlib, pkgutil, genselfdiff\nfrom gsd.main import main\n"
        "for name in main.list_commands(None): main.get_command(None, name)\n"
        "for module in pkgutil.walk_packages(genselfdiff.__path__, 'genselfdiff.'):\n"
        "    if 'triton' not in module.name and not module.name.endswith('libgsd_cpu'):\n"
        "        importlib.import_module(module.name)"
    )
    folders = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], env=os.environ | folders, check=True)
    assert os.listdir(tmp_path) == []
