"""What pytest's command takes for the benchmarks."""

import pytest
import torch
from timing import clock


def pytest_addoption(parser: pytest.Parser) -> None:
    options = parser.getgroup("operations")
    options.addoption("--device", default="cpu", help="such as cuda")
    options.addoption("--tile", type=int, default=256)
    options.addoption("--batches", type=int, nargs="+")
    options.addoption("--forms", nargs="+", help="such as authors, or one of theirs; default: all")
    options.addoption("--round", type=float, default=0.2, help="seconds for each form")
    options.addoption("--seconds", type=float, help="after which no form is begun")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    device = torch.device(config.getoption("device"))
    for item in items:
        item.add_marker(pytest.mark.benchmark(timer=clock(device)))
