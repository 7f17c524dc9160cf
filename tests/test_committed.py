"""What HEAD holds belongs together: code, parameters and dvc.yaml, dvc.lock, the results, the README.

It is looked at in a clone of HEAD, so that an edit in progress is no fault, and a commit without its dvc.lock is one.
`dvc commit -f` can record any result as that of any code: tests/test_canary.py and the data below are what it cannot
satisfy.
"""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from dvc.stage.serialize import to_single_stage_lockfile
from dvc.utils.serialize import load_yaml, modify_yaml

from stages.experiments import md5_of
from stages.verify import TABLE_BEGINS, TABLE_ENDS
from tests.clones import Clone
from tests.stage_runs import ROOT

Faults = dict[str, list[str]]  # a stage's name; a sentence each
Planting = Callable[[Path], object]

LEFT_OVER = ["not in dvc.yaml: delete its entry from dvc.lock"]
KERAS_MODEL, SPLIT = "models/keras_cnn.keras", "data/processed/split.npz"


def head_of(repository: Path, folder: Path) -> Clone:
    """A clone of what HEAD holds, without DVC's cache."""
    subprocess.run(["git", "clone", "--quiet", repository, folder], check=True)
    return Clone(folder)


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """This repository's HEAD; not to be changed."""
    return head_of(ROOT, tmp_path_factory.mktemp("committed") / "head")


@pytest.fixture(scope="module")
def faults_of_head(head: Clone) -> Faults:
    return faults_of(head.folder)


@pytest.fixture
def copy(head: Clone, tmp_path: Path) -> Clone:
    """The same, to plant faults in."""
    return Clone(Path(shutil.copytree(head.folder, tmp_path / "copy")))


def faults_of(folder: Path) -> Faults:
    """What dvc.lock records otherwise than the files of a clone have it.

    DVC's own report, but for what is not in git, data and models: there it reports no more than that they are missing.
    What a stage read of them has to be what another one made.
    """
    with Repo(folder) as repo:
        recorded = load_yaml(folder / "dvc.lock")["stages"]
        stages = {stage.name: stage for stage in repo.index.stages}
        outs = {out.def_path: out for stage in stages.values() for out in stage.outs}
        faults: Faults = {name: LEFT_OVER for name in recorded if name not in stages}
        for name, stage in stages.items():
            if name not in recorded:
                faults[name] = ["not in dvc.lock"]
                continue
            declared = to_single_stage_lockfile(stage)
            strangers = sorted(names_in(declared) ^ names_in(recorded[name]))
            lines = [f"{what} is in only one of dvc.yaml and dvc.lock" for what in strangers]
            for item in [*stage.deps, *stage.outs]:
                out = outs.get(item.def_path)
                if out is None or not out.use_cache:
                    lines += [f"{path} is {what}" for path, what in item.status().items()]
                elif item.hash_info != out.hash_info:
                    lines.append(f"{item.def_path} is not the one that {out.stage.name} made")
            if lines:
                faults[name] = lines
    return faults


def names_in(entry: dict[str, Any]) -> set[str]:
    """Command, parameters, inputs and outputs in a stage's entry of dvc.lock."""
    parameters = {f"{file}: {key}" for file, values in entry.get("params", {}).items() for key in values}
    return {entry["cmd"]} | parameters | {item["path"] for item in entry.get("deps", []) + entry.get("outs", [])}


def message(faults: Faults) -> str:
    """What is wrong, and the commands that mend it."""
    lines = [f"  {name}: {fault}" for name, found in faults.items() for fault in found]
    return "\n".join(
        [
            "HEAD's dvc.lock is not of HEAD's code, parameters and results:",
            *lines,
            "To make the results anew:",
            "  dvc repro",
            "Or, where they are shown to stay the same and the outputs are at hand (dvc checkout), to record that:",
            f"  dvc commit -f {' '.join(name for name in faults if faults[name] != LEFT_OVER)}",
            "Then commit dvc.lock and metrics/ with what changed them.",
        ]
    )


def test_the_lock_is_of_the_code_the_parameters_and_the_results(head: Clone, faults_of_head: Faults) -> None:
    assert not faults_of_head, message(faults_of_head)
    assert "Data and pipelines are up to date" in head.ok("dvc", "repro", "--dry", "--allow-missing")


def test_the_results_and_the_readme_s_table_follow_from_the_predictions(head: Clone) -> None:
    verified = head.run("python", "-m", "stages.verify")
    failed = [line for line in (verified.stdout + verified.stderr).splitlines() if not line.startswith("ok: ")]
    assert verified.returncode == 0, "\n".join(["make verify fails on HEAD:", *failed])


def test_the_readme_s_text_says_what_its_table_says(head: Clone) -> None:
    """Each number of what "stands out" is in the table, but for those of which the text names the commit."""
    readme = (head.folder / "README.md").read_text(encoding="utf-8")
    table, _, rest = readme.partition(TABLE_BEGINS)[2].partition(TABLE_ENDS)
    points = re.split(r"\n- ", rest.partition("stand out already:")[2].partition("\n\n!")[0])
    said = {
        number
        for point in points
        if not re.search(r"commit [0-9a-f]{7}", point)
        for number in re.findall(r"\d+\.\d+", point)
    }
    assert said, "README.md has no numbers after 'stand out already:'"
    assert said <= set(re.findall(r"\d+\.\d+", table)), "README.md says numbers that its table has not: correct them"


