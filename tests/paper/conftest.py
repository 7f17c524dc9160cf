"""Every test of what the paper's numbers answer starts with a full set of result files."""

from pathlib import Path

import pytest

from tests.support.made_up_results import write_results


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_results()
