"""What is asked of pip leaves the torch and the Triton that are there."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TORCH_AND_ITS_TRITON = {"2.10.0": "3.6.0", "2.11.0": "3.6.0", "2.13.0": "3.7.1", "2.15.0": "3.9.0"}

# Stands in for .venv/bin/python: logs what it is asked, and has what INSTALLED says.
PYTHON = f"""#!{sys.executable}
import os, pathlib, sys
installed = os.environ["INSTALLED"].split()
with pathlib.Path("log").open("a") as log: print(*sys.argv[1:], file=log)
if "list" in sys.argv: print(*installed, sep="\\n")
if "show" in sys.argv: sys.exit(not any(each.startswith("torch==") for each in installed))
if sys.argv[1] == "-c": sys.exit(not any("triton" in each for each in installed))
"""


def test_no_requirement_of_the_package_can_replace_torch_or_its_triton() -> None:
    project = PROJECT["project"]
    lists = [
        PROJECT["build-system"]["requires"],
        project["dependencies"],
        *project["optional-dependencies"].values(),
    ]
    asked = [Requirement(text) for requirements in lists for text in requirements]
    assert not [each for each in asked if "triton" in each.name]
    of_torch = [each.specifier for each in asked if each.name == "torch"]
    assert of_torch
    for version in TORCH_AND_ITS_TRITON:
        assert all(specifier.contains(version) for specifier in of_torch)


@pytest.fixture
def installs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The pip commands of ``make setup`` where some packages are installed, and what is kept."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for folder in ("csrc", "genselfdiff", "cli", "tests/native"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "CMakeLists.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    for name in ("python", "gsd"):
        (tmp_path / ".venv" / "bin" / name).write_text(PYTHON)
        (tmp_path / ".venv" / "bin" / name).chmod(0o755)

    def set_up(*installed: str) -> tuple[list[str], str]:
        monkeypatch.setenv("INSTALLED", " ".join(installed))
        subprocess.run(["make", "-s", "-C", tmp_path, "setup"], check=True)
        lines = (tmp_path / "log").read_text().splitlines()
        kept = (tmp_path / ".venv" / ".kept").read_text()
        return [line for line in lines if "pip install" in line], kept

    return set_up


def test_setup_leaves_torch_and_triton(installs) -> None:
    commands, kept = installs("numpy==2.5.2", "torch==2.11.0+cu130", "triton==3.6.0")
    assert kept == "torch==2.11.0+cu130\ntriton==3.6.0\n"
    assert len(commands) == 2
    for command in commands:
        assert "--constraint .venv/.kept" in command
        assert " triton" not in command and " torch" not in command


def test_setup_leaves_the_triton_of_other_gpus(installs) -> None:
    commands, kept = installs("torch==2.11.0+rocm7.1", "triton-rocm==3.6.0")
    assert "triton-rocm==3.6.0\n" in kept
    assert not [command for command in commands if " triton" in command]


def test_setup_gets_the_triton_that_fits_a_torch_without_one(installs) -> None:
    """With torch named beside it, pip takes the version that this torch asks for, if it does."""
    commands, kept = installs("torch==2.13.0+cpu")
    assert kept == "torch==2.13.0+cpu\n"
    (command,) = [command for command in commands if " triton" in command]
    assert "--constraint .venv/.kept torch triton" in command
    text = command[command.index("triton") :]
    for version in TORCH_AND_ITS_TRITON.values():
        assert Requirement(text).specifier.contains(version)