@pytest.mark.real_data
def test_the_data_are_what_the_code_makes_of_cifar10(head: Clone, cifar10_workdir: Path) -> None:
    lock = head.lock()
    recorded = {
        out["path"]: out["md5"]
        for name in ("download", "preprocess", "split")
        for out in lock[name]["outs"]
        if out["path"].startswith("data/")
    }
    assert recorded == {path: md5_of(cifar10_workdir / path) for path in recorded}, "dvc repro makes them anew"


def appended(path: str) -> Planting:
    def plant(folder: Path) -> None:
        with (folder / path).open("a") as file:
            file.write("\n")

    return plant


def removed(path: str) -> Planting:
    return lambda folder: (folder / path).unlink()


def in_yaml(path: str, change: Callable[[Any], object]) -> Planting:
    def plant(folder: Path) -> None:
        with modify_yaml(folder / path) as content:
            change(content)

    return plant


def locked(part: str, path: str, stage: str) -> Planting:
    """Another MD5 sum for one file in a stage's entry of dvc.lock."""

    def change(lock: Any) -> None:
        (item,) = (item for item in lock["stages"][stage][part] if item["path"] == path)
        item["md5"] = "0" * len(item["md5"])

    return in_yaml("dvc.lock", change)


OTHER_SPLIT = {f"train_{model}": [f"{SPLIT} is not the one that split made"] for model in ("keras_cnn", "resnet18")}

# What is planted, and what is then said, of which stage.
PLANTED = {
    "code": (
        appended("stages/scoring.py"),
        {f"evaluate@{model}": ["stages/scoring.py is modified"] for model in ("keras_cnn", "resnet18")},
    ),
    "code that is gone": (removed("stages/transfer.py"), {"download": ["stages/transfer.py is deleted"]}),
    "the paper's data": (appended("data/paper/numbers.yaml"), {"compare": ["data/paper is modified"]}),
    "a parameter": (
        in_yaml("params.yaml", lambda parameters: parameters.update(dropout=0.4)),
        {"train_keras_cnn": ["params.yaml is {'dropout': 'modified'}"]},
    ),
    "a result": (
        appended("metrics/keras_cnn.json"),
        {name: ["metrics/keras_cnn.json is modified"] for name in ("evaluate@keras_cnn", "plot", "compare")},
    ),
    "a result that is gone": (
        removed("metrics/runtime/resnet18.json"),
        {"train_resnet18": ["metrics/runtime/resnet18.json is deleted"]},
    ),
    "a stage's entry that is gone": (
        in_yaml("dvc.lock", lambda lock: lock["stages"].pop("split")),
        {"split": ["not in dvc.lock"], **OTHER_SPLIT},
    ),
    "a new stage": (
        in_yaml("dvc.yaml", lambda pipeline: pipeline["stages"].update(more={"cmd": "true", "deps": ["README.md"]})),
        {"more": ["not in dvc.lock"]},
    ),
    "a stage that is gone": (
        in_yaml("dvc.yaml", lambda pipeline: pipeline["stages"].pop("plot")),
        {"plot": LEFT_OVER},
    ),
    "an input that is gone": (
        in_yaml("dvc.yaml", lambda pipeline: pipeline["stages"]["compare"]["deps"].remove("stages/paper.py")),
        {"compare": ["stages/paper.py is in only one of dvc.yaml and dvc.lock"]},
    ),
    "a new parameter": (
        in_yaml("dvc.yaml", lambda pipeline: pipeline["stages"]["split"]["params"].append("seed")),
        {"split": ["params.yaml is {'seed': 'new'}"]},
    ),
    "another command": (
        in_yaml("dvc.yaml", lambda pipeline: pipeline["stages"]["split"].update(cmd="true")),
        {"split": [f"{cmd} is in only one of dvc.yaml and dvc.lock" for cmd in ("python -m stages.split", "true")]},
    ),
    "another model than was trained": (
        locked("deps", KERAS_MODEL, "evaluate@keras_cnn"),
        {"evaluate@keras_cnn": [f"{KERAS_MODEL} is not the one that train_keras_cnn made"]},
    ),
    "other data than were split": (
        locked("outs", SPLIT, "split"),
        OTHER_SPLIT,
    ),
}


@pytest.mark.parametrize(("plant", "faults"), PLANTED.values(), ids=PLANTED)
def test_what_does_not_belong_together_is_named(
    plant: Planting, faults: Faults, copy: Clone, faults_of_head: Faults
) -> None:
    plant(copy.folder)
    assert added(faults_of(copy.folder), faults_of_head) == faults


def test_an_edit_is_no_fault_until_it_is_committed(copy: Clone, tmp_path: Path, faults_of_head: Faults) -> None:
    appended("stages/split.py")(copy.folder)
    assert faults_of(head_of(copy.folder, tmp_path / "edited").folder) == faults_of_head
    who = ("-c", "user.name=A tester", "-c", "user.email=tester@example.org")
    copy.ok("git", *who, "commit", "--quiet", "--all", "--message", "an edit")
    faults = added(faults_of(head_of(copy.folder, tmp_path / "committed").folder), faults_of_head)
    assert faults == {"split": ["stages/split.py is modified"]}
    assert "  dvc commit -f split\n" in message(faults)


def added(faults: Faults, before: Faults) -> Faults:
    """The faults that are new, for HEAD may have some of its own."""
    new = {name: [line for line in lines if line not in before.get(name, [])] for name, lines in faults.items()}
    return {name: lines for name, lines in new.items() if lines}
