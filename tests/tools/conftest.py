"""The small grid that the tests of the grid and of the cluster share."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.clones import Clone
from tests.support.grids import CUT, small_grid

SharedFolder = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture(scope="session")
def grid_repository(shared_folder: SharedFolder) -> Clone:
    """A repository for a small grid; not to be changed."""

    def fill(folder: Path) -> None:
        small_grid(folder / "origin")

    return Clone(shared_folder("grid", fill) / "origin")


@pytest.fixture(scope="session")
def whole_grid(grid_repository: Clone, shared_folder: SharedFolder) -> tuple[Clone, "subprocess.CompletedProcess[str]"]:
    """A copy in which the grid ran to its end, two runs at once, one of them broken; not to be changed."""

    def fill(folder: Path) -> None:
        subprocess.run(["cp", "-a", grid_repository.folder, folder / "clone"], check=True)
        ended = Clone(folder / "clone").run(
            "python", "-m", "stages.tools.grid", "screen-broken", "table2-*", "--jobs", "2"
        )
        for name, text in (("status", str(ended.returncode)), ("stdout", ended.stdout), ("stderr", ended.stderr)):
            (folder / name).write_text(text)

    folder = shared_folder("whole grid", fill)
    texts = [(folder / name).read_text() for name in ("stdout", "stderr")]
    return Clone(folder / "clone"), subprocess.CompletedProcess([], int((folder / "status").read_text()), *texts)


@pytest.fixture(scope="session")
def uninterrupted(whole_grid: tuple[Clone, "subprocess.CompletedProcess[str]"]) -> Clone:
    """The copy of `whole_grid`, its two good runs done."""
    clone, ended = whole_grid
    assert f"{CUT}-seed8: epoch 25/25" in ended.stdout, ended.stdout + ended.stderr
    return clone
