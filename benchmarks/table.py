"""Write what was measured as Markdown tables, in benchmarks/tables.

    python benchmarks/table.py OPERATIONS.jsonl NETWORK.jsonl

The files are what ``test_operations.py`` and ``network.py`` print.
"authors" and its peak memory are those of their fastest form. Times are those of the fastest round:
plain torch on NCHW takes between once and twice and a half as long with the luck of its addresses.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

TABLES = Path(__file__).with_name("tables")
FAMILIES = ("authors", "plain", "compile", "ours")

Record = dict[str, Any]
"""At least form ("authors, NCHW"), seconds, error and right."""


def main(operations: Path, network: Path) -> None:
    """Both tables."""
    write("Operations", "ms of processor time", operation_rows(read_records(operations)))
    write("The network", "s of processor time", network_rows(read_records(network)))


def read_records(path: Path) -> list[Record]:
    """The records of a file, one a line."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]


def operation_rows(records: list[Record]) -> Iterator[list[str]]:
    """A heading, then a row for each case that ours was measured in."""
    predicted = any(r.get("predicted") is not None for r in records)
    yield [
        *("operation", "size", "dtype", *FAMILIES, "x authors", "x plain"),
        *("GB/s", "of copying", *(["predicted"] if predicted else [])),
        *("authors' error", "our error"),
    ]
    copy = next(r for r in records if r["operation"] == "copy")
    cases = [r for r in records if r["operation"] != "copy"]
    for key, group in grouped(cases, "operation", "size", "dtype"):
        best = fastest(group)
        if "ours" not in best:
            continue
        ours, authors = best["ours"], best.get("authors")
        speeds = ["", ""]
        if ours["right"]:
            speed = ours["floor_bytes"] / ours["seconds"]
            share = speed * copy["seconds"] / copy["floor_bytes"]
            speeds = [f"{speed / 1e9:.1f}", f"{share:.2f}"]
        yield [
            *key,
            *(time(best.get(family), 1e3) for family in FAMILIES),
            ratio(authors, ours),
            ratio(best.get("plain"), ours),
            *speeds,
            *([f"{1e3 * ours['predicted']:.3f}"] if predicted else []),
            exponent(authors and authors["error"]),
            exponent(ours["error"]),
        ]


def network_rows(records: list[Record]) -> Iterator[list[str]]:
    """A heading, then a row for each task, batch size and dtype."""
    yield [
        *("task", "batch", "dtype", *FAMILIES, "ours, wall time"),
        *("x authors", "x authors in float32", "x plain"),
        *("authors' peak GiB", "plain peak GiB", "our peak GiB", "of authors"),
        *("authors' error", "our error"),
    ]
    records = [{"seconds": r["cpu_s"], **r} for r in records]
    in_float32: dict[object, Record] = {}
    for key, group in grouped(records, "task", "batch", "dtype"):
        best = fastest(group)
        ours = best["ours"]
        in_float32.setdefault(key[:2], best["authors"])
        yield [
            *map(str, key),
            *(time(best.get(family), 1) for family in FAMILIES),
            f"{ours['wall_s']:.2f}" if ours["right"] else "",
            ratio(best["authors"], ours),
            ratio(in_float32[key[:2]], ours),
            ratio(best["plain"], ours),
            *(
                f"{best[family]['peak_bytes'] / 2**30:.2f}"
                for family in ("authors", "plain", "ours")
            ),
            f"{ours['peak_bytes'] / best['authors']['peak_bytes']:.2f}",
            exponent(best["authors"]["error"]),
            exponent(ours["error"]),
        ]


def grouped(
    records: Iterable[Record], *names: str
) -> Iterator[tuple[tuple[Any, ...], list[Record]]]:
    """Records with the same values of these names, in the order in which the first ones came."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        groups.setdefault(tuple(record[name] for name in names), []).append(record)
    yield from groups.items()


def fastest(records: Iterable[Record]) -> dict[str, Record]:
    """Of each family; one that is right goes before one that is not."""
    best: dict[str, Record] = {}
    for record in sorted(records, key=lambda r: (not r["right"], r["seconds"])):
        best.setdefault(record["form"].split(",")[0], record)
    return best


def time(record: Record | None, scale: float) -> str:
    """With what tells the forms of a family apart; nothing where the numbers are wrong."""
    if record is None:
        return "-"
    if not record["right"]:
        return "wrong"
    _, _, variant = record["form"].partition(", ")
    value = scale * record["seconds"]
    return f"{value:.{2 if value >= 1 else 3}f}" + (f" ({variant})" if variant else "")


def ratio(other: Record | None, ours: Record) -> str:
    """How many times as fast ours is."""
    if other is None or not (other["right"] and ours["right"]):
        return ""
    return f"{other['seconds'] / ours['seconds']:.2f}"


def exponent(error: float | None) -> str:
    """Of an error, its order; nothing where it is not known."""
    return "" if error is None else f"{error:.0e}"


def write(title: str, unit: str, rows: Iterable[list[str]]) -> None:
    """A file of the section ``title`` of RESULTS.md; the first row is the heading."""
    section = title.lower().replace(" ", "-")
    lines = [
        f"# {title}",
        "",
        f"{unit}; [results](../RESULTS.md#{section}) says what the columns mean and which machine"
        " it was.",
        "",
        *markdown(rows),
    ]
    path = TABLES / f"{title.split()[-1].lower()}.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(path)


def print_rows(rows: Iterable[list[str]]) -> None:
    """On the terminal; the first row is the heading."""
    print(*markdown(rows), sep="\n")


def markdown(rows: Iterable[list[str]]) -> Iterator[str]:
    """The lines of a table; the first row is the heading."""
    heading, *others = rows
    for row in (heading, ["---"] * len(heading), *others):
        yield "| " + " | ".join(row) + " |"


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
