"""A git clone and commands in it, without the user's own settings."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from stages.common import errors
from tests.support.stage_runs import ROOT

WAY_BACK = errors.WAY_BACK.split(": ")[1]

# Root without this right is bound by permissions as anyone; another user could not even read a Python in root's home.
ORDINARY = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.getuid() == 0 else ()
# Without a home, with a TMPDIR that cannot be written (Python takes /tmp instead), in the language C, in such a folder.
HOSTILE = (
    *(*ORDINARY, "env", "-u", "HOME", "-u", "LC_CTYPE", "TMPDIR=/proc", "LC_ALL=C", "LANG=C", "PYTHONCOERCECLOCALE=0"),
    *("sh", "-c", 'echo "HOME=${HOME-none} TMPDIR=$TMPDIR LC_ALL=$LC_ALL"; exec "$@"', "sh"),
)
UNUSUAL = "an 'ünusual' 目录 & more"

ALL_STAGES = [  # in the order of dvc.yaml
    f"{name}@{key}" if key else name
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items()
    for key in stage.get("foreach", [""])
]

# As little as shows that the graph works.
SMALL = {
    "data": {"source": "synthetic", "synthetic": {"seed": 7, "train_images": 50, "test_images": 20}},
    "keras_cnn": {"epochs": 1, "filters": [3, 4], "dense_units": 6},
    "resnet18": {"epochs": 1},
    "evaluate": {"augmented_draws": 2},
}


def drop_own_settings() -> None:
    """The user's settings of git, DVC (a cache elsewhere, signed commits) and a proxy no longer matter from here on."""
    for name in list(os.environ):
        if name.startswith(("GIT_", "DVC_")):
            del os.environ[name]
    os.environ |= {"GIT_CONFIG_GLOBAL": str(ROOT / "tests/support/gitconfig"), "GIT_CONFIG_NOSYSTEM": "1"}
    os.environ |= dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost")


class Clone:
    """A git clone in which commands run as at a prompt."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*command, **environment)
        output, errors = process.communicate()
        return subprocess.CompletedProcess(command, process.returncode, output, errors)

    def start(self, *command: str, stderr: int = subprocess.PIPE, **environment: str) -> "subprocess.Popen[str]":
        """A command in its own session, so that a signal reaches all its processes, as Ctrl-C does."""
        kinds = ("GLOBAL_CONFIG", "SYSTEM_CONFIG", "SITE_CACHE")  # the last is what DVC keeps outside a clone
        own = {f"DVC_{kind}_DIR": str(self.folder / ".git" / kind) for kind in kinds} | {"LC_ALL": "C.UTF-8"}
        variables = {name: value for name, value in os.environ.items() if not name.startswith("CIFAR10_")}
        variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{variables['PATH']}"
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=variables | own | environment,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=as_at_a_terminal,
        )

    def ok(self, *command: str, **environment: str) -> str:
        result = self.run(*command, **environment)
        assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}\n{result.stderr}"
        return result.stdout + result.stderr

    def commit(self, message: str) -> None:
        """Commit everything."""
        self.ok("git", "add", "--all")
        self.ok("git", "commit", "--quiet", "--message", message)

    def init_dvc(self) -> None:
        """Write what `dvc init` leaves behind, which takes seconds."""
        (self.folder / ".dvc").mkdir()
        (self.folder / ".dvc/config").touch()
        (self.folder / ".dvc/.gitignore").write_text("/config.local\n/tmp\n/cache\n")

    def lock(self) -> dict:
        return yaml.safe_load((self.folder / "dvc.lock").read_text())["stages"]

    def metrics(self, model: str) -> dict:
        return json.loads((self.folder / f"metrics/{model}.json").read_text())


def as_at_a_terminal() -> None:
    """Let Ctrl-C reach the command even if the tests run in the background, where it is ignored."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


def stages_run(output: str) -> list[str]:
    """The stages that `dvc repro` ran, from its output."""
    return re.findall(r"^Running stage '([^']+)'", output, flags=re.MULTILINE)


def copy_working_tree(folder: Path) -> None:
    """Copy what git tracks or would add, as it is in the working tree, with uncommitted changes."""
    tree = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, tree.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def new_repository(folder: Path, parameters: dict[str, dict[str, Any]]) -> Clone:
    """The working tree as a repository without a commit, with some parameters changed."""
    copy_working_tree(folder)
    path = folder / "params.yaml"
    content = yaml.safe_load(path.read_text())
    for section, changes in parameters.items():
        content[section] |= changes
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    clone = Clone(folder)
    clone.ok("git", "init", "--quiet")
    clone.ok("git", "config", "user.name", "A tester")
    clone.ok("git", "config", "user.email", "tester@example.org")
    return clone


def reproduce_small(folder: Path) -> tuple[Clone, str]:
    """The working tree, committed with small parameters and reproduced, in hostile surroundings where these can be had.

    Returns:
        The clone, in a new folder within this one, and the output.
    """
    clone = new_repository(folder / UNUSUAL, SMALL)
    clone.commit("small")
    output = clone.ok(*(HOSTILE if clone.run(*HOSTILE, "true").returncode == 0 else ()), "dvc", "repro")
    clone.commit("reproduced")
    return clone, output
