"""`make collect` without a repository."""

from pathlib import Path

import pytest

from stages.tools import collect
from tests.support.made_up_results import write_results


def test_a_wrong_model_of_a_run_that_is_not_there_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(collect, "experiments_in_git", dict)
    write_results()
    Path("experiments.yaml").write_text("grids: {a: {model: resnet, seeds: [1]}}\nsame_results: {}\n")
    collect.main()
    assert capsys.readouterr().out == "metrics/runs.csv: 0 runs of 1 in experiments.yaml, 0 of them new\n"
