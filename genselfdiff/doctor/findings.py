"""What a check has found, and the page that is made of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from genselfdiff.text import counted

Grade = Literal["ok", "warning", "wrong"]


@dataclass(frozen=True)
class Finding:
    """One line of the page.

    Attributes:
        grade: "wrong" is what a run fails with, or does wrong; "warning" what makes it slow, or
            can go wrong.
        subject: what was looked at, in a word or two.
        text: what it is like.
        advice: what to do; empty where nothing is to be done, or the text says so.
    """

    grade: Grade
    subject: str
    text: str
    advice: str = ""


def ok(subject: str, text: str) -> Finding:
    """As it should be."""
    return Finding("ok", subject, text)


def warning(subject: str, text: str, advice: str) -> Finding:
    """Slow, or a danger."""
    return Finding("warning", subject, text, advice)


def wrong(subject: str, text: str, advice: str = "") -> Finding:
    """A run fails with it; errors of ours say themselves what to do."""
    return Finding("wrong", subject, text, advice)


def page(sections: Mapping[str, Sequence[Finding]]) -> Iterator[str]:
    """The lines of a page: sections by their titles, and a sum at the end."""
    findings = [finding for section in sections.values() for finding in section]
    width = max((len(finding.subject) for finding in findings), default=0)
    for title, section in sections.items():
        yield title
        for finding in section:
            yield f"  {finding.grade:7}  {finding.subject:{width}}  {finding.text}"
            if finding.advice:
                yield f"{'':{width + 11}}  to do: {finding.advice}"
        yield ""
    grades = [finding.grade for finding in findings]
    yield f"{grades.count('wrong')} wrong, {counted(grades.count('warning'), 'warning')}"


def is_wrong(sections: Mapping[str, Sequence[Finding]]) -> bool:
    """Whether anything is wrong."""
    return any(finding.grade == "wrong" for section in sections.values() for finding in section)
