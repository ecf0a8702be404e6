"""The cluster that a command names: on this machine, at an address, or described in a file."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from genselfdiff.errors import GsdError, InputError, one_line

if TYPE_CHECKING:
    from distributed import Client, SpecCluster

_LOCAL = re.compile(r"local(?::([1-9]\d{0,3}))?")
_ADDRESS = re.compile(r"[a-z]+://\S+")


def check_place(place: str) -> None:
    """Raise InputError unless ``place`` names a cluster."""
    if not (_LOCAL.fullmatch(place) or _ADDRESS.fullmatch(place) or place.endswith(".toml")):
        raise InputError(
            f"{place!r} is no cluster: name local, local:N, the address of a scheduler such as"
            " tcp://host:8786, or a .toml that describes one"
        )


@contextmanager
def connect(place: str) -> Iterator["Client"]:
    """A client of the cluster that ``place`` names; one that was started for it ends with it.

    Args:
        place: "local", "local:N" with N workers, an address, or the file of a cluster.

    Raises:
        InputError: it names none, Dask is missing, or the file is none of a cluster.
        GsdError: there is no scheduler.
    """
    check_place(place)
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError("Dask is not installed: pip install 'genselfdiff[dask]'") from error
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters we say ourselves
    if local := _LOCAL.fullmatch(place):
        with _local(int(local[1]) if local[1] else None) as cluster, Client(cluster) as client:
            yield client
        return
    try:
        client = Client(place)
    except (OSError, ValueError) as error:
        raise GsdError(
            f"{place}: no scheduler of Dask answers ({one_line(error)}): start one with dask"
            " scheduler"
        ) from error
    with client:
        yield client


def _local(count: int | None) -> "SpecCluster":
    """Workers on this machine, which share its processors; one for each GPU."""
    import torch
    from distributed import Nanny, Scheduler, SpecCluster

    gpus = torch.cuda.device_count()
    count = count or gpus or 1
    threads = max(torch.get_num_threads() // count, 1)

    def worker(number: int) -> dict[str, Any]:
        options: dict[str, Any] = {"nthreads": threads, "memory_limit": 0}
        options["silence_logs"] = logging.CRITICAL
        if gpus:
            options["env"] = {"CUDA_VISIBLE_DEVICES": str(number % gpus)}
            options["resources"] = {"GPU": 1}
        return {"cls": Nanny, "options": options}

    options = {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}
    return SpecCluster(
        workers={number: worker(number) for number in range(count)},
        scheduler={"cls": Scheduler, "options": options},
        silence_logs=logging.CRITICAL,
    )
