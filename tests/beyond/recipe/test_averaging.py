"""Averaged weights against their definitions."""

import pytest
import torch
from torch import nn

from beyond.recipe.averaging import Average
from tests.support.beyond import settings


def averaged(kind: str, values: list[float], every: int) -> tuple[float, float, float]:
    """The trained weight, the average and the scored one after these steps, each of which adds to the weight."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    overrides = [f"averaging.kind={kind}", f"averaging.every={every}", "averaging.keeps=0.5"]
    average = Average(model, settings(*overrides).averaging)
    for step, value in enumerate(values, start=1):
        model.weight.data += value
        average.step(step, len(values))
    of_average = average.average.weight.item() if isinstance(average.average, nn.Linear) else float("nan")
    average.finish()
    scored = average.scored
    assert isinstance(scored, nn.Linear)
    return model.weight.item(), of_average, scored.weight.item()


def test_ema_follows_the_weights_and_leaves_them_alone() -> None:
    trained, average, scored = averaged("ema", [1, 1, 1, 1], every=2)
    assert trained == 4
    assert average == scored == pytest.approx(0.25 * (0.75 * 2) + 0.75 * 4)  # keeps 0.5 ** 2 at steps 2 and 4


def test_lookahead_goes_on_from_its_average_and_keeps_more_at_the_end() -> None:
    keeps = [0.5 * (step / 3) ** 3 for step in (1, 2, 3)]
    slow = fast = 0.0
    for kept in keeps:
        fast += 1
        slow = fast = kept * slow + (1 - kept) * fast
    trained, average, scored = averaged("lookahead", [1, 1, 1], every=1)
    assert trained == average == scored == pytest.approx(slow)


def test_lookahead_ends_with_its_average_between_two_takings() -> None:
    trained, average, _ = averaged("lookahead", [1, 1, 1], every=2)
    assert trained == average < 2


def test_none_is_the_weights_themselves() -> None:
    trained, _, scored = averaged("none", [1, 1], every=1)
    assert trained == scored == 2


def test_batch_norm_statistics_are_averaged_too() -> None:
    model = nn.BatchNorm1d(1)
    average = Average(model, settings("averaging.kind=ema", "averaging.every=1", "averaging.keeps=0.75").averaging)
    assert model.running_mean is not None
    model.running_mean += 4
    average.step(1, 1)
    assert isinstance(average.average, nn.BatchNorm1d)
    assert torch.equal(average.average.running_mean, torch.tensor([1.0]))
