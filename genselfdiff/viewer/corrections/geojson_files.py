"""A folder of GeoJSON that is written again and again, between files that others may change."""

import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from genselfdiff.errors import InputError, OutputError
from genselfdiff.files import atomic_file, write_text, writing
from genselfdiff.input_files import read_bytes, read_json

_SUFFIX = ".geojson"

_WRITTEN = ".written.json"
"""The sums of the files as they were written: what has another is of somebody else by now."""


class GeoJsonFiles:
    """The files of a folder.

    Args:
        folder: made if it is not there.
        names: of the files to write, without suffix.

    Raises:
        OutputError: one is there that was not written here, or was changed since.
    """

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self._folder = folder
        self._sums = _read_sums(folder / _WRITTEN)
        for name in names:
            path = self._path(name)
            if path.exists() and not self._is_own(name):
                raise OutputError(
                    f"{path}: was written or changed by another program: move it away first; 'Read"
                    " GeoJSON' in the page takes it in"
                )

    def write(self, contents: Mapping[str, bytes]) -> None:
        """Write these files, by their names, and remove others that were written before.

        Raises:
            OutputError: they cannot be written.
        """
        with writing(self._folder):
            self._folder.mkdir(exist_ok=True)
            old = [name for name in self._sums if name not in contents and self._is_own(name)]
            for name in old:
                self._path(name).unlink()
        # Of a run that is killed between two files either sum is right.
        self._sums = {
            name: [*self._sums.get(name, [])[-1:], zlib.crc32(content)]
            for name, content in contents.items()
        }
        write_text(self._folder / _WRITTEN, json.dumps(self._sums))
        for name, content in contents.items():
            with atomic_file(self._path(name)) as temporary:
                temporary.write_bytes(content)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}{_SUFFIX}"

    def _is_own(self, name: str) -> bool:
        path = self._path(name)
        try:
            return not path.is_symlink() and zlib.crc32(read_bytes(path)) in self._sums.get(
                name, []
            )
        except InputError:
            return False


def _read_sums(path: Path) -> dict[str, list[int]]:
    try:
        found = read_json(path)
    except InputError:
        return {}
    if not isinstance(found, dict):
        return {}
    # A name of others' making leads out of no folder.
    return {
        name: sums
        for name, sums in found.items()
        if isinstance(sums, list) and Path(name).name == name
    }
