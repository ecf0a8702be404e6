"""Folders of models on the Hugging Face Hub, through its own library.

Tokens are the library's affair: ``hf auth login``, or HF_TOKEN. None is read or shown here.
"""

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from genselfdiff.errors import InputError, one_line
from genselfdiff.models.published.model_folder import FILES
from genselfdiff.storage.places import Url

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_ADDRESS = re.compile(rf"hf://({_PART}/{_PART})(?:@([A-Za-z0-9._/-]+))?/?")


class HubAddress(NamedTuple):
    """``repository`` is USER/NAME; ``revision`` a branch, tag or commit, None the newest."""

    repository: str
    revision: str | None


def hub_address(url: Url) -> HubAddress:
    """Take ``hf://USER/NAME`` or ``hf://USER/NAME@REVISION`` apart.

    Raises:
        InputError: it is none.
    """
    match = _ADDRESS.fullmatch(url.address)
    if match is None:
        raise InputError(
            f"{url}: models are passed on in folders, and on the Hub: give hf://USER/NAME, or"
            " hf://USER/NAME@REVISION"
        )
    return HubAddress(match[1], match[2])


def download_model(url: Url) -> Path:
    """Download the files of a model, and no others; returns their folder in the Hub's cache.

    Raises:
        InputError: they cannot be had, or the library is not installed.
    """
    address = hub_address(url)
    with _asking(url) as hub:
        return Path(
            hub.snapshot_download(
                address.repository, revision=address.revision, allow_patterns=list(FILES)
            )
        )


def upload_model(folder: Path, url: Url, *, private: bool = False) -> None:
    """Upload the files of a model to its repository, which is made if it is not there.

    Raises:
        InputError: they cannot be uploaded, or the library is not installed.
    """
    address = hub_address(url)
    with _asking(url) as hub:
        api = hub.HfApi(library_name="genselfdiff")
        api.create_repo(address.repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=address.repository,
            folder_path=folder,
            allow_patterns=list(FILES),
            revision=address.revision,
            commit_message="Upload a model of genselfdiff",
        )


@contextmanager
def _asking(url: Url) -> Iterator[ModuleType]:
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError(
            f"{url}: the Hub is reached by huggingface_hub, which is not installed: pip install"
            " 'genselfdiff[hub]'"
        ) from error
    try:
        yield huggingface_hub
    except Exception as error:  # of the library, of HTTP, of the network
        told = _without_token(one_line(_network_failure(error) or error))
        if _network_failure(error) is not None:
            told = f"the Hub cannot be reached: {told}"
        raise InputError(f"{url}: {told}") from None


def _network_failure(error: BaseException) -> BaseException | None:
    """What has failed of the network, where that is behind ``error``."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (ConnectionError, TimeoutError, socket.gaierror)):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def _without_token(text: str) -> str:
    return re.sub(r"hf_[A-Za-z0-9]+", "hf_...", text)
