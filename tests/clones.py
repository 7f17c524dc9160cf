"""A git clone with commands run in it, apart from the user's own settings."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.stage_runs import ROOT


class Clone:
    """A git clone with commands run in it as at a prompt."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )

    def environment(self, **more: str) -> dict[str, str]:
        """A command's variables: the user's own settings of git and DVC (signed commits) are not what is tested."""
        variables = {
            name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "CIFAR10_", "GIT_"))
        }
        variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{variables['PATH']}"
        variables |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        variables |= {f"DVC_{kind}_CONFIG_DIR": str(self.folder / ".git" / kind) for kind in ("GLOBAL", "SYSTEM")}
        return variables | more

    def commit(self, message: str) -> None:
        """Commit all that there is."""
        self.ok("git", "add", "--all")
        self.ok("git", "commit", "--quiet", "--message", message)

    def ok(self, *command: str, **environment: str) -> str:
        result = self.run(*command, **environment)
        assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}\n{result.stderr}"
        return result.stdout + result.stderr

    def lock(self) -> dict:
        return yaml.safe_load((self.folder / "dvc.lock").read_text())["stages"]

    def metrics(self, model: str) -> dict:
        return json.loads((self.folder / f"metrics/{model}.json").read_text())


def copy_working_tree(folder: Path) -> None:
    """Copy what git tracks or would take up, as it stands in the working tree, uncommitted changes included."""
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
