"""The lines that a run writes while it trains, read without torch."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from genselfdiff.errors import InputError
from genselfdiff.input_files import parse_json, read_text

METRICS = "metrics.jsonl"
"""Name of the file in the run's folder."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl``, up to one that is damaged: a kill cuts off the last.

    Raises:
        InputError: it cannot be read.
    """
    records: list[dict[str, Any]] = []
    if not os.path.lexists(path):
        return records
    for line in read_text(path, errors="surrogateescape").splitlines():
        with suppress(InputError):
            record = parse_json(line, path)
            if _is_record(record):
                records.append(record)
                continue
        break
    return records


def _is_record(record: Any) -> bool:
    """Whether a line has what those that read it look for."""
    if not isinstance(record, dict) or not isinstance(record.get("step"), int):
        return False
    validation = record.get("validation", {"score": 0.0})
    tables = [validation, record.get("images", {}), record.get("data", {})]
    if not all(isinstance(table, dict) for table in tables) or "score" not in validation:
        return False
    if not isinstance(record.get("files", ""), str) or ("files" in record and "data" not in record):
        return False
    numbers = [record.get("loss", 0.0), *(value for table in tables for value in table.values())]
    return all(isinstance(value, int | float) for value in numbers)
