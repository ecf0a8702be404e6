"""Tell what was installed, and fail where the kernels or a package are missing.

    python benchmarks/gpu/installed.py [--plain]

With --plain no kernels are expected, and no needed package either.
"""

import importlib.metadata
import json
import sys
from pathlib import Path

from packaging.requirements import Requirement

import genselfdiff
from genselfdiff.info import describe
from genselfdiff.kernels import native


def missing() -> list[str]:
    """What the package needs and the environment lacks."""
    found = []
    for line in importlib.metadata.requires("genselfdiff") or ():
        needed = Requirement(line)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(needed.name)
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{needed}: not here")
            continue
        if not needed.specifier.contains(version, prereleases=True):
            found.append(f"{needed}: {version} is here")
    return found


def main() -> int:
    """Print what is there; the exit status."""
    plain = "--plain" in sys.argv
    for what, value in describe():
        print(json.dumps({"what": what, "told": value}), flush=True)
    lacking = missing()
    for line in lacking:
        print(json.dumps({"what": "missing", "told": line}), flush=True)
    build = native.build()
    if not plain and (build is None or not build.triton_version):
        print(f"no GPU kernels in {Path(genselfdiff.__file__).parent}: {native.problem()}")
        return 1
    return int(bool(lacking))


if __name__ == "__main__":
    sys.exit(main())
