"""A plugin of pytest: a JSON record for each test, as soon as it has run."""

import json
import os

import pytest

LINES = 25
"""Of what a test that fails says."""


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    in_worker = "PYTEST_XDIST_WORKER" in os.environ  # whose reports come here as well
    if in_worker or (report.when != "call" and report.passed):
        return
    record = {
        "test": report.nodeid.removeprefix("tests/gpu/"),
        "outcome": report.outcome,
        "seconds": round(report.duration, 2),
        **dict(report.user_properties),
    }
    if report.failed:
        record["right"] = False
        record["told"] = "\n".join(report.longreprtext.splitlines()[-LINES:])
    elif report.skipped:
        record["told"] = str(report.longrepr[-1])
    print("\n" + json.dumps(record), flush=True)
