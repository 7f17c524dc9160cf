"""Reading and changing a pickled batch."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any


def load(path: Path) -> dict[str, Any]:
    return pickle.loads(path.read_bytes(), encoding="latin1")


def edit(path: Path, change: Callable[[dict[str, Any]], None], protocol: int = 4) -> None:
    batch = load(path)
    change(batch)
    path.write_bytes(pickle.dumps(batch, protocol=protocol))
