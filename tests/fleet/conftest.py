"""Clusters of Dask in this process, and slides for them."""

import logging
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from genselfdiff.models.model_file import save_model
from genselfdiff.segmenting.shards import part

if TYPE_CHECKING:
    from distributed import Client

if find_spec("distributed") is None:  # as on some machines with a GPU
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Small slides are cut, and nobody waits."""
    from genselfdiff.fleet import coordinator, part_queue

    monkeypatch.setattr(part, "_CUT_AT", 32)
    monkeypatch.setattr(part_queue, "SMALLEST", 2000)
    monkeypatch.setattr(part_queue, "LEAST_PARTS", 1)
    monkeypatch.setattr(coordinator, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(coordinator, "IN_USE_SECONDS", 0.1)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)


@pytest.fixture
def cluster() -> Iterator[Callable[..., "Client"]]:
    """Clients of clusters whose workers are threads of this process."""
    from distributed import Client

    opened: list[Client] = []

    def make(count: int, **details: object) -> "Client":
        client = Client(
            n_workers=count,
            processes=False,
            threads_per_worker=1,
            dashboard_address=":0",
            **details,
        )
        opened.append(client)
        return client

    yield make
    for client in opened:
        client.close()
        client.cluster.close()


@pytest.fixture
def model(tmp_path, conv_net, info):
    save_model(conv_net(kernel=5), info(3, mpp=0.6), tmp_path / "model.ts")
    return tmp_path / "model.ts"
