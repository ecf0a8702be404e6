"""Segments with hostile models; a line of JSON before and after each tells of it.

python tests/fuzz/model_worker.py KIND SEED FIRST COUNT, KIND being torchscript or others
"""

import io
import json
import logging
import os
import resource
import shutil
import sys
import tempfile
import traceback
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import tifffile
import torch
from format_attacks import spoil, write_models
from mutations import mutate
from worker import ADDRESS_SPACE, Darkness, memory

from genselfdiff.errors import GsdError
from genselfdiff.models.model_file import load_model, save_model
from genselfdiff.models.model_info import ModelInfo
from genselfdiff.models.registry import create_model
from genselfdiff.models.wrapping import wrap_model
from genselfdiff.segmenting.one_slide import segment

Members = dict[str, bytes]
Attack = Callable[[Members, np.random.Generator], str]

_ACTS = (
    'torch.save(x, "written")',
    'ops.aten.save(x, "written")',
    'torch.from_file("secret", True, 8)',
    'print("owned")',
    "torch.manual_seed(1)",
    "ops.profiler._record_function_enter_new('x', None)",
    "fork(x)",
    "x.set_data(x)",
    "torch.set_(x, x)",
    "torch.as_strided(x, [99999999], [1], 0)",
    "torch.empty([1000000000000])",
    "ops.prim.PythonOp()",
    "__torch__.torch.classes.x.y.z()",
)
_NAMES = ("../../written", "/tmp/written", "code/../../x.py", "data/x", "model/code/__torch__.py")


INFO = ModelInfo(
    *(("background", "nucleus"), ((0, 0, 0), (255, 0, 0)), 0.5, 64, "minus_one_one"), licence="MIT"
)


