"""A clone as git and make find it: line ends, a folder without a commit, a moved checkout, a folder of a larger one."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.clones import Clone, copy_working_tree, drop_own_settings, new_repository
from tests.support.stage_runs import ROOT


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The working tree, committed; not to be changed."""
    clone = new_repository(tmp_path_factory.mktemp("repository") / "origin", {})
    clone.commit("as it is")
    return clone


def test_a_clone_has_the_same_bytes_whatever_git_does_with_line_ends(origin: Clone, tmp_path: Path) -> None:
    origin.ok("git", "clone", "--quiet", "--config", "core.autocrlf=true", ".", str(tmp_path / "clone"))
    names = origin.ok("git", "ls-files").splitlines()
    changed = [
        name for name in names if (tmp_path / "clone" / name).read_bytes() != (origin.folder / name).read_bytes()
    ]
    assert not changed


@pytest.mark.parametrize("target", ["demo", "repro", "grid", "collect", "beyond", "search", "paper-ref"])
@pytest.mark.parametrize("begun", [False, True], ids=["no git", "no commit"])
def test_without_a_commit_make_says_so_before_the_set_up(tmp_path: Path, target: str, begun: bool) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements.txt").touch()
    clone = Clone(tmp_path)
    if begun:
        clone.ok("git", "init", "--quiet")
    result = clone.run("make", "--silent", target, GIT_CEILING_DIRECTORIES=str(tmp_path.parent))
    assert result.returncode != 0
    assert "this folder has no git commit, which DVC needs: git clone the repository, or run" in result.stdout
    assert not (tmp_path / ".venv").exists()


def test_a_moved_checkout_needs_no_new_set_up_and_a_lost_python_does(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    shutil.copy(ROOT / "Makefile", work)
    (work / "requirements.txt").touch()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", work / ".venv"], check=True)
    (packages,) = (work / ".venv").glob("lib/python*/site-packages")
    (packages / "psutil.py").touch()
    (packages / "dvc.py").write_text("import sys; print('dvc', *sys.argv[1:])\n")
    (work / ".venv/ready").touch()
    (work / "metrics").mkdir()
    (work / "metrics/comparison.md").touch()
    (work / "dvc.yaml").touch()
    Clone(work).ok("git", "init", "--quiet")
    Clone(work).ok("git", "add", "dvc.yaml")
    Clone(work).ok("git", "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "--message", "a")
    moved = Clone(work.rename(tmp_path / "moved"))
    assert moved.ok("make", "--silent", "repro", PYTHONSAFEPATH="1") == "dvc repro\n"
    tools = moved.folder / "stages/tools"
    tools.mkdir(parents=True)
    (tools / "predict.py").write_text("import sys; print(*sys.argv[1:])\n")
    picture = "a $b 'c'.png"
    assert moved.ok("make", "--silent", "predict", IMAGE=picture) == f"--model keras_cnn -- {picture}\n"
    assert "which picture?" in moved.run("make", "--silent", "predict").stdout
    (moved.folder / ".venv/bin/python").unlink()
    assert "-m venv .venv" in moved.ok("make", "--dry-run", "repro")


def test_the_papers_tags_in_a_folder_of_a_larger_repository(tmp_path: Path) -> None:
    project = tmp_path / "monorepo/project"
    project.mkdir(parents=True)
    copy_working_tree(project)
    clone = Clone(project)
    who = {f"GIT_{role}_{what}": "a@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    clone.ok("git", "init", "--quiet", "..")
    clone.ok("git", "add", "--all")
    clone.ok("git", "commit", "--quiet", "--message", "all", **who)
    clone.ok("python", "-m", "stages.tools.paper_tags")
    shown = json.loads(clone.ok("dvc", "metrics", "diff", "paper", "--json"))
    assert shown["metrics/keras_cnn.json"]["test.accuracy"]["old"] == 0.8075
    plots = json.loads(clone.ok("dvc", "plots", "diff", "paper", "--json"))["data"]
    assert {"paper", "workspace"} == {name for plot in plots["loss"] for name in plot["revisions"]}


def test_the_users_settings_do_not_reach_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GIT_DIR", "DVC_ROOT", "NO_PROXY"):
        monkeypatch.setenv(name, "elsewhere")
    drop_own_settings()
    assert "GIT_DIR" not in os.environ
    assert "DVC_ROOT" not in os.environ
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == "127.0.0.1,localhost"
    assert Clone(ROOT).ok("git", "config", "--global", "--list") == "safe.directory=*\n"


def test_a_notebooks_matplotlib_setting_does_not_reach_the_figures() -> None:
    setting = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    command = [sys.executable, "-c", "import stages.plot"]
    subprocess.run(command, cwd=ROOT, env=os.environ | setting, check=True)


def command_of_make(tool: str, *arguments: str) -> str:
    """The line that starts a tool, of those that make would run with these arguments."""
    # "make test" runs this test too, and a make within a make prints its folder around the command.
    printed = Clone(ROOT).ok("make", "--dry-run", "--no-print-directory", *arguments)
    (line,) = [line for line in printed.replace("\\\n", "").splitlines() if f"python -m {tool}" in line]
    return " ".join(line.split())


def test_the_demo_changes_parameters_that_there_are() -> None:
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", "")
    (changes,) = re.findall(r"^DEMO = (.*)", makefile, flags=re.MULTILINE)
    for change in changes.split():
        found = yaml.safe_load((ROOT / "params.yaml").read_text())
        for part in change.partition("=")[0].split("."):
            assert part in found, change
            found = found[part]


def test_each_server_has_a_port_of_its_own() -> None:
    """PORT changes both. One variable's default would give the cluster the page's."""
    head, app = "stages.tools.cluster", "stages.tools.app"
    assert "--port" not in command_of_make(head, "cluster-head")
    assert command_of_make(head, "cluster-head", "PORT=7000").endswith("head --port 7000")
    assert "--port" not in command_of_make(app, "app")
    assert command_of_make(app, "app", "PORT=8000").endswith('app --port "8000"')


@pytest.mark.parametrize(
    ("target", "tool"),
    [("grid", "stages.tools.grid"), ("beyond", "beyond.tools.ladder"), ("search", "beyond.tools.search")],
)
def test_an_option_without_a_value_is_left_out(target: str, tool: str) -> None:
    """`--jobs` with nothing behind it would end the tool."""
    assert "--jobs" not in command_of_make(tool, target)
    assert command_of_make(tool, target, "JOBS=2").endswith("--jobs 2")
