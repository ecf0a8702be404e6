"""Findings by what was looked at."""

from collections.abc import Callable, Iterable
from importlib.util import find_spec

import pytest

from genselfdiff.doctor.findings import Finding

if find_spec("distributed") is None:  # as on some machines with a GPU
    collect_ignore = ["test_cluster_checks.py"]


@pytest.fixture
def found() -> Callable[[Iterable[Finding]], dict[str, Finding]]:
    def by_subject(findings: Iterable[Finding]) -> dict[str, Finding]:
        listed = list(findings)
        for finding in listed:
            assert finding.text
            assert finding.grade != "warning" or finding.advice
        return {finding.subject: finding for finding in listed}

    return by_subject
