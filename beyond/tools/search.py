"""Search hyperparameters with Optuna: `make search`. It is no stage.

beyond/search.yaml names the studies. Each trial is `dvc exp run --temp` in a temporary copy of the last commit, so a
finished trial is an experiment. While it trains, its history file feeds the pruner. The study is in an SQLite file in
.search/: the same command goes on where it was ended, and a trial that was cut off is tried again and resumes after its
last epoch. What was found is exported to beyond/search: a table of all trials, and Optuna's pictures of it.
"""

import argparse
import contextlib
import hashlib
import json
import math
import os
import signal
import subprocess
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import psutil
from pydantic import Field, model_validator

from beyond.ladder.plan import DETERMINING, present_origin
from stages.common.config import Section, Seed, load_checked, read
from stages.common.errors import ExpectedError, run_program
from stages.common.files import flat, read_history, write_rows
from stages.common.process import ancestor, end_with
from stages.experiments.git import experiments_in_git, file_in
from stages.experiments.plan import Overrides, parameters_of
from stages.tools.grid import at_least_one, check_clean
from stages.tools.runs import Processes, alone, end_all, run_dvc, say, share_cores
from stages.training.randomness import derived_seed

os.environ["MPLBACKEND"] = "agg"  # a notebook sets one that may not be installed here

try:
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.trial import TrialState
except ImportError:
    raise SystemExit("search: Optuna is not installed: pip install -c requirements.txt optuna") from None

SEARCHES = Path("beyond/search.yaml")
RESULTS = Path("beyond/search")
STORAGE = Path(".search")
REDUCTION = 3  # of successive halving: a third goes on
STARTUP_TRIALS = 5  # that the median pruner leaves alone: Optuna's default
FAILURES = 3  # in a row that end the search: not one bad value then, but something else
BUSY_SECONDS = 60  # that SQLite waits for another thread
DOTS_PER_INCH = 150
COMMITTED = "the committed values"


class Range(Section):
    """A parameter's range: whole numbers if both ends are."""

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _is_a_range(self) -> "Range":
        if not self.low < self.high or (self.log and (self.low <= 0 or self.step is not None)):
            raise ValueError("not a range; allowed: low below high, and with log: low above 0 and no step")
        if isinstance(self.low, int) and isinstance(self.high, int) and isinstance(self.step, float):
            raise ValueError("not a range; allowed: a whole step between whole numbers, or low and high as 0.0")
        return self

    def distribution(self) -> IntDistribution | FloatDistribution:
        """As Optuna takes it."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return IntDistribution(self.low, self.high, log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def has(self, value: Any) -> bool:
        """Whether a value is in the range, and one of its steps."""
        if not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        step = self.distribution().step
        steps = (value - self.low) / step if step else 0.0
        return math.isclose(steps, round(steps), abs_tol=1e-9)


class Choices(Section):
    """A parameter's values."""

    choices: Annotated[list[str | int | float | bool | None], Field(min_length=2)]

    def distribution(self) -> BaseDistribution:
        """As Optuna takes it."""
        return CategoricalDistribution(self.choices)

    def has(self, value: Any) -> bool:
        """Whether a value is one of them."""
        return value in self.choices


class Pruner(Section):
    """When a trial is ended early."""

    kind: Literal["median", "halving", "none"]
    after: int = Field(default=1, ge=1)

    def pruner(self) -> optuna.pruners.BasePruner:
        """As Optuna takes it."""
        if self.kind == "median":
            return optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=self.after)
        if self.kind == "halving":
            return optuna.pruners.SuccessiveHalvingPruner(min_resource=self.after, reduction_factor=REDUCTION)
        return optuna.pruners.NopPruner()


class Search(Section):
    """A study of beyond/search.yaml."""

    target: str
    parameters: str
    history: str
    record: str
    set: Overrides
    space: Annotated[dict[str, Range | Choices], Field(min_length=1)]
    pruner: Pruner
    epochs: int = Field(ge=1)
    seed: Seed


class Searches(Section):
    """The whole file."""

    studies: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")], Search]