def models() -> list[Members]:
    """A network of the package with its own kernels, and one of plain operators."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for network in (create_model("tiny", out_channels=2), Darkness()):
            save_model(network, INFO, Path(folder, "model.ts"))
            with zipfile.ZipFile(Path(folder, "model.ts")) as archive:
                found.append({name: archive.read(name) for name in archive.namelist()})
    return found


def _act(members: Members, rng: np.random.Generator) -> str:
    """A line of code that does something else, in any method."""
    names = [name for name in members if name.endswith(".py") and b"  def " in members[name]]
    name = str(rng.choice(names))
    lines = members[name].decode().split("\n")
    starts = [
        i for i, line in enumerate(lines) if line.rstrip().endswith(":") and "class" not in line
    ]
    act = str(rng.choice(_ACTS))
    place = int(rng.choice(starts))
    indent = " " * (len(lines[place]) - len(lines[place].lstrip()) + 2)
    lines.insert(place + 1, f"{indent}_evil = {act}")
    members[name] = "\n".join(lines).encode()
    return f"{name}: {act}"


def _operator(members: Members, rng: np.random.Generator) -> str:
    """Any operator that torch has, in the place of another."""
    schemas = torch._C._jit_get_all_schemas()
    operator = schemas[int(rng.integers(len(schemas)))].name
    names = [name for name in members if name.endswith(".py") and b"torch." in members[name]]
    name = str(rng.choice(names))
    parts = members[name].decode().split("torch.")
    place = int(rng.integers(1, len(parts)))
    rest = parts[place].lstrip("abcdefghijklmnopqrstuvwxyz_0123456789")
    parts[place] = f"{operator.split('::')[1]}{rest}"
    members[name] = "torch.".join(parts).encode()
    return f"{name}: {operator}"


def _damage(members: Members, rng: np.random.Generator) -> str:
    """Damaged content of any file: code, values, tensors, metadata."""
    small = [name for name in members if name.split("/")[-2] != "data"]
    name = str(rng.choice(small if rng.random() < 0.8 else list(members)))
    members[name], told = mutate(members[name], rng)
    return f"{name}: {told}"


def _value(members: Members, rng: np.random.Generator) -> str:
    """An odd value in the metadata."""
    name = next(name for name in members if name.endswith("gsd.json"))
    content = json.loads(members[name])
    key = str(rng.choice(list(content)))
    odd = [None, -1, 1e308, float("nan"), 10**400, "x" * 10**6, [], {}, [[[]]], True, "\x1b[31m"]
    content[key] = odd[int(rng.integers(len(odd)))]
    members[name] = json.dumps(content).encode()
    return f"{key} is {str(content[key])[:20]}"


def _stranger(members: Members, rng: np.random.Generator) -> str:
    """A file that no model has."""
    name = str(rng.choice(_NAMES))
    members[name] = b"def f(x):\n  return x\n"
    return f"holds {name}"


def _lost(members: Members, rng: np.random.Generator) -> str:
    name = str(rng.choice(list(members)))
    del members[name]
    return f"lacks {name}"


_ATTACKS: tuple[Attack, ...] = (_act, _act, _operator, _operator, _damage, _value, _stranger, _lost)


def hostile(found: list[Members], seed: int, number: int) -> tuple[bytes, str]:
    """The model file of that number, and what is wrong with it."""
    rng = np.random.default_rng((seed, number))
    members = dict(found[number % len(found)])
    told = _ATTACKS[int(rng.integers(len(_ATTACKS)))](members, rng)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    if rng.random() < 0.2:
        data, more = mutate(content.getvalue(), rng)
        return data, f"{told}; {more}"
    return content.getvalue(), told


Hostile = Callable[[int, int], tuple[Path, str]]
"""Writes the model of a seed and a number here; returns it, and what is wrong with it."""


def torchscript() -> Hostile:
    """Model files in TorchScript."""
    found = models()

    def write(seed: int, number: int) -> tuple[Path, str]:
        data, told = hostile(found, seed, number)
        Path("model.ts").write_bytes(data)
        return Path("model.ts"), told

    return write


def others(folder: Path) -> Hostile:
    """Models in all other formats, of which good ones are written to ``folder``."""
    found = write_models(folder, Darkness(), INFO)
    for path in found:
        with suppress(GsdError):  # a package for other programs is always refused
            use(path)  # loads the libraries, before memory is counted

    def write(seed: int, number: int) -> tuple[Path, str]:
        source = found[number % len(found)]
        model = Path(source.name)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, model)
        return model, f"{source.name}: {spoil(model, np.random.default_rng((seed, number)))}"

    return write


def use(model: Path, slide: Path | None = None) -> None:
    """Do with a model what can be done with it; raises GsdError where it is refused."""
    if model.suffix == ".pth":
        wrap_model(model, classes=INFO.classes, mpp=0.5, architecture="unet", device="cpu")
        return
    loaded = load_model(model, "cpu")
    if slide is not None:
        segment(slide, "mask.tif", loaded, device="cpu", precision="float32", tissue=False)


def try_one(write: Hostile, slide: Path, seed: int, number: int) -> dict[str, object]:
    """Segment with the model of that number, in a folder that holds a secret."""
    with tempfile.TemporaryDirectory() as above:
        folder = Path(above, "here")
        folder.mkdir()
        os.chdir(folder)
        Path("secret").write_text("secret!!")
        model, told = write(seed, number)
        before = set(os.listdir())
        outcome, message = "mask", ""
        try:
            use(model, slide)
        except GsdError as error:
            outcome, message = "refused", str(error)
        except Exception:
            outcome, message = "unexpected", traceback.format_exc()
        more = set(os.listdir()) - before - {"mask.tif"}
        if more or Path("secret").read_text() != "secret!!":
            outcome, message = "acted", f"{sorted(more)}: {message}"
        os.chdir("/")
    return {"number": number, "told": told, "outcome": outcome, "message": message}


def main() -> None:
    """Try the numbers, one after another."""
    kind, *numbers = sys.argv[1:]
    seed, first, count = map(int, numbers)
    logging.disable()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "good")
        folder.mkdir()
        slide = Path(temporary, "slide.tif")
        pixels = np.random.default_rng(0).integers(0, 256, (96, 80, 3), np.uint8)
        tifffile.imwrite(slide, pixels, resolution=(20_000, 20_000), resolutionunit=3)
        write = torchscript() if kind == "torchscript" else others(folder)
        limit = memory("VmSize") + ADDRESS_SPACE
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        for number in range(first, first + count):
            print(json.dumps({"number": number}), flush=True)
            print(json.dumps(try_one(write, slide, seed, number)), flush=True)


if __name__ == "__main__":
    main()
