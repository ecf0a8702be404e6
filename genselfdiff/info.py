"""What this installation is and what it will run with: the text of ``gsd info``."""

import json
import os
import platform
import shlex
import shutil
import sys
from importlib import metadata
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import torch

import genselfdiff
from genselfdiff import kernels
from genselfdiff.errors import GsdError
from genselfdiff.kernels import convolution_rules, native
from genselfdiff.kernels.backends import launched_from_cpp
from genselfdiff.models.shipped import catalogue
from genselfdiff.text import counted
from genselfdiff.version import __version__

UNTRIED = "no GPU has run them yet"


def describe() -> list[tuple[str, str]]:
    """Versions, processor, kernels and GPUs as (what, value) lines, in reading order.

    Where the native kernels are missing unasked, the last line is the command that builds them.
    """
    lines = [
        ("genselfdiff", f"{__version__} in {Path(genselfdiff.__file__).parent}"),
        ("torch", torch.__version__),
        ("python", f"{platform.python_version()} ({sys.executable})"),
        ("system", platform.platform()),
        ("processor", f"{processor_name()}, {counted(usable_cores(), 'core')}"),
    ]
    gpus = _gpus()
    lines += gpus or [("gpu", "none")]
    lines.append(("models", ", ".join(catalogue.names()) or "none came with it"))
    lines += _native_lines()
    devices = ["cpu", *sorted({kind for kind, _ in gpus})]
    for operation in kernels.OPERATIONS:
        chosen = []
        for device in devices:
            try:
                backend = operation.backend(torch.device(device), torch.float32)
                if backend == "triton":
                    backend = f"triton ({UNTRIED})"
            except GsdError as error:
                backend = str(error)
            chosen.append(f"{device}: {backend}")
        lines.append((operation.name, "; ".join(chosen)))
    lines.append(("convolutions", _convolutions()))
    if not native.available() and native.problem() != native.REFUSED:
        lines += [("to rebuild", step) for step in rebuild_steps()]
    return lines


def rebuild_command() -> str:
    """The shell command that installs this package anew, with its native kernels."""
    pip = f"{shlex.quote(sys.executable)} -m pip install --force-reinstall --no-deps"
    source = _source_folder()
    return f"{pip} {shlex.quote(str(source)) if source else 'FOLDER_OF_THE_SOURCE_CODE'}"


def _native_lines() -> list[tuple[str, str]]:
    build = native.build()
    if build is None:
        return [("native kernels", f"NO, slower plain torch is used: {native.problem()}")]
    if build.triton_version:
        on_gpu = (
            f"forward {' and '.join(sorted(launched_from_cpp))} of an exported model, by Triton"
            f" {build.triton_version} for compute capability 8.x, 9.0 and (compiled by the driver)"
            f" newer; {UNTRIED}"
        )
    else:
        on_gpu = "none for exported models: Triton was not installed when this was built"
    try:
        used = native.selected_isa()
    except GsdError as error:
        used = str(error)
    return [
        ("native kernels", f"yes, by {build.compiler} with torch {build.torch_version}"),
        ("library", str(build.library)),
        ("cpu features", " ".join(build.cpu_features) or "none that the kernels use"),
        ("compiled for", ", ".join(build.isas)),
        ("kernels use", used),
        ("compiled for gpu", on_gpu),
    ]


def _convolutions() -> str:
    try:
        return convolution_rules.told()
    except GsdError as error:
        return str(error)


def rebuild_steps() -> list[str]:
    """What to do to have native kernels, in order; the last step is a command."""
    steps = []
    compiler = os.environ.get("CXX")
    names = shlex.split(compiler)[:1] if compiler else ["c++", "g++", "clang++"]
    if not any(map(shutil.which, names)):
        steps.append(f"first install a C++ compiler (no {' or '.join(names)} was found); then:")
    return [*steps, rebuild_command()]


def _source_folder() -> Path | None:
    """The folder this package was installed from, or is imported from; None if it is gone."""
    folders = [Path(genselfdiff.__file__).parents[1]]
    try:
        record = metadata.distribution("genselfdiff").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        record = None
    if record:
        folders.append(Path(url2pathname(urlparse(json.loads(record)["url"]).path)))
    return next((folder for folder in folders if (folder / "CMakeLists.txt").is_file()), None)


def processor_name() -> str:
    """The model of the processor, as the system tells it, and its architecture."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line]
    return f"{names[0] if names else platform.processor() or 'unknown'} ({platform.machine()})"


def usable_cores() -> int:
    """Cores that this process may be put on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpus() -> list[tuple[str, str]]:
    """(device type, description) of every GPU that torch can use."""
    found = []
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        found.append(("cuda", f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB"))
    if torch.backends.mps.is_available():
        found.append(("mps", "Apple GPU"))
    return found
