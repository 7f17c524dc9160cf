"""A working directory and parameters in which the second pipeline trains in a moment."""

import importlib
import shutil
from pathlib import Path

import yaml
from ruamel.yaml import YAML

from beyond.ladder.plan import settings_of
from beyond.recipe.settings import PARAMETERS, Settings
from tests.support.clones import Clone, new_repository
from tests.support.stage_runs import ROOT, prepare

DATA = {"data": {"source": "synthetic", "synthetic": {"seed": 7, "train_images": 100, "test_images": 40}}}
SMALL = ["network.widths=[4, 5, 6]", "batch_size=8", "epochs=3", "network.whitening_bias_epochs=2"]


def settings(*overrides: str) -> Settings:
    """The committed parameters with a small network, and these changes."""
    return settings_of([*SMALL, *overrides], ROOT / PARAMETERS)


def change(*overrides: str) -> None:
    """Set beyond/params.yaml of the current directory to `settings(*overrides)`."""
    PARAMETERS.parent.mkdir(exist_ok=True)
    YAML().dump(settings(*overrides).model_dump(), PARAMETERS)


def prepare_beyond(*overrides: str) -> None:
    """In the current directory: tiny synthetic data, 50 + 10 images split 40 and 10, and these parameters."""
    prepare({})
    change(*overrides)


def run(*stages: str) -> None:
    """Run stages of beyond/dvc.yaml in this process."""
    for name in stages:
        module = importlib.import_module(f"beyond.{name}")
        module.main()


def copy_of(folder: Path, names: tuple[Path, ...]) -> dict[str, bytes]:
    """The bytes of files in a folder."""
    return {str(name): (folder / name).read_bytes() for name in names}


def clear() -> None:
    """Remove what a run has written, and its checkpoint."""
    for name in ("beyond/metrics", "beyond/models", ".resume"):
        shutil.rmtree(name, ignore_errors=True)


def small_repository(folder: Path) -> Clone:
    """The working tree with little synthetic data, a small network and one budget; its data made."""
    clone = new_repository(folder, DATA)
    beyond = clone.folder / "beyond"
    for results in ("metrics", "runs", "search"):
        shutil.rmtree(beyond / results, ignore_errors=True)
    (beyond / "runs").mkdir()
    (beyond / "runs/runs.csv").write_text("name\n")
    (beyond / "params.yaml").write_text(yaml.safe_dump(settings().model_dump(), sort_keys=False))
    budget = {"pflop": 0.03, "set": ["epochs=2", "network.widths=[4, 5, 7]"]}
    plan = {"set": ["validation=none"], "seeds": [1], "budgets": [budget]}
    (beyond / "experiments.yaml").write_text(yaml.safe_dump(plan))
    clone.commit("small")
    clone.ok("dvc", "repro", "split")
    clone.commit("data")
    return clone
