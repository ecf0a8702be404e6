"""The steps of a GPU day, in their order; see `plan.Step` for what the numbers say.

Each gives its commands, large ones on a GPU and tiny ones in a rehearsal.
"""

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

from gpu.commands import ROOT, Command, Day, python, script
from gpu.plan import Step

MARGIN = 10.0
"""Seconds that a benchmark may go on after the time that it was told."""
TEST_PROCESSES = 6
"""They compile most of the time."""


def environment(day: Day, seconds: float) -> Iterator[Command]:
    """The machine, and the most that it can do."""
    yield script("gpu/environment.py", "--device", day.device)


def build(day: Day, seconds: float) -> Iterator[Command]:
    """The package for the torch that is there, in a folder of its own."""
    install = ("-m", "pip", "install", "--no-index", "--no-deps", "--no-compile", "--target")
    if day.wheels is not None:
        yield python(*install, day.carried, *sorted(day.wheels.glob("*.whl")))
    # A rehearsal leaves the compiler out, and uses what is installed already.
    how = ["--config-settings", "wheel.cmake=false"] if day.rehearsal else []
    yield python(*install, day.package, "--no-build-isolation", *how, ROOT)
    check = script("gpu/installed.py", *(["--plain"] if day.rehearsal else []))
    yield Command(check.arguments, {"PYTHONPATH": f"{day.package}:{day.carried}"})


def tests(day: Day, seconds: float) -> Iterator[Command]:
    """`tests/gpu` on the device."""
    options = ["-p", "gpu.pytest_plugin", "-p", "no:cacheprovider", "-q", "--no-header"]
    if not day.rehearsal:
        if importlib.util.find_spec("xdist"):
            options += ["-n", str(TEST_PROCESSES)]
        if importlib.util.find_spec("pytest_timeout"):
            options += ["--timeout=60", "--timeout-method=thread"]
    tests = ROOT / "tests" / "gpu"
    configured = ("-c", ROOT / "pyproject.toml", "--rootdir", ROOT)
    yield python("-m", "pytest", tests, *configured, *options, CUBLAS_WORKSPACE_CONFIG=":4096:8")


def sanitizer(day: Day, seconds: float) -> Iterator[Command]:
    """The smallest cases with every access to memory looked at."""
    cases = script("gpu/smallest_cases.py", "--device", day.device)
    if day.rehearsal:
        yield Command(cases.arguments, {"TRITON_INTERPRET": "1"})
    tool = shutil.which("compute-sanitizer") or _newest("/usr/local/cuda*/bin/compute-sanitizer")
    for check in ("memcheck", "racecheck"):
        options = ("--tool", check, "--error-exitcode", "86", "--print-limit", "20")
        absent = "" if tool else "no compute-sanitizer"
        # Each tensor in memory of its own, so that what lies beyond it is nobody's.
        alone = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        yield Command((tool or "", *options, *cases.arguments), alone, absent)


def _newest(pattern: str) -> str | None:
    return max(map(str, Path("/").glob(pattern[1:])), default=None)


def autotune(day: Day, seconds: float) -> Iterator[Command]:
    """Which sizes of blocks are fastest."""
    absent = "" if (ROOT / "benchmarks" / "autotune.py").exists() else "benchmarks/autotune.py"
    if day.rehearsal:
        absent = "a GPU to tune for"
    told = ("--device", day.device, "--seconds", max(seconds - MARGIN, 1.0))
    command = script("autotune.py", *told, day.out / "autotune.json")
    yield Command(command.arguments, absent=absent)


def operations(day: Day, seconds: float) -> Iterator[Command]:
    """Every operation in every form."""
    sizes: tuple[object, ...] = ("--batches", 8, 64, 1, "--round", 0.05)
    if day.rehearsal:
        sizes = ("--batches", 1, "--tile", 16, "--round", 0.001, "--forms", "plain", "ours")
    yield script("time_operations.py", "--device", day.device, *sizes, *_until(seconds))


