"""What the steps of a GPU day have found: a line of JSON each, and tables to read."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from table import markdown, operation_rows

from gpu.commands import Command, Ending, Record
from gpu.plan import Step


@dataclass
class Section:
    """What is told of a step.

    Attributes:
        step: the step.
        status: "ok", "FAILED" and so on.
        seconds: that it took.
        notes: lines about it; those of what failed, with the end of its output.
        records: what it has found.
    """

    step: Step
    status: str
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)


class Report:
    """Writes ``results.jsonl`` and ``table.md`` in a folder, at every record.

    Attributes:
        failed: a step has failed.
    """

    def __init__(self, folder: Path) -> None:
        self.failed = False
        self._folder = folder
        self._sections: list[Section] = []
        self._started = self._begun = time.monotonic()
        for name in ("results.jsonl", "log.txt"):
            (folder / name).write_text("")

    def leave_out(self, step: Step, reason: str) -> None:
        """There is no time for a step."""
        self._sections.append(Section(step, reason))
        self._line({"status": reason})

    def begin(self, step: Step, seconds: float) -> None:
        """A step begins, with so many seconds at most."""
        self._begun = time.monotonic()
        self._sections.append(Section(step, f"running, for {seconds:.0f} s at most"))
        print(f"{self._begun - self._started:5.0f} s  {step.name}, {seconds:.0f} s", flush=True)
        self.write()

    def take(self, record: Record) -> None:
        """Keep what the step has found."""
        self._sections[-1].records.append(record)
        self._line(record)
        self.write()

    def note(self, line: str) -> None:
        """Keep a line about the step."""
        self._sections[-1].notes.append(line)
        self._line({"note": line})

    def ended(self, command: Command, ending: Ending) -> None:
        """A command of the step has ended."""
        if ending.status == 0:
            return
        if ending.status is None and command.may_be_cut:
            self.note(f"cut off after {ending.seconds:.0f} s: {command.name}")
            return
        how = "its time was over" if ending.status is None else f"exit status {ending.status}"
        self.note(f"FAILED: {command.name}: {how}\n\n```\n{ending.tail}\n```")

    def end(self) -> None:
        """The step has ended."""
        section = self._sections[-1]
        section.seconds = time.monotonic() - self._begun
        wrong = sum(record.get("right") is False for record in section.records)
        if wrong:
            section.notes.append(f"FAILED: {wrong} of {len(section.records)} are wrong")
        failed = any(note.startswith("FAILED") for note in section.notes)
        absent = not section.records and bool(section.notes)
        section.status = "FAILED" if failed else "not here" if absent else "ok"
        self.failed |= failed
        self._line({"status": section.status, "seconds": round(section.seconds, 1)})
        self.write()

    def summary(self) -> str:
        """The steps, and what failed, as Markdown."""
        rows = [["step", "", "seconds", "records"]]
        for section in self._sections:
            figures = (f"{section.seconds:.0f}", str(len(section.records)))
            rows.append([section.step.name, section.status, *figures])
        failures = (
            f"{section.step.name}: {note}"
            for section in self._sections
            for note in section.notes
            if note.startswith("FAILED")
        )
        return "\n\n".join(("\n".join(markdown(rows)), *failures))

    def write(self) -> None:
        """Write the tables."""
        lines = ["# A GPU day", "", self.summary(), ""]
        for section in self._sections:
            lines += [f"## {section.step.title}", "", *section.notes, ""]
            try:
                for rows in tables(section):
                    lines += [*markdown(rows), ""]
            except Exception as error:  # whatever the records are, the day goes on
                lines += [f"no table: {type(error).__name__}: {error}", ""]
        beside = self._folder / "table.md.part"
        beside.write_text("\n".join(lines), encoding="utf-8")
        beside.replace(self._folder / "table.md")

    def _line(self, record: Record) -> None:
        told = {
            "step": self._sections[-1].step.name,
            "at": round(time.monotonic() - self._started, 1),
            **record,
        }
        with (self._folder / "results.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(told) + "\n")


def tables(section: Section) -> Iterator[list[list[str]]]:
    """Of what a step has found; the first row of each is the heading."""
    if any(record.get("operation") == "copy" for record in section.records):
        yield list(operation_rows(section.records))
        return
    alike: dict[tuple[str, ...], list[Record]] = {}
    for record in section.records:
        alike.setdefault(tuple(record), []).append(record)
    for names, records in alike.items():
        yield [list(names), *([shown(record[name]) for name in names] for record in records)]


def shown(value: Any) -> str:
    """A cell: numbers to four digits, text that does not end the cell."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value).replace("|", "/").replace("\n", " ")
