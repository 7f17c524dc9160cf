"""`make paper-ref`: tags that DVC shows beside us, written without a change to anything else."""

import json
import re

import pytest

from stages.paper.numbers import load_numbers
from stages.tools.paper_tags import author_of, shown, tags
from tests.support.clones import Clone, new_repository
from tests.support.stage_runs import ROOT

CELLS = [f"paper-table2-{batch}-{dropout}" for batch in (64, 128) for dropout in (0.3, 0.4)]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The working tree, committed as it is, with the tags."""
    clone = new_repository(tmp_path_factory.mktemp("paper") / "clone", {})
    clone.commit("as it is")
    clone.ok("python", "-m", "stages.tools.paper_tags")
    return clone


def difference(clone: Clone, tag: str) -> dict[str, float]:
    """The paper's values, and ours less the paper's, of what `dvc metrics diff` shows for both."""
    shown = json.loads(clone.ok("dvc", "metrics", "diff", tag, "--json"))
    return {
        f"{file} {name}": (values["old"], round(values["diff"], 6))
        for file, metrics in shown.items()
        for name, values in metrics.items()
        if "diff" in values
    }


def test_dvc_shows_every_number_of_table_1_and_the_conclusion_beside_ours(clone: Clone) -> None:
    shown = difference(clone, "paper")
    assert {name: paper for name, (paper, _) in shown.items()} == {
        "metrics/keras_cnn.json test.accuracy": 0.8075,
        "metrics/keras_cnn.json test.loss": 0.548,
        "metrics/keras_cnn.json validation.accuracy": 0.8028,
        "metrics/resnet18.json test_augmented.accuracy": 0.8003,
        "metrics/resnet18.json train.loss": 0.449,
    }
    for name, (paper, less) in shown.items():
        file, metric = name.split()
        part, score = metric.split(".")
        ours = json.loads((clone.folder / file).read_text())[part][score]
        assert less == pytest.approx(ours - paper, abs=1e-6)


@pytest.mark.parametrize(
    ("tag", "accuracy", "loss"),
    [(CELLS[0], 0.852, 0.477), (CELLS[1], 0.858, 0.467), (CELLS[2], 0.845, 0.493), (CELLS[3], 0.851, 0.482)],
)
def test_each_cell_of_table_2_has_a_tag(clone: Clone, tag: str, accuracy: float, loss: float) -> None:
    content = json.loads(clone.ok("git", "show", f"{tag}:metrics/keras_cnn.json"))
    assert content == {"test": {"accuracy": accuracy, "loss": loss}}


def test_dvc_shows_a_row_and_the_curves_of_the_paper(clone: Clone) -> None:
    table = clone.ok("dvc", "exp", "show", "--rev", "paper", "--csv")
    assert re.search(r"^,?paper,.*,0\.8075,0\.548,", table, re.MULTILINE)
    plots = json.loads(clone.ok("dvc", "plots", "diff", "paper", "--json"))["data"]
    for title in ("loss", "accuracy"):
        revisions = {revision for plot in plots[title] for revision in plot["revisions"]}
        assert revisions == {"paper", "workspace"}


def test_nothing_else_changes_and_the_same_tags_come_again(clone: Clone) -> None:
    before = clone.ok("git", "for-each-ref"), clone.ok("git", "rev-parse", "HEAD")
    clone.ok("python", "-m", "stages.tools.paper_tags")
    assert (clone.ok("git", "for-each-ref"), clone.ok("git", "rev-parse", "HEAD")) == before
    assert clone.ok("git", "status", "--porcelain") == ""
    assert sorted(clone.ok("git", "tag").split()) == sorted(["paper", *CELLS])


def test_a_tag_of_another_kind_is_left_alone(clone: Clone) -> None:
    ours = clone.ok("git", "rev-parse", "paper")
    clone.ok("git", "tag", "--force", "paper", "HEAD")
    result = clone.run("python", "-m", "stages.tools.paper_tags")
    assert result.returncode == 1
    assert result.stderr == ("paper-ref: git has another tag paper; rename or delete it (git tag -d paper)\n")
    assert clone.ok("git", "rev-parse", "paper") == clone.ok("git", "rev-parse", "HEAD")
    clone.ok("git", "tag", "--force", "paper", ours.strip())


@pytest.mark.parametrize(
    ("folder", "author"), [(".", "the paper, T. Dureja"), ("examples/digits", "the paper, The scikit-learn developers")]
)
def test_the_author_is_the_paper_s_own(folder: str, author: str) -> None:
    assert author_of(load_numbers(ROOT / folder / "data/paper/numbers.yaml")) == author


def test_a_pipeline_may_have_no_plots() -> None:
    assert shown({"metrics": ["a.json", "b.json"]}, {"b.json": "{}"}) == "metrics:\n- b.json\nplots: []\n"


def test_the_figures_are_in_it_whole() -> None:
    files = tags(load_numbers(ROOT / "data/paper/numbers.yaml"))["paper"]
    assert files["metrics/history/keras_cnn.csv"] == (ROOT / "data/paper/figure1_keras_cnn.csv").read_text()
    assert files["metrics/history/resnet18.csv"] == (ROOT / "data/paper/figure2_resnet18.csv").read_text()


def test_another_configuration_of_a_model_has_its_own_tag() -> None:
    """Its numbers have the same place as the first one's."""
    numbers = load_numbers(ROOT / "data/paper/numbers.yaml")
    other = numbers.configurations["resnet18_table1"].model_copy(update={"parameters": {"resnet18.epochs": 50}})
    row = next(row for row in numbers.results if row.id == "T1.resnet.acc")
    found = numbers.model_copy(
        update={
            "configurations": numbers.configurations | {"longer": other},
            "results": [*numbers.results, row.model_copy(update={"configuration": "longer", "value": 90.0})],
        }
    )
    before, after = tags(numbers), tags(found)
    assert json.loads(after.pop("paper-longer")["metrics/resnet18.json"]) == {"test_augmented": {"accuracy": 0.9}}
    assert after == before


def test_an_ablation_before_the_models_own_rows_has_its_own_tag_too() -> None:
    numbers = load_numbers(ROOT / "data/paper/numbers.yaml")
    ablation = numbers.configurations["resnet18_table1"].model_copy(update={"collected": True})
    row = next(row for row in numbers.results if row.id == "T1.resnet.acc")
    found = numbers.model_copy(
        update={
            "configurations": numbers.configurations | {"ablation": ablation},
            "results": [row.model_copy(update={"configuration": "ablation", "value": 70.0}), *numbers.results],
        }
    )
    before, after = tags(numbers), tags(found)
    assert json.loads(after.pop("paper-ablation")["metrics/resnet18.json"]) == {"test_augmented": {"accuracy": 0.7}}
    assert after == before


def test_a_pipeline_may_have_no_metrics() -> None:
    assert shown({"stages": {}}, {"b.json": "{}"}) == "metrics: []\nplots: []\n"
