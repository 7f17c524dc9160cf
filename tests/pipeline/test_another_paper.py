"""examples/digits, a second paper: its stages run, and the shared code compares, judges and reports it unchanged."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from stages.paper.markdown import claims_list, table
from tests.support.clones import Clone, new_repository, stages_run
from tests.support.stage_runs import ROOT

EXAMPLE = ROOT / "examples/digits"
PAGE = ROOT / "docs/another-paper.md"
WHAT = {  # the files that somebody writes for another paper
    "dvc.yaml": "the stages",
    "params.yaml": "the settings",
    "experiments.yaml": "further seeds and settings",
    "data/paper/numbers.yaml": "what the page prints",
    "data/paper/claims.yaml": "what it claims",
    "data/paper/rbm_iterations.csv": "its curve",
    "digits/parameters.py": "the check of params.yaml",
    "digits/split.py": "the data",
    "digits/train_rbm.py": "the first model",
    "digits/train_raw.py": "the second model",
    "digits/records.py": "what both trainings leave behind",
    "digits/evaluate.py": "the predictions",
}


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The example in a fresh clone."""
    clone = new_repository(tmp_path_factory.mktemp("another") / "clone", {})
    clone.commit("as it is")
    return Clone(clone.folder / "examples/digits")


def comparison(folder: Path) -> Any:
    return json.loads((folder / "metrics/comparison.json").read_text())


def test_its_committed_numbers_follow_from_what_is_committed(example: Clone) -> None:
    output = example.ok(sys.executable, "-m", "stages.tools.verify", PYTHONPATH="../..")
    assert re.search(r"^all \d+ checks passed$", output, flags=re.MULTILINE), output
    (column,) = comparison(example.folder)["curves"][0]["columns"]
    assert column["largest"] <= 0.0051  # printed with two digits


def test_the_commands_at_the_root_do_not_see_it(example: Clone) -> None:
    root = Clone(example.folder.parents[1])
    listed = root.ok("dvc", "stage", "list", "--all")
    assert "train_keras_cnn" in listed
    assert "rbm" not in listed


@pytest.mark.pipeline
def test_it_gives_the_printed_numbers_and_contradicts_the_claim(example: Clone) -> None:
    output = example.ok("dvc", "repro", "--force")
    assert stages_run(output) == [
        *("split", "train_rbm", "train_raw", "evaluate@rbm", "evaluate@raw", "compare", "report")
    ]
    found = comparison(example.folder)
    for row in found["results"]:  # printed with two digits
        assert abs(row["difference"]) <= 0.0051, row
    for row in found["lists"]:
        assert max(map(abs, row["difference"])) <= 0.0051, row
    (column,) = found["curves"][0]["columns"]
    assert column["epochs"] == 10
    assert column["largest"] <= 1  # 5 %: on another processor a sampled unit flips in time, and the sums drift apart
    assert [claim["verdict"] for claim in found["claims"]] == ["not supported", "supported"]

    page = (example.folder / "metrics/report.html").read_text()
    assert "A page of scikit-learn, reproduced number by number" in page
    assert set(re.findall(r'<section id="(\w+)">', page)) == {
        *("reproduced", "tables", "claims", "mistakes", "calibration", "samples", "measured", "open", "again")
    }
    assert "CIFAR" not in page
    assert "CIFAR" not in (example.folder / "metrics/comparison.md").read_text()


def test_a_wrong_parameter_is_one_line(example: Clone) -> None:
    path = example.folder / "params.yaml"
    text = path.read_text()
    path.write_text(text.replace("test_fraction: 0.2", "test_fraction: 2"))
    result = example.run(sys.executable, "-m", "digits.split", PYTHONPATH="../..")
    path.write_text(text)
    assert result.returncode != 0
    assert result.stderr.splitlines() == [
        "split: params.yaml: split.test_fraction is 2: input should be less than 1",
    ]


def test_the_page_has_its_files_and_verdicts() -> None:
    """The texts between the page's markers are those that follow from the example."""
    lines = [[f"`{name}`", what, str(len((EXAMPLE / name).read_text().splitlines()))] for name, what in WHAT.items()]
    total = sum(int(line[2]) for line in lines)
    expected = {
        "files": table(["File", "What it is", "Lines"], [*lines, ["", "in all", str(total)]], right=1),
        "claims": claims_list(comparison(EXAMPLE)["claims"]),
    }
    page = PAGE.read_text()
    for name, text in expected.items():
        between = page.partition(f"<!-- {name} -->")[2].partition(f"<!-- /{name} -->")[0]
        assert between.strip() == text, f"in {PAGE.name} between the markers {name!r} there should be:\n{text}"


def test_the_page_lists_every_file() -> None:
    generated = {"README.md", "dvc.lock", "data/.gitignore", ".gitignore", ".dvc/.gitignore", ".dvc/config"}
    committed = Clone(ROOT).ok("git", "ls-files", "--cached", "--others", "--exclude-standard", "examples/digits")
    files = {Path(name).relative_to("examples/digits").as_posix() for name in committed.split()}
    own = {name for name in files if not name.startswith("metrics/") and not name.endswith(".gitignore")} - generated
    assert own == {*WHAT}
