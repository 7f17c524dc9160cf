"""The search: its rules with made-up trainings, and one through the real `dvc` that is killed and goes on."""

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.common.errors import ExpectedError
from stages.common.files import read_rows
from tests.support.clones import Clone
from tests.support.stage_runs import ROOT

optuna = pytest.importorskip("optuna", reason="Optuna is not installed (the extra `search`): no search is tested")

from beyond.tools import search as tool  # noqa: E402
from beyond.tools.search import SEARCHES, Search, open_study, run_trials  # noqa: E402

NAME = "made_up"
STUDY = {
    "target": "train_keras_cnn",
    "parameters": "params.yaml",
    "history": "history.csv",
    "record": "record.json",
    "set": [],
    "space": {"dropout": {"low": 0.0, "high": 0.5}, "batch_size": {"choices": [32, 64]}},
    "pruner": {"kind": "none"},
    "epochs": 20,
    "seed": 7,
}
COMMITTED = {"dropout": 0.3, "batch_size": 64}
Curve = Callable[[int, dict[str, Any]], list[Any]]  # from a trial's number and values


class Trainings:
    """Takes the place of dvc: each training is a curve of validation accuracies."""

    def __init__(self, curve: Curve) -> None:
        self.curve = curve
        self.ran: list[str] = []
        self.commands: list[list[str]] = []
        self.records: dict[str, str] = {}
        self.so_far: list[float] = []
        self.killed = False

    def run_dvc(self, name: str, command: list[str], active: Any, watch: Any) -> tuple[int, deque[str]]:
        self.ran.append(name)
        self.commands.append(command)
        values = dict(part.partition(":")[2].split("=") for part in command if ":" in part and "=" in part)
        curve = self.curve(int(name.rsplit("-", 1)[1]), {key: json.loads(text) for key, text in values.items()})
        self.so_far, self.killed = [], False
        for epoch, accuracy in enumerate(curve, start=1):
            if isinstance(accuracy, KeyboardInterrupt):
                raise accuracy
            self.so_far.append(accuracy)
            watch(type("Process", (), {"pid": 1})(), f"epoch {epoch}/{len(curve)}  val_accuracy {accuracy}")
            if self.killed:
                return 1, deque()
        if not curve:
            return 1, deque(["it failed\n"])
        record = {"epochs": len(curve), "validation": {"accuracy": curve[-1]}}
        self.records[name] = json.dumps(record)
        return 0, deque()


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, Trainings]]:
    """A function that runs a search on made-up trainings."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".search").mkdir()
    Path("params.yaml").write_text(yaml.safe_dump(COMMITTED))

    def run(curve: Curve, identity: str = "same", **changes: Any) -> tuple[Any, Trainings]:
        given, trainings = Search.model_validate(STUDY | changes), Trainings(curve)
        monkeypatch.setattr(tool, "run_dvc", trainings.run_dvc)
        monkeypatch.setattr(tool, "accuracies", lambda *_: trainings.so_far)
        monkeypatch.setattr(tool, "experiments_in_git", lambda: {name: [name] for name in trainings.records})
        monkeypatch.setattr(tool, "file_in", lambda commit, _: trainings.records[commit])
        monkeypatch.setattr(tool, "identity_of", lambda _: identity)
        monkeypatch.setattr(os, "killpg", lambda *_: setattr(trainings, "killed", True))
        study = open_study(NAME, given)
        run_trials(NAME, study, given, jobs=1)
        return study, trainings

    return run


def by_dropout(number: int, values: dict[str, Any]) -> list[float]:
    return [0.5 - values["dropout"] / 2, 0.9 - values["dropout"]]


def test_the_first_trial_has_the_committed_values_and_the_budget_ends_it(start: Any) -> None:
    study, trainings = start(by_dropout)
    assert len(study.trials) == 10  # 20 epochs of 2
    assert study.trials[0].params == COMMITTED
    assert trainings.commands[0][:5] == ["exp", "run", "--temp", "--name", "search-made_up-0"]
    assert {"params.yaml:dropout=0.3", "params.yaml:batch_size=64"} <= set(trainings.commands[0])
    assert trainings.commands[0][-1] == "train_keras_cnn"
    assert study.best_value > 0.6
    rows = read_rows(Path(f"beyond/search/{NAME}.csv"))
    accuracies = [float(row["validation_accuracy"]) for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)
    (committed,) = (row for row in rows if row["note"] == "the committed values")
    assert committed["experiment"] == "search-made_up-0"
    assert float(committed["validation_accuracy"]) == pytest.approx(0.6)


def test_a_second_start_goes_on_and_a_greater_budget_adds_trials(start: Any) -> None:
    start(by_dropout)
    assert start(by_dropout)[1].ran == []
    study, trainings = start(by_dropout, epochs=24)
    assert trainings.ran == ["search-made_up-10", "search-made_up-11"]
    assert len({trial.params["dropout"] for trial in study.trials}) == 12  # no trial is proposed again


def test_a_trial_that_was_cut_off_is_tried_again_first(start: Any) -> None:
    def cut_off(number: int, values: dict[str, Any]) -> list[Any]:
        if number == 2:
            return [0.5, KeyboardInterrupt()]
        return by_dropout(number, values)

    with pytest.raises(KeyboardInterrupt):
        start(cut_off)
    study, trainings = start(by_dropout)
    assert trainings.ran[0] == "search-made_up-3"
    assert len(trainings.ran) == 8  # what it had trained before it was cut off counts once
    assert study.trials[3].params == study.trials[2].params
    assert study.trials[2].state == optuna.trial.TrialState.FAIL
    rows = read_rows(Path(f"beyond/search/{NAME}.csv"))
    assert sum(int(row["epochs"]) for row in rows) == 20
    assert "2" not in [row["trial"] for row in rows]


def test_steps_leave_no_rounding_error(start: Any) -> None:
    """0.1 + 2 * 0.1 is not 0.3, and the paper's rows hold for 0.3 alone."""
    space = {"dropout": {"low": 0.1, "high": 0.4, "step": 0.1}, "batch_size": {"choices": [32, 64]}}
    study, trainings = start(by_dropout, space=space)
    assert 0.1 + 2 * 0.1 in {trial.params["dropout"] for trial in study.trials}
    asked = {part for command in trainings.commands for part in command if "dropout" in part}
    assert asked <= {f"params.yaml:dropout={value}" for value in (0.1, 0.2, 0.3, 0.4)}
    assert {row["dropout"] for row in read_rows(Path(f"beyond/search/{NAME}.csv"))} <= {"0.1", "0.2", "0.3", "0.4"}


