"""The steps of a GPU day, in their order; see `plan.Step` for what the numbers say.

Each gives its commands, large ones on a GPU and tiny ones in a rehearsal.
"""

import importlib.util
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from gpu.commands import ROOT, Command, Day, python, script
from gpu.plan import Step

MARGIN = 15.0
"""Seconds that a benchmark may go on after the time that it was told."""
CONFIGURED = ("-c", ROOT / "pyproject.toml", "--rootdir", ROOT)
"""For pytest."""
TEST_PROCESSES = 10
"""They compile most of the time."""


def environment(day: Day, seconds: float) -> Iterator[Command]:
    """The machine, and the most that it can do."""
    yield script("gpu/environment.py", "--device", day.device)


def build(day: Day, seconds: float) -> Iterator[Command]:
    """The package for the torch that is there, in a folder of its own."""
    install = ("-m", "pip", "install", "-v", "--no-index", "--no-deps", "--target")
    alone = {"PYTHONPATH": ""}
    if day.wheels is not None:
        yield python(*install, day.carried, *sorted(day.wheels.glob("*.whl")), **alone)
    # A rehearsal leaves the compiler out, and uses what is installed already.
    how = ["--config-settings", "wheel.cmake=false"] if day.rehearsal else []
    yield python(*install, day.package, "--no-build-isolation", *how, ROOT, **alone)
    check = script("gpu/installed.py", *(["--plain"] if day.rehearsal else []))
    yield Command(check.arguments, {"PYTHONPATH": f"{day.package}:{day.carried}"})


def tests(day: Day, seconds: float) -> Iterator[Command]:
    """`tests/gpu` on the device."""
    options = ["-p", "gpu.pytest_plugin", "-p", "no:cacheprovider", "-q", "--no-header"]
    if not day.rehearsal:
        if importlib.util.find_spec("xdist"):
            options += ["-n", str(TEST_PROCESSES), "--dist", "worksteal"]
        if importlib.util.find_spec("pytest_timeout"):
            options += ["--timeout=60", "--timeout-method=thread"]
    tests = ROOT / "tests" / "gpu"
    variables = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "OMP_NUM_THREADS": "1"}
    yield python("-m", "pytest", tests, *CONFIGURED, *options, **variables)


def memcheck(day: Day, seconds: float) -> Iterator[Command]:
    """The smallest cases with every access to memory looked at."""
    if day.rehearsal:
        yield Command(_smallest_cases(day), {"TRITON_INTERPRET": "1"})
    yield _sanitized(day, "memcheck")


def racecheck(day: Day, seconds: float) -> Iterator[Command]:
    """The same cases, looked at for threads that do not wait for each other."""
    yield _sanitized(day, "racecheck")


def _sanitized(day: Day, check: str) -> Command:
    tool = shutil.which("compute-sanitizer") or _newest("/usr/local/cuda*/bin/compute-sanitizer")
    options = ("--tool", check, "--error-exitcode", "86", "--print-limit", "20")
    absent = "it looks at GPUs" if day.rehearsal else "" if tool else "no compute-sanitizer"
    # Each tensor in memory of its own, so that what lies beyond it is nobody's.
    alone = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    arguments = (tool or "", *options, *_smallest_cases(day))
    return Command(arguments, alone, absent, may_be_cut=True)


def _smallest_cases(day: Day) -> Sequence[str]:
    return script("gpu/smallest_cases.py", "--device", day.device).arguments


def _newest(pattern: str) -> str | None:
    return max(map(str, Path("/").glob(pattern[1:])), default=None)


def autotune(day: Day, seconds: float) -> Iterator[Command]:
    """Which sizes of blocks are fastest: a file to be looked at, which no later step uses."""
    minutes = 0.01 if day.rehearsal else max(seconds - MARGIN, 1.0) / 60
    how = ("--rehearse",) if day.rehearsal else ()
    yield script("autotune.py", "--minutes", minutes, "--out", day.out / "tiles.json", *how)


