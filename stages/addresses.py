"""What our result files hold at an address, as data/paper/numbers.yaml writes it: "file what".

metrics/x.json a.b.0            a key, a key in it, an element of a list; names.length counts; a - b and a + b
metrics/report/x.csv recall     a column, an element for each class; class.length counts them
metrics/confusion/x.csv cat     how many images of that class were taken for each class
metrics/history/x.csv train_loss from 20        a column's mean from that epoch on
"""

from collections import Counter
from pathlib import Path
from typing import Any

from stages.errors import ExpectedError
from stages.files import read_json, read_rows

METRICS = Path("metrics")
NUMBERS = Path("data/paper/numbers.yaml")
DECIMALS = 6  # more than any number here has, and less than the last bits of a sum


def look_up(address: str) -> Any:
    """The value at an address.

    Returns:
        A value, a list with an element for each class, or None where the file holds no such thing.

    Raises:
        ExpectedError: The file is missing or damaged, or has no place of that kind.
    """
    file, _, what = address.partition(" ")
    try:
        return _look_up(Path(file), what)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ExpectedError(
            f"{address}: there is no such place ({error!r}); {NUMBERS} names it, or {file} is damaged"
        ) from None


def _look_up(path: Path, what: str) -> Any:
    if path.suffix == ".json":
        return look_up_json(read_json(path), what)
    if path.parent.name == "report":
        return len(class_names(path.stem)) if what == "class.length" else [float(row[what]) for row in read_rows(path)]
    if path.parent.name == "confusion":
        counts = Counter(row["predicted"] for row in read_rows(path) if row["actual"] == what)
        return [counts[name] for name in class_names(path.stem)]
    column, _, first = what.partition(" from ")
    values = [value for epoch, value in read_curves(path).get(column, {}).items() if epoch >= int(first)]
    return rounded(sum(values) / len(values)) if values else None


def look_up_json(content: Any, what: str) -> Any:
    """The value at a dotted key, or the sum or difference of two; None where there is none."""
    for sign, word in ((1, " + "), (-1, " - ")):
        if word in what:
            left, right = (look_up_json(content, key) for key in what.split(word))
            return None if left is None or right is None else left + sign * right
    for key in what.split("."):
        if isinstance(content, list):
            content = len(content) if key == "length" else content[int(key)]
        else:
            content = content.get(key) if isinstance(content, dict) else None
    return content


def images_behind(address: str) -> int | None:
    """On how many held-out images an accuracy was measured; None where the address is of no such accuracy."""
    file, _, what = address.partition(" ")
    part, _, name = what.partition(".")
    if name != "accuracy" or part == "train":
        return None
    model = Path(file).stem
    if part == "validation":
        return int(read_json(METRICS / "runs" / f"{model}.json")["data"]["validation_images"])
    return len(read_rows(METRICS / "confusion" / f"{model}.csv"))


def class_names(model: str) -> list[str]:
    """The classes that a model tells apart, in the order of their labels."""
    return [row["class"] for row in read_rows(METRICS / "report" / f"{model}.csv")]


def read_curves(path: Path) -> dict[str, dict[int, float]]:
    """The columns of a history by name, each from epoch to value; an empty field has no value."""
    rows = read_rows(path)
    names = [name for name in (rows[0] if rows else {}) if name != "epoch"]
    try:
        return {name: {int(row["epoch"]): float(row[name]) for row in rows if row[name]} for name in names}
    except (KeyError, TypeError, ValueError) as error:
        raise ExpectedError(f"{path} is not a history ({error!r}); git restore {path} brings it back") from None


def rounded(value: float) -> float:
    return round(value, DECIMALS) + 0.0  # and never -0.0