def test_a_study_that_holds_no_images_out_is_refused(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dvc = Trainings.run_dvc

    def without_validation(self: Trainings, name: str, *arguments: Any) -> Any:
        result = run_dvc(self, name, *arguments)
        self.records[name] = json.dumps({"epochs": 2, "validation": None})
        return result

    monkeypatch.setattr(Trainings, "run_dvc", without_validation)
    with pytest.raises(ExpectedError, match="search-made_up-0 has no validation accuracy"):
        start(by_dropout)


@pytest.mark.parametrize("pruner", [{"kind": "median", "after": 2}, {"kind": "halving", "after": 1}])
def test_the_history_feeds_the_pruner(start: Any, pruner: dict[str, Any]) -> None:
    def worse_and_worse(number: int, values: dict[str, Any]) -> list[float]:
        return [0.9 - 0.05 * number] * 4

    study, _ = start(worse_and_worse, pruner=pruner, epochs=40)
    states = [trial.state.name for trial in study.trials]
    assert states[0] == "COMPLETE"
    assert states[-1] == "PRUNED"
    pruned = [trial for trial in study.trials if trial.state.name == "PRUNED"]
    assert {trial.user_attrs["epochs"] for trial in pruned} == {pruner["after"]}
    assert sum(trial.user_attrs["epochs"] for trial in study.trials) in range(40, 44)
    rows = read_rows(Path(f"beyond/search/{NAME}.csv"))
    assert [row["validation_accuracy"] for row in rows if row["state"] == "pruned"] == [""] * len(pruned)
    assert {row["highest_of_an_epoch"] for row in rows} == {str(trial.intermediate_values[1]) for trial in study.trials}


def test_the_pruner_is_told_the_highest_accuracy_so_far_and_asked_before_the_last_epoch(start: Any) -> None:
    """A trial that has trained in full is not thrown away."""

    def up_and_down(number: int, values: dict[str, Any]) -> list[float]:
        return [0.9, 0.2, 0.8] if number < 5 else [0.95, 0.1, 0.1]

    study, _ = start(up_and_down, pruner={"kind": "median", "after": 2}, epochs=18)
    assert {trial.state.name for trial in study.trials} == {"COMPLETE"}
    assert list(study.trials[5].intermediate_values.values()) == [0.95, 0.95, 0.95]
    study, _ = start(lambda *_: [0.1, 0.1, 0.1], pruner={"kind": "median", "after": 3}, epochs=21)
    assert study.trials[-1].state.name == "COMPLETE"
    study, _ = start(lambda *_: [0.1, 0.1, 0.1], pruner={"kind": "median", "after": 2}, epochs=23)
    assert study.trials[-1].state.name == "PRUNED"


def test_the_trial_with_the_committed_values_is_never_ended(start: Any) -> None:
    """Another search may begin with better ones: what was found would have nothing to compare with."""

    def committed_is_worst(number: int, values: dict[str, Any]) -> list[float]:
        return [0.1 if values == COMMITTED else 0.5 - values["dropout"]] * 4

    study, _ = start(committed_is_worst, pruner={"kind": "median", "after": 1}, epochs=60)
    assert "PRUNED" in {trial.state.name for trial in study.trials}
    study.enqueue_trial(COMMITTED)
    study, _ = start(committed_is_worst, pruner={"kind": "median", "after": 1}, epochs=70)
    last = [trial for trial in study.trials if trial.params == COMMITTED][-1]
    assert last.number > 5
    assert last.state.name == "COMPLETE"


def test_trials_that_all_fail_end_the_search(start: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ExpectedError, match="3 trials of made_up failed in a row"):
        start(lambda *_: [])
    assert "it failed" in capsys.readouterr().out


def test_other_code_or_settings_are_refused(start: Any) -> None:
    start(by_dropout)
    with pytest.raises(ExpectedError, match="was begun with other code, data or settings"):
        start(by_dropout, identity="other")


@pytest.mark.parametrize("target", ["evaluate@keras_cnn", "evaluate", "train_keras"])
def test_a_target_that_is_no_stage_is_refused_before_the_study(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".search").mkdir()
    Path("dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    message = (
        rf"beyond/search\.yaml: target is {target}; allowed in dvc\.yaml: download, preprocess, split, train_keras"
    )
    with pytest.raises(ExpectedError, match=message):
        open_study(NAME, Search.model_validate(STUDY | {"target": target}))
    assert not list(Path(".search").iterdir())


def test_its_pictures_are_optuna_s(start: Any, capsys: pytest.CaptureFixture[str]) -> None:
    study, _ = start(lambda *_: [0.5] * 10)
    tool.draw(NAME, study)
    assert "no picture yet" in capsys.readouterr().out
    study, _ = start(by_dropout, epochs=36)
    tool.draw(NAME, study)
    for kind in ("importance", "slice"):
        assert Path(f"beyond/search/{NAME}_{kind}.png").read_bytes().startswith(b"\x89PNG")
    tool.report(NAME, study, Search.model_validate(STUDY))
    assert f"best: search-made_up-{study.best_trial.number}, " in capsys.readouterr().out


def test_the_committed_values_are_tried_until_a_trial_has_them(start: Any) -> None:
    """Three trials fail, as on a full disk; the next start tries them again, and one that was cut off only once."""
    with pytest.raises(ExpectedError, match="failed in a row"):
        start(lambda *_: [])
    study, _ = start(by_dropout)
    (_,) = [trial for trial in study.trials if trial.params == COMMITTED and trial.state.name == "COMPLETE"]
    Path("params.yaml").write_text(yaml.safe_dump(COMMITTED | {"dropout": 0.2}))  # as after `dvc exp apply`
    study, _ = start(by_dropout, epochs=22)
    assert study.trials[-1].params == COMMITTED | {"dropout": 0.2}
    (row,) = [row for row in read_rows(Path(f"beyond/search/{NAME}.csv")) if row["note"]]
    assert row["dropout"] == "0.2"


def test_two_trials_at_once_are_never_the_same(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite would give a waiting trial to both."""
    monkeypatch.setattr(tool, "identity_of", lambda _: "same")
    monkeypatch.setattr(tool, "experiments_in_git", dict)
    given = Search.model_validate(STUDY | {"epochs": 40})
    study = open_study(NAME, given)
    for number in range(8):
        study.enqueue_trial({"dropout": number / 20, "batch_size": 32})
    ask, asking, ran = study.ask, threading.Lock(), []

    def ask_alone(space: Any) -> Any:
        assert asking.acquire(blocking=False)
        time.sleep(0.02)
        trial = ask(space)
        asking.release()
        return trial

    def run_trial(name: str, trial: Any, *_: Any) -> Any:
        ran.append(name)
        trial.set_user_attr("epochs", 4)
        return optuna.trial.TrialState.COMPLETE, 0.5

    monkeypatch.setattr(study, "ask", ask_alone)
    monkeypatch.setattr(tool, "run_trial", run_trial)
    run_trials(NAME, study, given, jobs=4)
    assert len(ran) == len(set(ran)) == len(study.trials) >= 10


def test_what_an_earlier_search_left_is_not_overwritten(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its table is in git, and its database is not: as in a fresh clone."""
    start(by_dropout)
    table = Path(f"beyond/search/{NAME}.csv")
    before = table.read_bytes()
    shutil.rmtree(".search")
    Path(".search").mkdir()
    with pytest.raises(ExpectedError, match=r"made_up\.csv is of an earlier search, and \.search/made_up\.db is not"):
        start(by_dropout)
    assert table.read_bytes() == before
    table.unlink()
    monkeypatch.setattr(tool, "identity_of", lambda _: "same")
    monkeypatch.setattr(tool, "experiments_in_git", lambda: {"search-made_up-2-0": [], "search-made_up-11": []})
    with pytest.raises(ExpectedError, match="search-made_up-11 is of an earlier search; begin anew: rm -f "):
        open_study(NAME, Search.model_validate(STUDY))


def test_a_damaged_database_is_one_line(start: Any) -> None:
    Path(f".search/{NAME}.db").write_bytes(b"junk" * 2000)
    with (
        pytest.raises(ExpectedError, match=r"^\.search/made_up\.db: .*file is not a database; .*begin anew: [^\n]*$"),
        tool.storage_faults(NAME),
    ):
        start(by_dropout)


def test_a_search_ends_where_its_code_changes_meanwhile(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def edited(number: int, values: dict[str, Any]) -> list[float]:
        if number == 2:
            monkeypatch.setattr(tool, "identity_of", lambda _: "other")
        return by_dropout(number, values)

    with pytest.raises(ExpectedError, match="have changed since the search made_up began"):
        start(edited)


@pytest.mark.parametrize(
    ("given", "values", "others"),
    [
        ({"low": 0.0, "high": 0.5}, [0.0, 0.25, 0.5], [0.6, None, "x"]),
        ({"low": 0.0, "high": 0.5, "step": 0.1}, [0.0, 0.3, 0.5], [0.25]),
        ({"low": 1, "high": 9, "step": 2}, [1, 3, 9], [2, 3.5]),
        ({"low": 1, "high": 9}, [1, 2], [2.5]),
        ({"low": 0.001, "high": 0.1, "log": True}, [0.001, 0.0123], [0.2]),
    ],
)
def test_a_range_has_its_steps(given: dict[str, Any], values: list[Any], others: list[Any]) -> None:
    found = tool.Range.model_validate(given)
    assert all(found.has(value) for value in values)
    assert not any(found.has(value) for value in others)


@pytest.mark.parametrize(
    "space",
    [
        {},
        {"dropout": {"low": 0.5, "high": 0.1}},
        {"dropout": {"low": 0.0, "high": 0.1, "log": True}},
        {"dropout": {"choices": [0.1]}},
        {"dropout": {"low": 0, "high": 2, "step": 0.5}},
        {"dropout": {"low": 0.0, "high": 0.5, "step": 0.6}},
        {"dropout": {"choices": [0.1, 0.2, 0.1]}},
    ],
)
def test_a_space_that_is_none_is_refused(space: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"not a range|at least|should have|is there twice"):
        Search.model_validate(STUDY | {"space": space})


@pytest.mark.parametrize(
    ("study", "change", "message"),
    [
        ("keras_cnn", {"history": "history.csv"}, "history is history.csv, which no stage of train_keras_cnn writes"),
        ("keras_cnn", {"record": "metrics/keras_cnn.json"}, "record is metrics/keras_cnn.json, which no stage of"),
        ("keras_cnn", {"set": ["keras_cnn.epoch=12"]}, "params.yaml has no keras_cnn.epoch"),
        ("keras_cnn", {"set": ["resnet18.epochs=2"]}, "train_keras_cnn does not depend on resnet18.epochs"),
        ("keras_cnn", {"set": ["dropout=0.4"]}, "dropout is both in `set` and in `space`; remove one"),
        ("keras_cnn", {"set": ["split.validation_fraction=0"]}, "split.validation_fraction is 0, so no image would"),
        ("keras_cnn", {"space": {"seed": {"low": 1, "high": 9}}}, "seed cannot be searched, only set"),
        ("keras_cnn", {"space": {"dropout": {"low": 0, "high": 1}}}, "dropout would be a whole number; write low and"),
        ("keras_cnn", {"target": "train_resnet18"}, "history is metrics/history/keras_cnn.csv, which no stage of"),
        ("resnet18", {}, "resnet18.validation is test, and a search needs resnet18.validation=held_out under `set`"),
        ("beyond", {"set": ["validation=none"]}, "validation is none, and a search needs validation=held_out"),
        ("beyond", {"space": {"dropout": {"low": 0.0, "high": 0.5}}}, "beyond/params.yaml has no dropout"),
    ],
)
def test_a_study_that_would_mislead_is_refused(
    study: str, change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    studies = yaml.safe_load(SEARCHES.read_text())["studies"]
    studies["resnet18"] = studies["keras_cnn"] | {
        "target": "train_resnet18",
        "history": "metrics/history/resnet18.csv",
        "record": "metrics/runs/resnet18.json",
        "set": [],
        "space": {"resnet18.learning_rate": {"low": 0.0001, "high": 0.01, "log": True}},
    }
    tool.check(Search.model_validate(studies["resnet18"] | {"set": ["resnet18.validation=held_out"]}))
    with pytest.raises(ExpectedError, match=re.escape(f"beyond/search.yaml: {message}")):
        tool.check(Search.model_validate(studies[study] | change))


def test_the_committed_studies_name_parameters_and_begin_with_the_committed_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    for given in tool.load_checked(SEARCHES, tool.Searches).studies.values():
        tool.check(given)
        assert tool.fits(tool.committed_values(given), given)
        assert len(tool.identity_of(given)) == 12
    stages = tool.read(Path("dvc.yaml"))["stages"]
    assert tool.upstream(stages, "train_keras_cnn").keys() == {"train_keras_cnn", "split", "preprocess", "download"}
    assert tool.upstream(tool.read(Path("beyond/dvc.yaml"))["stages"], "evaluate").keys() == {"evaluate", "train"}


TRAINING = """
import json, time, yaml
given = yaml.safe_load(open("params.yaml"))
with open("history.csv", "w") as file:
    print("epoch,val_accuracy", file=file)
for epoch in range(1, given["epochs"] + 1):
    time.sleep(0.2)
    with open("history.csv", "a") as file:
        print(epoch, given["x"], sep=",", file=file)
    print(f"epoch {epoch}/{given['epochs']}", flush=True)
json.dump({"epochs": epoch, "validation": {"accuracy": given["x"]}}, open("record.json", "w"))
"""


def repository_of_a_training(folder: Path) -> Clone:
    """A repository with one stage, whose accuracy is its parameter, and a search of that."""
    (folder / "beyond").mkdir(parents=True)
    outs = [{name: {"cache": False}} for name in ("history.csv", "record.json")]
    stage = {"cmd": "python train.py", "deps": ["train.py"], "params": ["x", "epochs"], "outs": outs}
    study = {
        **{"target": "train", "parameters": "params.yaml", "history": "history.csv", "record": "record.json"},
        **{"set": ["epochs=4"], "space": {"x": {"low": 0.1, "high": 0.9}}, "pruner": {"kind": "median", "after": 2}},
        **{"epochs": 12, "seed": 7},
    }
    files = {
        "dvc.yaml": {"stages": {"train": stage}},
        "dvc.lock": {"schema": "2.0", "stages": {}},
        "params.yaml": {"x": 0.5, "epochs": 10},
        "beyond/search.yaml": {"studies": {"small": study}},
    }
    for name, content in files.items():
        (folder / name).write_text(yaml.safe_dump(content, sort_keys=False))
    (folder / "train.py").write_text(TRAINING)
    clone = Clone(folder)
    for command in (
        ("git", "init"),
        ("git", "config", "user.name", "A tester"),
        ("git", "config", "user.email", "a@b.c"),
    ):
        clone.ok(*command)
    clone.init_dvc()
    (folder / ".gitignore").write_text("/.search/\n/.locks/\n")
    clone.commit("a training and a search")
    return clone


@pytest.mark.pipeline
def test_a_killed_search_goes_on_and_its_trials_are_experiments(tmp_path: Path) -> None:
    clone = repository_of_a_training(tmp_path / "clone")
    command = ("python", "-m", "beyond.tools.search", "small")
    process = clone.start(*command, stderr=subprocess.STDOUT, PYTHONPATH=str(ROOT))
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        if line.startswith("search-small-1: epoch 2/"):
            break
    assert "search-small-0: validation accuracy 0.5" in printed, printed  # the committed value
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    said = clone.ok(*command, PYTHONPATH=str(ROOT))
    rows = {row["trial"]: row for row in read_rows(clone.folder / "beyond/search/small.csv")}
    assert sorted(rows) == ["0", "2", "3"], said
    assert {row["epochs"] for row in rows.values()} == {"4"}
    assert "1" not in rows  # it was cut off, and the next trial has its value
    assert f"search-small-2: epochs=4 x={rows['2']['x']}" in said
    listed = set(clone.ok("dvc", "exp", "list", "--name-only").split())
    assert listed == {row["experiment"] for row in rows.values()} == {f"search-small-{number}" for number in (0, 2, 3)}
    clone.ok("git", "stash", "--include-untracked", "--quiet")
    clone.ok("dvc", "exp", "apply", rows["2"]["experiment"])
    applied = yaml.safe_load((clone.folder / "params.yaml").read_text())
    assert applied == {"x": float(rows["2"]["x"]), "epochs": 4}

    clone.ok("sh", "-c", tool.anew("small"))
    assert clone.ok("dvc", "exp", "list", "--all-commits", "--name-only") == ""
    assert not (clone.folder / ".search/small.db").exists()
