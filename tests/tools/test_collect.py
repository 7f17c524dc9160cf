"""`make collect` without a repository."""

from pathlib import Path

import pytest

from stages.common.errors import ExpectedError
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


def test_a_parameter_does_not_take_the_place_of_a_column() -> None:
    row = {"name": "wide-seed1", "model": "mlp", "epochs": 8}
    assert collect.with_parameters(row, {"mlp.epochs": 50}) == row | {"mlp.epochs": 50}
    message = r"wide-seed1: the parameter epochs has the name of a column .*, as in mlp\.epochs"
    with pytest.raises(ExpectedError, match=message):
        collect.with_parameters(row, {"epochs": 50})
