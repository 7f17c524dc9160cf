"""Several runs at once: what is lost is said, and ending does not wait for runs that have not begun."""

import threading
from collections import deque
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

import pytest

from stages.common.errors import ExpectedError
from stages.tools import runs
from stages.tools.grid import check_clean
from stages.tools.runs import BUSY, Processes, run_all
from tests.support.clones import Clone
from tests.support.stage_runs import ROOT

PIPELINE = """
stages:
  stage:
    cmd: echo epoch 1 > out && echo epoch 1
    params: [number]
    outs: [{out: {cache: false}}]
"""


class Waiting(NamedTuple):
    """A run."""

    name: str


class FirstFails:
    """A runner whose first run fails; the others last until they are ended."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def run(self, run: Waiting) -> bool:
        if run.name == "first":
            raise ExpectedError("it fails")
        return self.ended.wait()

    def end(self, forcibly: bool) -> None:
        self.ended.set()


def test_ending_waits_only_for_runs_that_have_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[Future[bool]] = []
    monkeypatch.setattr("stages.tools.runs.wait", lambda futures, timeout: waited.extend(futures))
    with pytest.raises(ExpectedError, match="it fails"):
        run_all([Waiting(name) for name in ("first", "second", "third", "fourth")], FirstFails(), jobs=1)
    assert waited
    assert not any(future.cancelled() for future in waited)


@pytest.mark.parametrize(("line", "ended", "tries"), [(BUSY, False, 5), (BUSY, True, 1), ("another error", False, 1)])
def test_a_run_is_tried_again_where_dvc_is_busy_but_not_once_it_was_ended(
    line: str, ended: bool, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def once(name: str, *_: object) -> tuple[int, deque[str], bool]:
        made.append(name)
        return 1, deque([line]), ended

    monkeypatch.setattr(runs, "_run_once", once)
    assert runs.run_dvc("a", [], []) == (1, deque([line]))
    assert made == ["a"] * tries


def test_a_run_that_dvc_loses_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """DVC 3.67 cannot fetch an experiment into a shallow clone, and exits with status 0."""
    full = Clone(tmp_path / "full")
    full.folder.mkdir()
    full.ok("git", "init", "--quiet")
    full.ok("git", "config", "user.name", "A tester")
    full.ok("git", "config", "user.email", "tester@example.org")
    full.init_dvc()
    (full.folder / "dvc.yaml").write_text(PIPELINE)
    for number in (1, 2):
        (full.folder / "params.yaml").write_text(f"number: {number}\n")
        full.commit(f"number {number}")
    full.ok("git", "clone", "--quiet", "--depth", "1", f"file://{full.folder}", str(tmp_path / "shallow"))

    monkeypatch.chdir(tmp_path / "shallow")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for key, value in {"NAME": "A tester", "EMAIL": "tester@example.org"}.items():
        monkeypatch.setenv(f"GIT_AUTHOR_{key}", value)
        monkeypatch.setenv(f"GIT_COMMITTER_{key}", value)
    command = ["exp", "run", "--temp", "--name", "lost", "-S", "number=3", "stage"]
    assert not Processes(lambda run: command).run(Waiting("lost"))
    said = capfd.readouterr().out
    assert "lost: epoch 1" in said
    assert "git does not have it" in said
    with pytest.raises(ExpectedError, match="git fetch --unshallow"):
        check_clean(["params.yaml"])