def network(day: Day, seconds: float) -> Iterator[Command]:
    """The whole network: inference, and forward and backward."""
    sizes: tuple[object, ...] = ("--batches", 8, 64, 1)
    if day.rehearsal:
        sizes = ("--batches", 1, "--architecture", "tiny", "--side", 32)
        sizes = (*sizes, "--one-process", "--forms", "plain", "ours")
    yield script("network.py", "--device", day.device, *sizes, *_until(seconds))


def training(day: Day, seconds: float) -> Iterator[Command]:
    """Steps of both stages, and what they spend their time on."""
    sizes: tuple[object, ...] = ("--batches", 8, 64, "--steps", 20, "--forms", "ours", "plain")
    sizes = (*sizes, "compile", "--precisions", "bfloat16")
    one: tuple[object, ...] = ("--batch", 64)
    if day.rehearsal:
        tiny = ("--architecture", "tiny", "--tile", 32)
        sizes = (*tiny, "--batches", 2, "--steps", 1, "--forms", "ours", "--precisions", "bfloat16")
        sizes = (*sizes, "--one-process")
        one = (*tiny, "--batch", 2)
    yield script("training_profile.py", "--device", day.device, *one)
    yield script("training.py", "--device", day.device, *sizes, *_until(0.7 * seconds))


def processes(day: Day, seconds: float) -> Iterator[Command]:
    """Torchrun with one process: the command, and steps whose gradients go through nccl."""
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1")
    yield python(*torchrun, ROOT / "benchmarks" / "gpu" / "processes.py", "--device", day.device)


def exported(day: Day, seconds: float) -> Iterator[Command]:
    """Model files, fused and portable."""
    sizes: tuple[object, ...] = ("--batches", 8, 64, 1)
    if day.rehearsal:
        sizes = ("--batches", 1, "--tile", 32, "--architecture", "tiny")
    yield script("gpu/exported_models.py", "--device", day.device, *sizes, *_until(seconds))


def masks(day: Day, seconds: float) -> Iterator[Command]:
    """`gsd segment`: labels beside those of the CPU; killed and gone on."""
    size = ("--side", 256) if day.rehearsal else ()
    yield script("gpu/masks.py", "--device", day.device, "--work", day.work / "masks", *size)


def recipe(day: Day, seconds: float) -> Iterator[Command]:
    """The shipped model's recipe, for as long as there is time."""
    seconds = min(seconds, day.train_seconds)
    absent = "" if day.data or day.rehearsal else "no --data FOLDER to train on"
    data = ("--data", day.data) if day.data else ()
    told = ("--device", day.device, "--seconds", seconds - MARGIN, "--work", day.work / "recipe")
    tiny = ("--tiny",) if day.rehearsal else ()
    command = script("gpu/recipe.py", *told, *data, *tiny, "--out", day.out)
    yield Command(command.arguments, absent=absent)


def _until(seconds: float) -> tuple[object, ...]:
    return ("--seconds", max(seconds - MARGIN, 1.0))


STEPS = (
    Step("environment", "The machine", 25, 15, 11, environment),
    Step("build", "Building", 90, 45, 12, build),
    Step("tests", "Tests", 100, 40, 10, tests),
    Step("sanitizer", "compute-sanitizer", 40, 25, 2, sanitizer),
    Step("autotune", "Sizes of blocks", 40, 20, 4, autotune),
    Step("operations", "Operations", 60, 20, 9, operations),
    Step("network", "The network", 40, 20, 5, network),
    Step("training", "Training steps", 60, 25, 8, training),
    Step("processes", "torchrun", 20, 15, 3, processes),
    Step("exported", "Exported models", 25, 15, 6, exported),
    Step("masks", "Masks", 40, 25, 7, masks),
    Step("recipe", "The nuclei model's recipe", 180, 45, 1, recipe),
)
