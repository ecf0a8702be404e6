"""A Zarr in object storage, which the zarr package reads through fsspec, within bounds."""

import asyncio
from typing import Any

from zarr.abc.store import RangeByteRequest, SuffixByteRequest
from zarr.storage import FsspecStore

from genselfdiff.errors import InputError
from genselfdiff.slides.formats.zarr_bounds import MOST_METADATA
from genselfdiff.storage.filesystems import failure, wait_after
from genselfdiff.storage.places import Url


class UrlStore(FsspecStore):
    """A folder in object storage, of which objects are read that are small enough.

    Attributes:
        url: of the folder.
        at_most: see ``FolderStore``.
    """

    url: Url
    at_most: int = MOST_METADATA

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        """Read an object, or a part of it; None if there is none."""
        wanted = 0
        if byte_range is None:  # no more is fetched than shows that it is too much
            byte_range = RangeByteRequest(0, self.at_most + 1)
        elif isinstance(byte_range, RangeByteRequest):
            wanted = byte_range.end - byte_range.start
        elif isinstance(byte_range, SuffixByteRequest):
            wanted = byte_range.suffix
        data = None
        if wanted <= self.at_most:
            data = await self._patiently(key, prototype, byte_range)
        if wanted > self.at_most or (data is not None and len(data) > self.at_most):
            raise ValueError(f"{key} has more bytes than can be of use")
        return data

    async def _patiently(self, key: str, prototype: Any, byte_range: Any) -> Any:
        attempt = 1
        while True:
            try:
                return await super().get(key, prototype, byte_range)
            except Exception as error:
                wait = wait_after(self.url / key, error, attempt)
            await asyncio.sleep(wait)
            attempt += 1


def store_of(url: Url) -> Any:
    """The store to read the Zarr at a URL from.

    Raises:
        InputError: what reads such a URL is not installed; or it is on a web server, where nobody
            can tell what belongs to it, and whether that has changed.
    """
    if url.scheme in ("http", "https"):
        raise InputError(f"{url}: an OME-Zarr is not read from a web server: copy the folder")
    try:
        store: Any = UrlStore.from_url(url.address, read_only=True)
    except Exception as error:
        raise failure(url, error) from None
    store.url = url
    return store
