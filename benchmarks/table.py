"""Print what pytest-benchmark has measured as a Markdown table: python benchmarks/table.py FILE."""

import json
import sys
from pathlib import Path


def main(path: Path) -> None:
    """One row for each operation and form, with the ratio to the fastest other form."""
    groups: dict[str, list[dict[str, object]]] = {}
    for record in json.loads(path.read_text())["benchmarks"]:
        groups.setdefault(record["group"], []).append(record)
    print("| operation | form | ms | against the fastest other | GB/s | of copying | error |")
    print("|---|---|---|---|---|---|---|")
    for group, records in groups.items():
        others = [median(r) for r in records if form(r) != "ours"]
        for record in records:
            ratio = f"**{min(others) / median(record):.1f}x**" if form(record) == "ours" else ""
            extra = record["extra_info"]
            print(
                f"| {group} | {form(record)} | {1e3 * median(record):.2f} | {ratio}"
                f" | {extra['GB/s']} | {extra['share of copy']} | {extra.get('error', '-')} |"
            )


def form(record: dict[str, object]) -> str:
    """Eager, ours, ..."""
    return str(record["param"]).rsplit(": ", 1)[1]


def median(record: dict[str, object]) -> float:
    """Seconds."""
    return float(record["stats"]["median"])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
