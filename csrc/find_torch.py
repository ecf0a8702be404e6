"""Print the folder and the version of the installed torch, one a line, without importing it.

CMake calls this. The headers are looked for by path because an isolated build hides the
environment's packages from ``import``, not from the file system.
"""

import importlib.util
import re
import site
import sys
import sysconfig
from pathlib import Path

OLDEST = (2, 10)


def candidates() -> list[Path]:
    """Folders where torch may be, the importable one first."""
    spec = importlib.util.find_spec("torch")
    importable = [Path(spec.origin).parent] if spec and spec.origin else []
    # getsitepackages names the base installation's too, in an environment that sees its packages.
    folders = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    folders += site.getsitepackages()
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    return importable + [Path(folder) / "torch" for folder in folders]


def main() -> None:
    """Print the first usable torch, or exit with the reason why there is none."""
    found = []
    for folder in candidates():
        version_file = folder / "version.py"
        if not version_file.is_file():
            continue
        match = re.search(r"__version__ = '((\d+)\.(\d+)[^']*)'", version_file.read_text())
        if match is None:
            continue
        version = match[1]
        has_headers = (folder / "include/torch/csrc/stable/library.h").is_file()
        if (int(match[2]), int(match[3])) >= OLDEST and has_headers:
            print(folder.as_posix())
            print(version)
            return
        found.append(f"{version} in {folder}")
    wanted = "torch 2.10 or newer, with its C++ headers, is needed to build the native kernels"
    sys.exit(f"{wanted}; found: {', '.join(found) or 'none'}")


if __name__ == "__main__":
    main()
