"""Looks at processors, memory, kernels, and whether torch, Triton and a GPU's driver fit."""

import os
import re
import resource
import warnings
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import torch
from packaging.requirements import Requirement

from genselfdiff.doctor.findings import Finding, ok, warning, wrong
from genselfdiff.doctor.limits import limits_here
from genselfdiff.errors import GsdError, one_line
from genselfdiff.info import processor_name, rebuild_steps, usable_cores
from genselfdiff.kernels import native
from genselfdiff.kernels.backends import OLDEST_GPU
from genselfdiff.text import counted

GIB = 2**30

_LITTLE_MEMORY, _TOO_LITTLE_MEMORY = 4 * GIB, GIB
"""Bytes; segmenting a large slide with the model that comes with gsd takes about 2 GiB."""

_LITTLE_SHARED = GIB // 2
_FEW_FILES = 512


def machine_findings() -> Iterator[Finding]:
    """All of this machine."""
    yield from processors()
    yield from memory()
    yield from shared_memory()
    yield from open_files()
    yield from kernels_in_use()
    yield from triton()
    yield from gpus()


def processors(root: Path = Path("/")) -> Iterator[Finding]:
    """Which there are, how many may be used, and whether the threads are as many."""
    cores, granted = usable_cores(), limits_here(root).processors
    may_use = cores if granted is None else min(cores, max(round(granted), 1))
    limit = "" if granted is None else f", of which the control group grants {granted:g}"
    yield ok("processor", f"{processor_name()}, {counted(cores, 'core')}{limit}")
    threads = torch.get_num_threads()
    told = f"{threads} for {may_use} processors"
    if threads > may_use:
        advice = f"set OMP_NUM_THREADS={may_use}: threads that share a processor wait for others"
        yield warning("threads", told, advice)
    elif 2 * threads < may_use:
        yield warning("threads", told, f"set OMP_NUM_THREADS={may_use}, or unset it")
    else:
        yield ok("threads", told)
    load = os.getloadavg()[0]
    if load > 1.5 * cores:
        advice = "end other programs, or give fewer threads to each (OMP_NUM_THREADS)"
        yield warning("load", f"{load:.1f} processes want {counted(cores, 'core')}", advice)


def memory(root: Path = Path("/")) -> Iterator[Finding]:
    """What is free, and what may be used."""
    found = None
    with suppress(OSError):
        found = re.search(r"^MemAvailable:\s*(\d+) kB", (root / "proc/meminfo").read_text(), re.M)
    if found is None:
        return
    free, limit = int(found[1]) * 1024, limits_here(root).memory
    usable = free if limit is None else min(free, limit)
    told = f"{free / GIB:.1f} GiB free"
    if limit is not None:
        told += f", the control group grants {limit / GIB:.1f} GiB"
    if usable < _TOO_LITTLE_MEMORY:
        yield wrong("memory", told, "end other programs, or ask the batch system for 4 GiB")
    elif usable < _LITTLE_MEMORY:
        yield warning("memory", told, f"gsd segment --max-memory {usable / GIB * 0.8:.1f}G")
    else:
        yield ok("memory", told)


def shared_memory(folder: Path = Path("/dev/shm")) -> Iterator[Finding]:
    """By it the processes that read for training hand over what they have read."""
    if not folder.is_dir():
        return
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    told = f"{free / GIB:.2f} GiB free in {folder}"
    if free < _LITTLE_SHARED:
        advice = "gsd train --workers 0, or give a container more (docker run --shm-size=2g)"
        yield warning("shared memory", told, advice)
    else:
        yield ok("shared memory", told)


def open_files() -> Iterator[Finding]:
    """How many files may be open at once."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < _FEW_FILES:
        yield warning("open files", f"{most} at most", "ulimit -n 4096")


def kernels_in_use() -> Iterator[Finding]:
    """Whether the native kernels are there and as fast as the processor lets them be."""
    try:
        used = native.selected_isa()
    except GsdError as error:
        yield wrong("kernels", one_line(error), "unset GSD_CPU_ISA")
        return
    build = native.build()
    if build is None:
        asked = native.problem() == native.REFUSED
        advice = "unset GSD_KERNELS" if asked else " ".join(rebuild_steps())
        yield warning("kernels", f"slower plain torch: {native.problem()}", advice)
    elif os.environ.get("GSD_CPU_ISA"):
        advice = "unset it: gsd then takes the best that the processor has"
        yield warning("kernels", f"{used}, which GSD_CPU_ISA asks for", advice)
    else:
        yield ok("kernels", f"{used}; compiled are {', '.join(build.isas)}")


def triton() -> Iterator[Finding]:
    """Whether Triton is the one that torch was made with."""
    needed = [
        requirement
        for requirement in map(Requirement, metadata.requires("torch") or ())
        if "triton" in requirement.name
        and (requirement.marker is None or requirement.marker.evaluate({"extra": ""}))
    ]
    for requirement in needed:
        advice = f"pip install '{requirement.name}{requirement.specifier}'"
        try:
            there = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            told = f"{requirement.name} is missing: GPUs run slower plain torch"
            yield warning("torch", f"{torch.__version__}; {told}", advice)
            continue
        if requirement.specifier.contains(there, prereleases=True):
            yield ok("torch", f"{torch.__version__}, {requirement.name} {there}")
        else:
            told = f"{requirement.name} {there} is not the one that it needs"
            yield warning("torch", f"{torch.__version__}; {told}", advice)
    if not needed:
        yield ok("torch", torch.__version__)


def gpus(root: Path = Path("/")) -> Iterator[Finding]:
    """Whether torch can use the GPUs that are there, and what is free of their memory."""
    driver = _nvidia_driver(root)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    if usable:
        for index in range(torch.cuda.device_count()):
            yield _gpu(index, driver)
    elif torch.backends.mps.is_available():
        yield ok("gpu", "Apple's")
    elif driver is None:
        yield ok("gpu", "none")
    elif torch.version.cuda is None and torch.version.hip is None:
        advice = "install one for GPUs: https://pytorch.org/get-started/locally"
        yield warning("gpu", f"there is a driver, {driver}, but torch is built for CPUs", advice)
    else:
        cause = "".join(f" ({str(warned.message).splitlines()[0]:.200})" for warned in told[:1])
        yield wrong(
            "gpu",
            f"torch for CUDA {torch.version.cuda} can use none with driver {driver}{cause}",
            "update the driver, or install torch for an older CUDA; in a container, give it the"
            " GPU (docker run --gpus all); look at CUDA_VISIBLE_DEVICES",
        )


def _gpu(index: int, driver: str | None) -> Finding:
    properties = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    subject, capability = f"gpu {index}", (properties.major, properties.minor)
    told = f"{properties.name}, {free / GIB:.0f} of {total / GIB:.0f} GiB free, driver {driver}"
    if capability < OLDEST_GPU:
        told += f"; compute capability {properties.major}.{properties.minor} runs plain torch"
        advice = "kernels of ours want one of {}.{} or newer".format(*OLDEST_GPU)
        return warning(subject, told, advice)
    if free < total / 2:
        advice = "another program holds the rest: nvidia-smi names it; choose a GPU by --device"
        return warning(subject, told, advice)
    return ok(subject, told)


def _nvidia_driver(root: Path) -> str | None:
    """The version of the kernel's part of NVIDIA's driver; None: it is not loaded."""
    with suppress(OSError):
        text = (root / "proc/driver/nvidia/version").read_text()
        found = re.search(r"\d+\.\d+(\.\d+)?", text.partition("Kernel Module")[2])
        return found[0] if found else "of an unknown version"
    return None
