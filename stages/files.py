"""Reading and writing the small files and arrays that pass between stages."""

import csv
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from stages.errors import ExpectedError


def read_array(path: Path) -> np.ndarray:
    """An `.npy` array, never unpickled.

    Raises:
        ExpectedError: The file is missing or is not such an array.
    """
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, FileNotFoundError) as error:
        raise _damaged(path, error) from None


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file by name, never unpickled.

    Raises:
        ExpectedError: The file is missing or is not such an archive.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, EOFError, FileNotFoundError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(path, error) from None


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ExpectedError: The file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, FileNotFoundError) as error:
        raise _damaged(path, error) from None


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file with a header, as text by column.

    Raises:
        ExpectedError: The file is missing or is not UTF-8 text.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (ValueError, FileNotFoundError, csv.Error) as error:
        raise _damaged(path, error) from None


def check_writable(path: Path) -> None:
    """Make the folder of an output and try to write there, before the hours of work that the output takes.

    Raises:
        OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    path.unlink()


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, the keys in their own order; a NaN or infinity is an error, not a number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_rows(path: Path, rows: list[dict[str, Any]], columns: tuple[str, ...] = ()) -> None:
    """Write a CSV file with a header; `columns` names it where there may be no rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns or list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _damaged(path: Path, error: Exception) -> ExpectedError:
    if isinstance(error, FileNotFoundError):
        return ExpectedError(f"{path} is missing; if git has it: git restore {path}; else: dvc repro")
    return ExpectedError(
        f"{path} cannot be read ({error}); if git has it: git restore {path}; else: remove it, dvc repro"
    )
