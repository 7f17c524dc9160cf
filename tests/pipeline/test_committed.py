"""Code, parameters, dvc.yaml, dvc.lock, results and pages of HEAD belong together.

The tests read a clone of HEAD, so an edit in progress is no fault, and a commit without its dvc.lock is one.
`dvc commit -f` can record any result as that of any code; it cannot satisfy test_canary.py and the test of the data.
"""

import csv
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from dvc.stage.serialize import to_single_stage_lockfile
from dvc.utils.serialize import load_yaml, modify_yaml

from stages.common.files import flat, read_json
from stages.experiments.origin import md5_of
from tests.support.clones import Clone
from tests.support.stage_runs import ROOT

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
    """This repository's HEAD; tests do not change it."""
    return head_of(ROOT, tmp_path_factory.mktemp("committed") / "head")


@pytest.fixture
def copy(repository: tuple[Clone, str], tmp_path: Path) -> Clone:
    """A plain clone of a small reproduction, without faults, to plant some in."""
    return head_of(repository[0].folder, tmp_path / "copy")


def faults_of(folder: Path, pipeline: str = "dvc.yaml") -> Faults:
    """Where the dvc.lock of a pipeline differs from the files of a clone.

    This is DVC's own report, except for data and models, which git ignores: of them DVC only says that they are
    missing. Here, what a stage read of them must be what another stage made.
    """
    with Repo(folder) as repo:
        recorded = load_yaml((folder / pipeline).with_suffix(".lock"))["stages"]
        stages = {stage.name: stage for stage in repo.index.stages if stage.path_in_repo == pipeline}
        outs = {out.def_path: out for stage in repo.index.stages for out in stage.outs}
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
                if out is None or not repo.scm.is_ignored(out.fs_path):
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


def message(faults: Faults, pipeline: str = "dvc.yaml") -> str:
    """What is wrong, and the commands that repair it."""
    lock = Path(pipeline).with_suffix(".lock")
    changed = [name if pipeline == "dvc.yaml" else f"{pipeline}:{name}" for name in faults if faults[name] != LEFT_OVER]
    lines = [f"  {name}: {fault}" for name, found in faults.items() for fault in found]
    return "\n".join(
        [
            f"HEAD's {lock} does not match HEAD's code, parameters and results:",
            *lines,
            "To make the results again:",
            "  dvc repro" if pipeline == "dvc.yaml" else f"  dvc repro --single-item {' '.join(changed)}",
            "Or, if you have shown that they stay the same and have the outputs (dvc checkout), to record that:",
            f"  dvc commit -f {' '.join(changed)}",
            f"Then commit {lock} and {lock.parent / 'metrics'}/ with what changed them.",
        ]
    )


def test_the_lock_is_of_the_code_the_parameters_and_the_results(head: Clone) -> None:
    faults = faults_of(head.folder)
    assert not faults, message(faults)
    assert "Data and pipelines are up to date" in head.ok("dvc", "repro", "--dry", "--allow-missing")


def test_so_is_that_of_the_second_pipeline(head: Clone) -> None:
    """Its training is no part of `make repro`: where none is committed, there is nothing to record."""
    faults = faults_of(head.folder, "beyond/dvc.yaml")
    for name, results in {"train": "beyond/metrics/run.json", "evaluate": "beyond/metrics/scores.json"}.items():
        if not (head.folder / results).exists():
            assert faults.pop(name) == ["not in dvc.lock"]
    assert not faults, message(faults, "beyond/dvc.yaml")
    # Declared metrics of it would come first in `dvc metrics diff paper`, and be columns of every `dvc exp show`.
    assert "metrics" not in load_yaml(head.folder / "beyond/dvc.yaml")


def test_the_results_and_the_readme_s_table_follow_from_the_predictions(head: Clone) -> None:
    verified = head.run("python", "-m", "stages.tools.verify")
    failed = [line for line in (verified.stdout + verified.stderr).splitlines() if not line.startswith("ok: ")]
    assert verified.returncode == 0, "\n".join(["make verify fails on HEAD:", *failed])


@pytest.mark.parametrize(
    ("page", "begins", "ends"),
    [("README.md", "## What we found", "## How far to trust it"), ("docs/results.md", "# Results", "## More pictures")],
)
def test_the_text_says_what_the_comparison_says(head: Clone, page: str, begins: str, ends: str) -> None:
    """Each number of a page's findings is in the comparison, or a run's score; but for those of named commits.

    What a finding says of the second pipeline, with a link to its page, is in that pipeline's own tables.
    """
    text = (head.folder / page).read_text(encoding="utf-8")
    assert begins in text.partition(ends)[0], f"{page} has no text between {begins!r} and {ends!r}"
    findings = re.split(r"\n(?=- |\n)", text.partition(begins)[2].partition(ends)[0])
    ours = [finding for finding in findings if not re.search(r"\bcommits? [0-9a-f]{7}", finding)]
    assert any(map(numbers_in, ours)), f"{page} has no numbers between {begins!r} and {ends!r}"
    comparison, ladder, search = (
        numbers_in((head.folder / name).read_text(encoding="utf-8"))
        for name in ("metrics/comparison.md", "beyond/metrics/ladder.md", "beyond/metrics/search.md")
    )
    known = comparison | scores_of_single_runs(head.folder)
    beyond = ladder | search
    wrong = {number for one in ours for number in numbers_in(one) - (beyond if "docs/beyond.md" in one else known)}
    assert not wrong, (
        f"{page} says {sorted(wrong)}, and neither metrics/comparison.md nor a run does, nor beyond/metrics/ladder.md "
        "or search.md where it links docs/beyond.md: correct them"
    )