def operations(day: Day, seconds: float) -> Iterator[Command]:
    """Every operation in every form; compiled ones as far as the time goes."""
    benchmark = ROOT / "benchmarks" / "test_operations.py"
    options = ("-p", "no:cacheprovider", "-q", "-s", "--tb=line", "--benchmark-quiet")
    told = ("-m", "pytest", benchmark, *CONFIGURED, *options, "--device", day.device)
    if day.rehearsal:
        small = ("--batches", 1, "--tile", 16, "--round", 0.001)
        yield python(*told, *small, "--forms", "ours")
        return
    forms = ("ours", "plain", "authors, channels_last")
    told = (*told, "--round", 0.05)
    yield python(*told, "--batches", 8, 64, 1, "--forms", *forms, *_until(day, 0.7 * seconds))
    rest = python(*told, "--batches", 8, "--forms", "compile")
    yield Command(rest.arguments, may_be_cut=True)


def network(day: Day, seconds: float) -> Iterator[Command]:
    """The whole network: inference, and forward and backward."""
    sizes: tuple[object, ...] = ("--batches", 8, 64, 1)
    if day.rehearsal:
        sizes = ("--batches", 1, "--architecture", "tiny", "--side", 32, "--one-process")
        sizes = (*sizes, "--round", 0.01)
    forms = ("--forms", "plain", "ours")
    told = script("network.py", "--device", day.device, *sizes, *forms, *_until(day, seconds))
    yield Command(told.arguments, may_be_cut=True)


def training(day: Day, seconds: float) -> Iterator[Command]:
    """What steps of both stages spend their time on, and how many there are in a second."""
    told: tuple[object, ...] = ("--device", day.device)
    if day.rehearsal:
        told = (*told, "--architecture", "tiny", "--tile", 32)
    yield script("training_profile.py", *told, "--batch", 2 if day.rehearsal else 64)
    told = ("training.py", *told, "--precisions", "bfloat16")
    if day.rehearsal:
        yield script(*told, "--one-process", "--batches", 2, "--steps", 1, "--forms", "ours")
        return
    told = (*told, "--steps", 20)
    first = script(
        *told, "--batches", 8, 64, "--forms", "ours", "plain", *_until(day, 0.6 * seconds)
    )
    rest = script(*told, "--batches", 8, 64, "--forms", "compile")
    yield Command(first.arguments, may_be_cut=True)
    yield Command(rest.arguments, may_be_cut=True)


def processes(day: Day, seconds: float) -> Iterator[Command]:
    """Torchrun with one process: the command, and steps whose gradients go through nccl."""
    local = ("--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "1")
    yield python(
        "-m",
        "torch.distributed.run",
        *local,
        ROOT / "benchmarks" / "gpu" / "processes.py",
        "--device",
        day.device,
    )


def exported(day: Day, seconds: float) -> Iterator[Command]:
    """Model files, fused and portable."""
    sizes: tuple[object, ...] = ("--batches", 8, 64, 1)
    if day.rehearsal:
        sizes = ("--batches", 1, "--tile", 32, "--architecture", "tiny")
    told = script("gpu/exported_models.py", "--device", day.device, *sizes, *_until(day, seconds))
    yield Command(told.arguments, may_be_cut=True)


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


def _until(day: Day, seconds: float) -> tuple[object, ...]:
    """A rehearsal is whole, however long it takes."""
    return () if day.rehearsal else ("--seconds", max(seconds - MARGIN, 1.0))


# What they want is what they may take: what one leaves is shared out again before the next.
STEPS = (
    Step("environment", "The machine", 60, 20, 12, environment),
    Step("build", "Building", 150, 150, 13, build),
    Step("tests", "Tests", 120, 70, 11, tests),
    Step("memcheck", "compute-sanitizer's memcheck", 40, 20, 3, memcheck),
    Step("racecheck", "compute-sanitizer's racecheck", 40, 20, 2, racecheck),
    Step("autotune", "Sizes of blocks", 90, 60, 5, autotune),
    Step("operations", "Operations", 80, 40, 10, operations),
    Step("network", "The network", 35, 20, 6, network),
    Step("training", "Training steps", 110, 45, 9, training),
    Step("processes", "torchrun", 30, 15, 4, processes),
    Step("exported", "Exported models", 35, 15, 7, exported),
    Step("masks", "Masks", 60, 30, 8, masks),
    Step("recipe", "The nuclei model's recipe", 180, 45, 1, recipe),
)