def main() -> None:
    options = arguments()
    end_with(ancestor("make"))  # which cannot tell us when it is killed
    searches = load_checked(SEARCHES, Searches).studies
    if options.study not in searches:
        raise ExpectedError(f"{SEARCHES} has no study {options.study!r}; it has {', '.join(searches)}")
    search = searches[options.study]
    committed = committed_values(search)
    check_clean(DETERMINING)
    # Two would take each other's unfinished trials for cut off.
    with alone(STORAGE / f"{options.study}.lock", f"another process runs the search {options.study} in this folder"):
        study = open_study(options.study, search, committed)
        try:
            run_trials(options.study, study, search, options.jobs)
        finally:
            export(options.study, study, search)
    draw(options.study, study)
    report(options.study, study)


def arguments() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m beyond.tools.search", description=__doc__)
    parser.add_argument("study", nargs="?", default="keras_cnn", help=f"one of {SEARCHES}")
    parser.add_argument("--jobs", type=at_least_one, default=1, help="how many trials at once")
    return parser.parse_args()


def committed_values(search: Search) -> dict[str, Any]:
    """The values that the parameters of the space have in their file.

    Raises:
        ExpectedError: The file has no such parameter.
    """
    values = flat(read(Path(search.parameters))) | parameters_of(search.set)
    if unknown := sorted(search.space.keys() - values.keys()):
        raise ExpectedError(f"{SEARCHES}: {search.parameters} has no {unknown[0]}")
    return {key: values[key] for key in search.space}


def open_study(name: str, search: Search, committed: dict[str, Any]) -> optuna.Study:
    """The study, new or as it was left; a trial that was cut off is waiting to be tried again.

    Raises:
        ExpectedError: It was begun with other code, data or settings, or its target is no stage.
    """
    identity = identity_of(search)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file = STORAGE / f"{name}.db"
    arguments = {"connect_args": {"timeout": BUSY_SECONDS}}
    storage = optuna.storages.RDBStorage(f"sqlite:///{file}", engine_kwargs=arguments)
    study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
    if study.user_attrs.setdefault("identity", identity) != identity:
        raise ExpectedError(
            f"the study {name} in {file} was begun with other code, data or settings, which no longer compare; "
            f"name another study in {SEARCHES}, or remove {file} and begin anew (dvc exp remove its experiments)"
        )
    study.set_user_attr("identity", identity)
    study.sampler = optuna.samplers.TPESampler(
        seed=derived_seed(search.seed, len(study.trials), "sampler"), constant_liar=True
    )
    study.pruner = search.pruner.pruner()
    again = cut_off(study)
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        note = {name: value for name, value in trial.user_attrs.items() if name == "note"}
        if trial.number not in again:
            study.enqueue_trial(trial.params, user_attrs=note | {"again": trial.number})
        study.tell(trial.number, state=TrialState.FAIL)
    tried = {trial.user_attrs.get("note") for trial in study.trials if trial.state != TrialState.FAIL}
    if COMMITTED not in tried:
        if fits(committed, search):
            study.enqueue_trial(committed, user_attrs={"note": COMMITTED})
        else:
            say(f"{name}: the space of {SEARCHES} does not have the committed values, so no trial has them")
    return study


