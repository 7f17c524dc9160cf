"""A small grid on synthetic data, what it leaves behind, and processes that run it."""

import shutil
import subprocess
import time
from pathlib import Path

import psutil
import yaml

from stages.common.files import read_rows
from tests.support.clones import Clone, new_repository

SMALL = {
    "data": {"source": "synthetic", "synthetic": {"seed": 7, "train_images": 300, "test_images": 60}},
    "keras_cnn": {"epochs": 1, "filters": [3, 4], "dense_units": 6},
    "evaluate": {"augmented_draws": 2},
}
FINISHED, CUT = "table2-64-0.3", "table2-128-0.4"
EXPERIMENTS = {
    "grids": {
        FINISHED: {"model": "keras_cnn", "seeds": [7], "set": ["batch_size=64", "dropout=0.3"]},
        CUT: {"model": "keras_cnn", "seeds": [8], "set": ["batch_size=128", "dropout=0.4", "keras_cnn.epochs=25"]},
        "screen-broken": {"model": "keras_cnn", "seeds": [7], "set": ["dropout=1.5"]},
    },
    "same_results": {},
}
OF_THE_CLOCK = {"seconds"}
SECONDS = 120  # for what takes a few


def small_grid(folder: Path) -> Clone:
    """The working tree with little synthetic data and no collected runs, its Keras CNN trained."""
    clone = new_repository(folder, SMALL)
    (clone.folder / "experiments.yaml").write_text(yaml.safe_dump(EXPERIMENTS, sort_keys=False))
    (clone.folder / "metrics/runs.csv").write_text("name\n")
    shutil.rmtree(clone.folder / "metrics/experiments", ignore_errors=True)
    clone.commit("small")
    clone.ok("dvc", "repro", "evaluate@keras_cnn")
    clone.commit("reproduced")
    return clone


def processes_in(folder: Path) -> list[psutil.Process]:
    """The processes whose current directory is in this folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def none_is_left(folder: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while (left := processes_in(folder)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left, [process.cmdline() for process in left]


def read_until(process: "subprocess.Popen[str]", text: str) -> str:
    """What the process printed, up to the first line with this text; it fails if none comes."""
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        if text in line:
            return printed
    raise AssertionError(printed + (process.stderr.read() if process.stderr else ""))


def table(clone: Clone) -> list[dict[str, str]]:
    """The collected runs, without their times."""
    rows = read_rows(clone.folder / "metrics/runs.csv")
    return [{name: value for name, value in row.items() if name not in OF_THE_CLOCK} for row in rows]


def histories(clone: Clone) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (clone.folder / "metrics/experiments").iterdir()}