def numbers_in(text: str) -> set[str]:
    return set(re.findall(r"\d+\.\d+", text))


def scores_of_single_runs(folder: Path) -> set[str]:
    """Accuracies and their standard deviations in percent, and losses, as the pages print them."""
    lines = (folder / "metrics/runs.csv").read_text(encoding="utf-8").splitlines()
    runs = [*csv.DictReader(lines)]
    runs += [flat(read_json(folder / f"metrics/{model}.json")) for model in ("keras_cnn", "resnet18")]
    scores = [(name, value) for run in runs for name, value in run.items() if value]
    return {f"{100 * float(value):.2f}" for name, value in scores if name.endswith((".accuracy", "_std"))} | {
        f"{float(value):.3f}" for name, value in scores if name.endswith(".loss")
    }


@pytest.mark.real_data
def test_the_data_are_what_the_code_makes_of_cifar10(head: Clone, cifar10_workdir: Path) -> None:
    lock = head.lock()
    recorded = {
        out["path"]: out["md5"]
        for name in ("download", "preprocess", "split")
        for out in lock[name]["outs"]
        if out["path"].startswith("data/")
    }
    assert recorded == {path: md5_of(cifar10_workdir / path) for path in recorded}, "dvc repro makes them again"


def appended(path: str) -> Planting:
    def plant(folder: Path) -> None:
        with (folder / path).open("a") as file:
            file.write("\n")

    return plant


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


BOTH = ("keras_cnn", "resnet18")
JOINING = ("cards", "compare", "plot", "report")
OTHER_SPLIT = {
    f"{stage}{model}": [f"{SPLIT} is not the one that split made"]
    for stage in ("train_", "evaluate@")
    for model in BOTH
}

# What is planted, and what is then reported for which stage.
PLANTED = {
    "code": (
        appended("stages/training/images.py"),
        {
            f"{stage}{model}": ["stages/training is modified"]
            for stage in ("train_", "evaluate@", "export_")
            for model in BOTH
        },
    ),
    "the paper's data": (
        appended("data/paper/numbers.yaml"),
        {stage: ["data/paper is modified"] for stage in ("compare", "report")}
        | {"plot": ["data/paper/numbers.yaml is modified"]},
    ),
    "a parameter": (
        in_yaml("params.yaml", lambda parameters: parameters.update(dropout=0.4)),
        {"train_keras_cnn": ["params.yaml is {'dropout': 'modified'}"]},
    ),
    "a result": (
        appended("metrics/keras_cnn.json"),
        {name: ["metrics/keras_cnn.json is modified"] for name in ("evaluate@keras_cnn", *JOINING)},
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
        in_yaml("dvc.yaml", lambda pipeline: pipeline["stages"]["compare"]["deps"].remove("stages/paper")),
        {"compare": ["stages/paper is in only one of dvc.yaml and dvc.lock"]},
    ),
    "another command": (
        in_yaml("dvc.yaml", lambda pipeline: pipeline["stages"]["split"].update(cmd="true")),
        {"split": [f"{cmd} is in only one of dvc.yaml and dvc.lock" for cmd in ("python -m stages.split", "true")]},
    ),
    "another model than was trained": (
        locked("deps", KERAS_MODEL, "evaluate@keras_cnn"),
        {"evaluate@keras_cnn": [f"{KERAS_MODEL} is not the one that train_keras_cnn made"]},
    ),
    "other data than were split": (locked("outs", SPLIT, "split"), OTHER_SPLIT),
}


@pytest.mark.pipeline
@pytest.mark.parametrize(("plant", "faults"), PLANTED.values(), ids=PLANTED)
def test_what_does_not_belong_together_is_named(plant: Planting, faults: Faults, copy: Clone) -> None:
    plant(copy.folder)
    assert faults_of(copy.folder) == faults


@pytest.mark.pipeline
def test_an_edit_is_no_fault_until_it_is_committed(copy: Clone, tmp_path: Path) -> None:
    appended("stages/split.py")(copy.folder)
    assert faults_of(head_of(copy.folder, tmp_path / "edited").folder) == {}
    who = ("-c", "user.name=A tester", "-c", "user.email=tester@example.org")
    copy.ok("git", *who, "commit", "--quiet", "--all", "--message", "an edit")
    faults = faults_of(head_of(copy.folder, tmp_path / "committed").folder)
    assert faults == {"split": ["stages/split.py is modified"]}
    assert "  dvc commit -f split\n" in message(faults)
    assert "  dvc commit -f beyond/dvc.yaml:split\n" in message(faults, "beyond/dvc.yaml")
