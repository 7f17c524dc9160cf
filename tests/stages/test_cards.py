"""A card says what the metrics say, and its code loads the model in a fresh process, without anything of ours."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stages import cards
from stages.common import paths
from stages.common.files import read_json
from tests.support.clones import Clone
from tests.support.made_up_results import CLASSES, write_results

MODELS = ["keras_cnn", "resnet18"]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_results()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.usefixtures("results")
def test_the_scores_and_every_class_are_in_the_card(model: str) -> None:
    text = paths.card(model).read_text(encoding="utf-8")
    test = read_json(paths.scores(model))["test"]
    assert f"| {100 * test['accuracy']:.2f} % |" in text
    assert f"{test['loss']:.3f} |" in text
    rows = re.findall(r"^\| (\w+) +\| +([\d,]+) +\|", text, re.MULTILINE)
    assert [name for name, _ in rows if name in CLASSES] == CLASSES
    assert sum(int(count) for name, count in rows if name in CLASSES) == 10_000
    assert "no number here is a result" not in text
    assert ("The test images also validated it" in text) == (model == "resnet18")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.usefixtures("results")
def test_a_card_is_the_same_bytes_each_time(model: str) -> None:
    first = paths.card(model).read_bytes()
    paths.card(model).unlink()
    cards.main()
    assert paths.card(model).read_bytes() == first


@pytest.mark.parametrize("bins_right", [0.5, 1.0])
def test_the_calibration_error_is_that_of_guo_et_al(bins_right: float) -> None:
    """1,000 predictions of 0.9: the error is how far their accuracy is from 0.9."""
    probabilities = np.full((1000, 10), 0.1 / 9)
    probabilities[:, 0] = 0.9
    labels = (np.arange(1000) >= 1000 * bins_right).astype(int)
    assert cards.calibration(probabilities, labels).error == pytest.approx(abs(bins_right - 0.9))


@pytest.mark.pipeline
@pytest.mark.parametrize("model", MODELS)
def test_the_code_in_the_card_gives_the_predictions(model: str, repository: tuple[Clone, str], tmp_path: Path) -> None:
    folder = repository[0].folder
    text = (folder / paths.card(model)).read_text(encoding="utf-8")
    assert "synthetic data, not on CIFAR-10: no number here is a result" in text
    snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(snippets) == 2
    assert "Data: synthetic. Trained on 40 of the 50 training images" in text or model == "resnet18"
    for snippet in snippets:
        code = (
            f"import sys, numpy; images = numpy.load({str(paths.images('test'))!r})\n{snippet}"
            f"assert 'stages' not in sys.modules\nnumpy.save({str(tmp_path / 'found.npy')!r}, probabilities)\n"
        )
        subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True)
        expected = np.load(folder / paths.predictions(model))["probabilities"]
        assert np.load(tmp_path / "found.npy") == pytest.approx(expected, abs=1e-4)
