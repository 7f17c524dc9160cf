"""models/keras_cnn.keras: the same bytes for the same model, and never half of one."""

import os
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from stages.keras_cnn import architecture, backend
from stages.keras_cnn.model_file import save
from tests.support.stage_runs import files_limited_to, one_line

# Keras's conversion of a TensorFlow tensor to NumPy; nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def keras() -> Any:
    with mock.patch.dict(os.environ):
        return backend.start("tensorflow", "cpu")


def network(keras: Any) -> Any:
    keras.utils.clear_session()
    keras.utils.set_random_seed(3)
    return architecture.build([3, 4], 3, 6, [0.3, 0.4, 0.4])


def test_is_the_same_bytes_for_the_same_model(keras: Any, tmp_path: Path) -> None:
    """Saved at another time, and built at another place in memory, with what layers share still shared."""
    files = [tmp_path / "one.keras", tmp_path / "other.keras"]
    kept = []
    for file, written in zip(files, ("2026-01-01@00:00:00", "2026-01-02@00:00:00"), strict=True):
        kept.append(network(keras))  # so that the next one stands elsewhere
        with mock.patch("keras.src.saving.saving_lib.datetime") as clock:
            clock.datetime.now.return_value.strftime.return_value = written
            save(kept[-1], file)
    assert files[0].read_bytes() == files[1].read_bytes()
    loaded = keras.saving.load_model(files[1], compile=False, safe_mode=True)
    assert all(np.array_equal(*pair) for pair in zip(loaded.get_weights(), kept[0].get_weights(), strict=True))


def test_a_full_disk_is_one_line_and_leaves_no_half_a_model(keras: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(b"an earlier one")
    with files_limited_to(1000):
        line = one_line("train_keras_cnn", lambda: save(network(keras), path))
    assert "File too large; correct this" in line
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("model.keras", b"an earlier one")]
