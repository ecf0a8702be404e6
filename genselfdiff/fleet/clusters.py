"""The cluster that a command names: on this machine, at an address, or described in a file."""

import importlib
import logging
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from genselfdiff.errors import GsdError, InputError, one_line
from genselfdiff.input_files import read_toml
from genselfdiff.json_records import values_of

if TYPE_CHECKING:
    from distributed import Client, SpecCluster

_KINDS = {
    "slurm": ("dask_jobqueue", "SLURMCluster"),
    "pbs": ("dask_jobqueue", "PBSCluster"),
    "lsf": ("dask_jobqueue", "LSFCluster"),
    "sge": ("dask_jobqueue", "SGECluster"),
    "kubernetes": ("dask_kubernetes.operator", "KubeCluster"),
}
"""Where the classes of clusters are that a file can describe."""

_CLUSTER: dict[str, Any] = {"kind": str, "workers": int, "options": dict}
"""What such a file tells."""

_QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick": {"interval": "1s", "limit": "1h", "cycle": "10s"},
    "distributed.admin.system-monitor.interval": "5s",
}
"""Dask looks at itself a hundred times a second, which costs a light model several percent."""

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
    for name in ("distributed", "asyncio", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters we say ourselves
    local = _LOCAL.fullmatch(place)
    if local or place.endswith(".toml"):
        started = _local(int(local[1] or 0)) if local else _described(place)
        with started as cluster, Client(cluster) as client:
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


def _described(path: str) -> AbstractContextManager[Any]:
    """Start the cluster that a file describes, with its workers on their way."""
    content = read_toml(path)
    try:
        told = values_of(content, _CLUSTER)
    except ValueError as error:
        raise InputError(f"{path}: is no description of a cluster: {one_line(error)}") from error
    kind, workers = told["kind"], told["workers"]
    if kind not in _KINDS or workers < 1:
        raise InputError(
            f"{path}: kind {kind!r:.40} with {workers} workers: name one of {', '.join(_KINDS)}"
            " and one worker or more"
        )
    module, name = _KINDS[kind]
    try:
        make = getattr(importlib.import_module(module), name)
    except ImportError as error:
        package = module.partition(".")[0].replace("_", "-")
        raise InputError(f"{path}: {package} is not installed: pip install {package}") from error
    try:
        cluster = make(**told["options"])
        cluster.scale(workers)
    except Exception as error:  # of batch systems, of Kubernetes, or of a keyword that there is not
        raise GsdError(f"{path}: {name} cannot be started: {one_line(error)}") from error
    return cluster


def _local(count: int) -> "SpecCluster":
    """Workers on this machine, which share its processors; 0: one for each GPU, or one."""
    import dask
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
    dask.config.set(_QUIET)
    return SpecCluster(
        workers={number: worker(number) for number in range(count)},
        scheduler={"cls": Scheduler, "options": options},
        silence_logs=logging.CRITICAL,
    )
