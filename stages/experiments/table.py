"""metrics/runs.csv, a row for each collected run, and tables like it."""

import json
from pathlib import Path
from typing import Any

from stages.common.errors import ExpectedError
from stages.common.files import Json, read_rows, write_rows
from stages.common.paths import RUNS

NEVER_EMPTY = ("name", "model", "source", "code", "data")


def read_runs(path: Path = RUNS, never_empty: tuple[str, ...] = NEVER_EMPTY) -> list[Json]:
    """The rows of metrics/runs.csv, or a table like it. Empty fields are left out, and JSON values are parsed.

    Raises:
        ExpectedError: The file is missing, or a row is not whole.
    """
    rows = read_rows(path)
    for number, row in enumerate(rows, start=2):
        # Fields beyond the header come under None, and missing ones are None.
        if None in row or None in row.values() or not all(map(row.get, never_empty)):
            raise ExpectedError(f"{path}: line {number} is incomplete; correct it, or git restore {path}")
    return [{name: _value(text) for name, text in row.items() if text} for row in rows]


def write_runs(rows: list[Json], path: Path = RUNS) -> None:
    """Write rows, with the columns that any of them has; all or nothing."""
    columns = tuple(dict.fromkeys(name for row in rows for name in row)) or ("name",)
    texts = [{name: as_text(value) for name, value in row.items()} for row in rows]
    new = path.with_name(f".{path.name}.new")
    write_rows(new, texts, columns)
    new.replace(path)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def as_text(value: Any) -> str:
    """The text that `_value` reads back. A text that looks like a number, as a hash may, gets quotes."""
    return value if isinstance(value, str) and _value(value) == value else json.dumps(value)
