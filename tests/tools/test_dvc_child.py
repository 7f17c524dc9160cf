"""`dvc` as the child of another program: it ends when it is told to, and so does its stage."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.clones import Clone
from tests.support.stage_runs import ROOT

PIPELINE = """
stages:
  sleep:
    cmd: echo it runs && exec sleep 60
"""


def test_in_the_background_of_a_script_it_ends_as_well(tmp_path: Path) -> None:
    """There a shell lets its jobs ignore Ctrl-C, which is what the group is sent."""
    Clone(tmp_path).ok("git", "init", "--quiet")
    Clone(tmp_path).init_dvc()
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.tools.dvc_child", str(os.getpid()), "repro"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    try:
        assert process.stdout is not None
        assert any(line == "it runs\n" for line in process.stdout)
        process.terminate()
        process.communicate(timeout=30)  # until the stage, too, has closed its output
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode != 0