def identity_of(search: Search) -> str:
    """A hash of what a trial's value depends on besides the space's parameters: settings, code, data.

    Raises:
        ExpectedError: The target is no stage, or one of several under a `foreach`.
    """
    pipeline, _, target = search.target.rpartition(":")
    file = Path(pipeline or "dvc.yaml")
    all_stages = read(file)["stages"]
    if target not in (allowed := [name for name, entry in all_stages.items() if "foreach" not in entry]):
        raise ExpectedError(f"{SEARCHES}: target is {search.target}; allowed in {file}: {', '.join(allowed)}")
    stages = upstream(all_stages, target)
    named = [name for stage in stages.values() for item in stage.get("params", []) for name in _names(item)]
    settings = flat(read(Path(search.parameters))).items()
    others = {key: value for key, value in settings if key.partition(".")[0] in named and key not in search.space}
    definition = search.model_dump(include={"target", "set", "space"})
    content = json.dumps([definition, present_origin(file, list(stages)), others], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def upstream(stages: dict[str, Any], target: str) -> dict[str, Any]:
    """The entry of a stage, and those of the same file that it depends on."""
    found, waiting = {}, [target]
    while waiting:
        name = waiting.pop()
        found[name] = stages[name]
        for other, entry in stages.items():
            outs = {path for out in entry.get("outs", []) for path in ([out] if isinstance(out, str) else out)}
            if other not in found and outs & set(stages[name]["deps"]):
                waiting.append(other)
    return found


def _names(item: str | dict[str, list[str]]) -> list[str]:
    """The parameters that an item of `params` in a dvc.yaml names, of the default file or of another."""
    return [item] if isinstance(item, str) else [name for names in item.values() for name in names]


def fits(values: dict[str, Any], search: Search) -> bool:
    """Whether the space has these values."""
    return all(given.has(values[key]) for key, given in search.space.items())


def run_trials(name: str, study: optuna.Study, search: Search, jobs: int) -> None:
    """Run trials, several at once if asked, until the epochs are spent.

    Raises:
        ExpectedError: Several trials in a row failed.
    """
    share_cores(jobs)
    processes = Processes()
    ending = threading.Event()
    pool = ThreadPoolExecutor(jobs)
    futures = [pool.submit(work, name, study, search, processes.active, ending) for _ in range(jobs)]
    try:
        for future in as_completed(futures):
            future.result()
    finally:
        ending.set()
        pool.shutdown(wait=False, cancel_futures=True)
        end_all(processes, futures)


def work(
    name: str, study: optuna.Study, search: Search, active: "list[subprocess.Popen[str]]", ending: threading.Event
) -> None:
    """Run one trial after another."""
    failures = 0
    while not ending.is_set() and (spent := epochs_spent(study)) < search.epochs:
        if identity_of(search) != study.user_attrs["identity"]:  # while it runs, somebody may edit or commit here
            raise ExpectedError(f"code, data or settings have changed since the search {name} began; put them back")
        say(f"{name}: {spent} of {search.epochs} epochs are spent")
        trial = study.ask({key: given.distribution() for key, given in search.space.items()})
        state, value = run_trial(f"search-{name}-{trial.number}", trial, search, active)
        if state == TrialState.FAIL and ending.is_set():  # cut off: it is tried again when the search goes on
            return
        study.tell(trial, value, state)
        failures = failures + 1 if state == TrialState.FAIL else 0
        if failures == FAILURES:
            ending.set()
            raise ExpectedError(f"{FAILURES} trials of {name} failed in a row; their last lines say why")


def epochs_spent(study: optuna.Study) -> int:
    """The epochs that all trials have trained; one that was cut off resumes, and its epochs count once."""
    return sum(trial.user_attrs.get("epochs", 0) for trial in study.trials if trial.number not in cut_off(study))


def cut_off(study: optuna.Study) -> set[int]:
    """The numbers of the trials that were cut off, and are or will be tried again."""
    return {trial.user_attrs["again"] for trial in study.trials if "again" in trial.user_attrs}


def run_trial(
    experiment: str, trial: optuna.Trial, search: Search, active: "list[subprocess.Popen[str]]"
) -> tuple[TrialState, float | None]:
    """Run a trial, told of by its history file; returns how it ended, and the objective."""
    overrides = [*search.set, *(f"{key}={json.dumps(short(value))}" for key, value in trial.params.items())]
    options = [part for override in overrides for part in ("-S", f"{search.parameters}:{override}")]
    command = ["exp", "run", "--temp", "--name", experiment, *options, search.target]
    say(f"{experiment}: {' '.join(overrides)}")
    pruned = threading.Event()
    reported: list[float] = []

    def watch(process: "subprocess.Popen[str]") -> bool:
        for epoch, accuracy in list(enumerate(accuracies(process.pid, search.history), start=1))[len(reported) :]:
            reported.append(accuracy)
            trial.report(accuracy, epoch)
            trial.set_user_attr("epochs", epoch)
            if trial.should_prune():
                pruned.set()
                os.killpg(process.pid, signal.SIGINT)
                return True
        return False

    status, last_lines = run_dvc(experiment, command, active, watch)
    if status == 0:  # also where the pruner came too late
        record = json.loads(file_in(experiments_in_git()[experiment][0], search.record))
        accuracy = (record["validation"] or {}).get("accuracy")
        if accuracy is None:
            raise ExpectedError(f"{experiment} has no validation accuracy; hold images out in {SEARCHES} (under `set`)")
        trial.set_user_attr("epochs", record["epochs"])
        trial.set_user_attr("experiment", experiment)
        say(f"{experiment}: validation accuracy {accuracy}")
        return TrialState.COMPLETE, accuracy
    if pruned.is_set():
        say(f"{experiment}: ended by the pruner after epoch {len(reported)}")
        return TrialState.PRUNED, None
    say("".join(f"    {line}" for line in last_lines).rstrip())
    return TrialState.FAIL, None


def short(value: Any) -> Any:
    """A value without the rounding error of Optuna's steps: 0.1 + 2 * 0.1 is 0.30000000000000004."""
    return float(f"{value:.10g}") if isinstance(value, float) else value


def accuracies(dvc: int, history: str) -> list[float]:
    """The validation accuracies so far of the training that this dvc runs in its temporary copy."""
    found: list[float] = []
    with contextlib.suppress(psutil.Error, ExpectedError, KeyError):  # it may have ended, or not begun to write
        for process in psutil.Process(dvc).children(recursive=True):
            folder = Path(process.cwd())
            if folder != Path.cwd() and (folder / history).exists():
                column = read_history(folder / history)["val_accuracy"]
                return column[np.isfinite(column)].tolist()  # none where nothing is held out
    return found


def export(name: str, study: optuna.Study, search: Search) -> None:
    """Write the table of all trials that ended by themselves, the best first."""
    ended = [
        trial
        for trial in study.get_trials(states=[TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
        if trial.number not in cut_off(study)
    ]
    ended.sort(key=lambda trial: (trial.state != TrialState.COMPLETE, -(trial.value or 0), trial.number))
    rows = [
        {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "validation_accuracy": trial.value if trial.state == TrialState.COMPLETE else None,
            "epochs": trial.user_attrs.get("epochs", 0),
            "experiment": trial.user_attrs.get("experiment"),
            "note": trial.user_attrs.get("note"),
            **{key: short(value) for key, value in trial.params.items()},
        }
        for trial in ended
    ]
    columns = ("trial", "state", "validation_accuracy", "epochs", "experiment", "note", *search.space)
    new = RESULTS / f".{name}.new"
    write_rows(new, rows, columns)
    new.replace(RESULTS / f"{name}.csv")


def draw(name: str, study: optuna.Study) -> None:
    """Optuna's pictures of what mattered: importances (functional ANOVA, Hutter et al. 2014), and a slice for each."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt
    from optuna.importance import FanovaImportanceEvaluator
    from optuna.visualization.matplotlib import plot_param_importances, plot_slice

    complete = study.get_trials(states=[TrialState.COMPLETE])
    if len({trial.value for trial in complete}) < 2:
        say(f"{name}: no picture yet: it takes two finished trials of different accuracy")
        return
    with warnings.catch_warnings(), mpl.rc_context():  # Optuna switches the whole process to the style "ggplot"
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        for kind, plot in (
            ("importance", lambda: plot_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))),
            ("slice", lambda: plot_slice(study, target_name="validation accuracy")),
        ):
            plot()
            figure = plt.gcf()
            figure.savefig(
                RESULTS / f"{name}_{kind}.png", dpi=DOTS_PER_INCH, bbox_inches="tight", metadata={"Software": None}
            )
            plt.close(figure)


def report(name: str, study: optuna.Study) -> None:
    """Print what was found."""
    complete = study.get_trials(states=[TrialState.COMPLETE])
    say(f"{RESULTS / name}.csv: {len(complete)} finished trials, {epochs_spent(study)} epochs")
    if complete:
        best = study.best_trial
        values = {key: short(value) for key, value in best.params.items()}
        say(f"best: {best.user_attrs['experiment']}, validation accuracy {best.value}: {values}")
        for trial in complete:
            if trial.user_attrs.get("note") == COMMITTED:
                say(f"{COMMITTED}: {trial.user_attrs['experiment']}, validation accuracy {trial.value}")
        say(f"dvc exp apply {best.user_attrs['experiment']} takes it over")


if __name__ == "__main__":
    run_program("search", main)
