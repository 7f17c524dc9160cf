"""A stage as a process: alone at its outputs, ended by signals with one line, and gone soon after its dvc."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stages.common import process as running
from stages.common.errors import ExpectedError
from tests.support.clones import as_at_a_terminal
from tests.support.stage_runs import ROOT

STAGE = """
import sys, time
from pathlib import Path
from stages.common.process import run_stage
def main():
    print("runs", flush=True)
    time.sleep(60)
run_stage("split", main)
"""
CLEANING = """
import time
from stages.common.process import run_stage
def main():
    try:
        print("runs", flush=True)
        time.sleep(60)
    finally:
        time.sleep(1)
        print("cleaned", flush=True)
run_stage("split", main)
"""
# As dvc does: a shell that starts the stage, which is told by DVC_STAGE whose it is.
DVC = f"""
import os, subprocess, sys
code = {STAGE!r}
child = subprocess.Popen(["sh", "-c", f"{{sys.executable}} -c '$CODE'; true".replace("'$CODE'", '"$CODE"')],
                         env=os.environ | {{"CODE": code, "DVC_STAGE": "split"}})
child.wait()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def start(code: str, **settings: object) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **{"preexec_fn": as_at_a_terminal, **settings},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "runs\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_told_to_end_it_ends_with_one_line(number: signal.Signals) -> None:
    process = start(STAGE)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert errors == "split: interrupted; the same command resumes\n"
    assert process.returncode == 1


def test_a_second_signal_does_not_fall_into_the_work_that_ends_it() -> None:
    """Ctrl-C reaches the stage, and again when dvc is gone."""
    process = start(CLEANING)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        process.send_signal(number)
        time.sleep(0.2)
    output, errors = process.communicate(timeout=30)
    assert (output, errors) == ("cleaned\n", "split: interrupted; the same command resumes\n")
    assert process.returncode == 1


def test_nohup_outlives_its_terminal() -> None:
    process = start(STAGE, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    process.kill()
    process.communicate()


def test_ends_soon_after_its_dvc() -> None:
    dvc = start(DVC)
    dvc.kill()
    dvc.wait()
    # The stage holds the other end of this pipe, and the shell between them: both are gone when it closes.
    assert dvc.stderr is not None
    assert dvc.stderr.read() == "split: interrupted; the same command resumes\n"
    running.alone("split", lambda: None)  # and its lock is free


def test_without_dvc_nothing_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_STAGE", raising=False)
    monkeypatch.setattr(running, "end_with", lambda pid: pytest.fail("watched"))
    running.run_stage("split", lambda: None)


def test_a_process_that_does_not_end_by_itself_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    stubborn = STAGE.replace("import sys, time", "import signal, sys, time").replace(
        "def main", "from stages.common import process\nprocess.END_SECONDS = 0.5\ndef main"
    )
    stubborn = stubborn.replace("    print", "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    print")
    dvc = start(DVC.replace(repr(STAGE), repr(stubborn)))
    began = time.monotonic()
    dvc.kill()
    dvc.communicate()  # a zombie until then, as under any program that reads what dvc prints
    assert time.monotonic() - began < 30


def test_one_at_a_time_in_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "WAIT_SECONDS", 0.2)
    process = start(STAGE)
    with pytest.raises(ExpectedError, match=r"another process runs this stage .*'python -m \.\*split'"):
        running.alone("split", lambda: pytest.fail("ran"))
    running.alone("plot", lambda: None)  # another stage may
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    running.alone("split", lambda: None)  # and the same one elsewhere
    process.kill()
    process.communicate()
    monkeypatch.chdir(folder)
    running.alone("split", lambda: None)  # a kill leaves no lock behind


def test_waits_for_one_that_is_about_to_end() -> None:
    process = start(STAGE)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    running.alone("split", lambda: None)
    assert time.monotonic() - began < running.WAIT_SECONDS
    process.communicate()
