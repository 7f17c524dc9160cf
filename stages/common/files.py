"""Reading and writing the small files and arrays that pass between stages."""

import contextlib
import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from stages.common.errors import FROM_SCRATCH, ExpectedError

T = TypeVar("T")


def read_array(path: Path) -> np.ndarray:
    """An `.npy` array, never unpickled.

    Raises:
        ExpectedError: The file is missing or is not such an array.
    """
    return _read(path, lambda: _load(path, np.ndarray))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file by name, never unpickled.

    Raises:
        ExpectedError: The file is missing or is not such an archive.
    """
    with _read(path, lambda: _load(path, np.lib.npyio.NpzFile)) as archive:
        arrays = _read(path, lambda: {name: archive[name] for name in archive.files})
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise _damaged(path, f"its {name} is no array")
    return arrays


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ExpectedError: The file is missing or is not JSON.
    """
    return _read(path, lambda: json.loads(path.read_text(encoding="utf-8")))


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file with a header, as text by column.

    Raises:
        ExpectedError: The file is missing or is not UTF-8 text.
    """
    with _read(path, lambda: path.open(newline="", encoding="utf-8")) as file:
        return _read(path, lambda: list(csv.DictReader(file)))


def read_history(path: Path) -> dict[str, np.ndarray]:
    """The columns of a training history, (epochs,) each; an empty field is NaN.

    Raises:
        ExpectedError: The file is missing, has no rows, or holds something else than numbers.
    """
    rows = read_rows(path)
    try:
        return {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"it is no history: {error!r}") from None


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under another name and rename it: a kill or a full disk leaves what was there before.

    Raises:
        OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    try:
        with new.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise


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


def _read(path: Path, read: Callable[[], T]) -> T:
    """What `read` gives: on a damaged file NumPy, zipfile and json raise nearly anything."""
    try:
        return read()
    except FileNotFoundError:
        raise ExpectedError(f"{path} is missing; if git has it: git restore {path}; else: dvc repro") from None
    except PermissionError:  # of the machine, not of the file's content; run_program has a line for it
        raise
    except Exception as error:
        raise _damaged(path, error) from None


def _load(path: Path, kind: type[T]) -> T:
    content = np.load(path, allow_pickle=False)
    if not isinstance(content, kind):
        raise ValueError(f"it is no {kind.__name__}")
    return content


def _damaged(path: Path, reason: object) -> ExpectedError:
    why = " ".join(str(reason).split())[:200]
    return ExpectedError(
        f"{path} cannot be read ({why}); if git has it: git restore {path}; else: {FROM_SCRATCH.format(path)}"
    )


def unreadable(file: Path, reason: object, advice: str = FROM_SCRATCH) -> ExpectedError:
    why = " ".join(str(reason).split())[:200]
    return ExpectedError(f"{file} is not a model that this pipeline trained ({why}); {advice.format(file)}")


Json = dict[str, Any]


def flat(content: Json, prefix: str = "") -> Json:
    """Nested mappings as dotted keys."""
    leaves: Json = {}
    for key, value in content.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves
