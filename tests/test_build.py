"""What a build gives where something is missing, and what the wheel contains."""

import importlib.util
import os
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

import genselfdiff

ROOT = Path(__file__).parents[1]

PLAIN = """
import torch
from genselfdiff import kernels
from genselfdiff.info import describe

@torch.jit.script
def noisy(x, t, table):
    return torch.ops.gsd.add_noise(x, t, table, 1, 0)[0]

x = torch.zeros(2, 3, requires_grad=True)
t, table = torch.zeros(2, dtype=torch.int64), torch.full((1,), 0.25).double()
direct, _ = kernels.add_noise(x, t, table, seed=1)
assert torch.equal(noisy(x, t, table), direct)
(grad,) = torch.autograd.grad(noisy(x, t, table).sum(), x)
assert grad.tolist() == [[0.5] * 3] * 2
torch.library.opcheck(torch.ops.gsd.add_noise.default, (x, t, table, 1, 0))
torch.library.opcheck(torch.ops.gsd.p2_loss.default, (x, x.detach() + 1, t, table, True))
print(dict(describe())["native kernels"])
print(describe()[-1][0])
"""


@pytest.fixture(scope="module")
def plain_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that a machine without a working C++ compiler builds."""
    pytest.importorskip("scikit_build_core", reason="the build backend is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*command, "--no-cache-dir", "-v", "-w", str(folder), str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CXX": "false"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "genselfdiff: WARNING: no native kernels were built" in done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_without_a_compiler_the_wheel_is_plain_and_its_name_says_so(plain_wheel: Path) -> None:
    assert "NOT_NATIVE" in plain_wheel.name
    assert plain_wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(plain_wheel).namelist()
    assert "genselfdiff/pages/templates/report.html" in names
    assert {"genselfdiff/kernels/__init__.py", "gsd/main.py"} <= set(names)
    models = {path.name for path in (ROOT / "genselfdiff" / "shipped").iterdir()}
    assert {f"genselfdiff/shipped/{name}" for name in models} <= set(names)
    page = ("index.html", "main.js", "openseadragon.js", "openseadragon-LICENSE.txt")
    assert {f"genselfdiff/viewer/static/{name}" for name in page} <= set(names)
    assert plain_wheel.stat().st_size < 20_000_000
    assert not [name for name in names if name.endswith((".so", ".dylib", ".pyd"))]
    (entry_points,) = [name for name in names if name.endswith("entry_points.txt")]
    assert "gsd = gsd.main:main" in zipfile.ZipFile(plain_wheel).read(entry_points).decode()


def test_the_plain_wheel_works_and_says_that_it_is_slower(
    plain_wheel: Path, tmp_path: Path
) -> None:
    zipfile.ZipFile(plain_wheel).extractall(tmp_path / "site")
    script = tmp_path / "plain.py"
    script.write_text(PLAIN)
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "NO, slower plain torch is used: this installation was made without them",
        "to rebuild",
    ]


@pytest.mark.skipif(
    not (ROOT / "genselfdiff" / "shipped" / "nuclei.safetensors").exists(),
    reason="the weights are not in this copy of the source",
)
def test_the_wheel_segments_without_home_or_a_place_to_write(
    plain_wheel: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(plain_wheel).extractall(site)
    before = sorted(site.rglob("*"))
    pixels = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "field.png")
    masks = [tmp_path / "first.tif", tmp_path / "second.tif"]
    for mask in masks:
        command = ["-B", "-m", "gsd", "segment", "field.png", "--mpp", "0.25", "-o", str(mask)]
        done = subprocess.run(
            [sys.executable, *command, "--no-tissue", "--device", "cpu"],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={"PYTHONPATH": str(site), "TMPDIR": "/nowhere", "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.startswith("model: nuclei, shipped with gsd")
    assert masks[0].read_bytes() == masks[1].read_bytes()
    assert sorted(site.rglob("*")) == before


@pytest.fixture
def find_torch() -> ModuleType:
    spec = importlib.util.spec_from_file_location("find_torch", ROOT / "csrc" / "find_torch.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fake_torch(folder: Path, version: str, *, headers: bool) -> Path:
    folder.mkdir()
    (folder / "version.py").write_text(f"__version__ = '{version}'\n")
    if headers:
        stable = folder / "include" / "torch" / "csrc" / "stable"
        stable.mkdir(parents=True)
        (stable / "library.h").touch()
    return folder


def test_torch_is_found_by_path(
    find_torch: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    old = fake_torch(tmp_path / "old", "2.9.1", headers=True)
    good = fake_torch(tmp_path / "good", "2.10.0+cpu", headers=True)
    monkeypatch.setattr(find_torch, "candidates", lambda: [tmp_path / "none", old, good])
    find_torch.main()
    assert capsys.readouterr().out.splitlines() == [good.as_posix(), "2.10.0+cpu"]


def test_without_a_usable_torch_the_build_says_what_it_found(
    find_torch: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = fake_torch(tmp_path / "old", "2.9.1", headers=True)
    bare = fake_torch(tmp_path / "bare", "2.12.0", headers=False)
    monkeypatch.setattr(find_torch, "candidates", lambda: [old, bare])
    with pytest.raises(SystemExit, match=r"torch 2\.10 or newer.* found: 2\.9\.1 in .*, 2\.12\.0"):
        find_torch.main()
    monkeypatch.setattr(find_torch, "candidates", list)
    with pytest.raises(SystemExit, match="found: none"):
        find_torch.main()


def test_the_installed_version_is_that_of_the_code() -> None:
    assert metadata.version("genselfdiff") == genselfdiff.__version__


def test_make_alone_lists_the_targets() -> None:
    done = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, check=True)
    for target in ("setup", "demo", "test", "lint", "clean"):
        assert f"make {target} " in done.stdout
