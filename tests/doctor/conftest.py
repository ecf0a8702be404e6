"""Findings by what was looked at."""

from collections.abc import Callable, Iterable

import pytest

from genselfdiff.doctor.findings import Finding


@pytest.fixture
def found() -> Callable[[Iterable[Finding]], dict[str, Finding]]:
    def by_subject(findings: Iterable[Finding]) -> dict[str, Finding]:
        listed = list(findings)
        for finding in listed:
            assert finding.text
            assert finding.grade != "warning" or finding.advice
        return {finding.subject: finding for finding in listed}

    return by_subject
