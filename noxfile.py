"""Other environments than that of `make test`: the oldest torch, the newest, a GPU's image.

On Linux, PyPI's torch brings CUDA: a session fetches gigabytes. So none runs unless it is named.
"""

import nox
from packaging.requirements import Requirement

nox.options.sessions = []

PROJECT = nox.project.load_toml("pyproject.toml")
TOOLS = [*PROJECT["build-system"]["requires"], "cmake", "ninja"]
TEST = PROJECT["project"]["optional-dependencies"]["test"]
NOT_ON_GPU_IMAGE = ("shapely", "ome-types", "openslide-python", "openslide-bin", "zarr", "monai")


@nox.session(python="3.11")
def oldest(session: nox.Session) -> None:
    """Torch 2.10 with the Triton that it brings."""
    build_and_test(session, "torch==2.10.*", *TEST)


@nox.session(python="3.12")
def gpu_image(session: nox.Session) -> None:
    """What a machine with a GPU may have and lack: torch 2.11, Triton 3.6, NumPy 2.5."""
    there = [each for each in TEST if Requirement(each).name not in NOT_ON_GPU_IMAGE]
    build_and_test(session, "torch==2.11.*", "numpy==2.5.*", *there)


@nox.session
def newest(session: nox.Session) -> None:
    """The newest torch that pip finds."""
    build_and_test(session, "torch", *TEST)


def build_and_test(session: nox.Session, torch: str, *others: str) -> None:
    """Build beside this torch, which must stay as it is, and run the tests or `-- WHICH`."""
    session.install(torch, *TOOLS)
    before = torch_and_triton(session)
    session.install("--no-build-isolation", ".", *others)
    after = torch_and_triton(session)
    if after != before:
        session.error(f"{before} became {after}")
    session.run("gsd", "info")
    options = session.posargs or ["-n", "auto", "--dist", "worksteal"]
    session.run("pytest", "-q", *options, env={"OMP_NUM_THREADS": "1"})


def torch_and_triton(session: nox.Session) -> list[str]:
    """NAME==VERSION of what must not change."""
    listed = session.run("python", "-m", "pip", "list", "--format=freeze", silent=True)
    return [line for line in str(listed).splitlines() if line.startswith(("torch==", "triton=="))]
