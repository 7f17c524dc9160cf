"""The counted cost against one by hand, and against a real step."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from beyond.recipe.cost import prediction_flop, training_flop
from beyond.recipe.network import Network
from beyond.recipe.step import optimisers, train_step
from tests.support.beyond import settings


def test_a_prediction_costs_its_convolutions_and_its_head_for_each_view() -> None:
    given = settings("network.skip_unpooled=false")
    convolutions = [(24, 4, 31), (4, 4, 15), (4, 5, 15), (5, 5, 7), (5, 6, 7), (6, 6, 3)]
    by_hand = 2 * (
        3 * 4 * 24 * 31**2 + sum(9 * inputs * outputs * side**2 for inputs, outputs, side in convolutions) + 60
    )
    assert prediction_flop(10, 1, given) == 10 * by_hand
    assert prediction_flop(10, 6, given) == 60 * by_hand
    assert prediction_flop(10, 1, settings()) < 10 * by_hand


def test_a_training_costs_its_real_steps() -> None:
    given = settings("epochs=1", "network.whitening_bias_epochs=1")
    model = Network(given.network).train()
    update = optimisers(model, given)
    pixels, labels = torch.zeros((8, 32, 32, 3), dtype=torch.uint8), torch.arange(8)
    with FlopCounterMode(display=False) as counter:
        train_step(model, update, pixels, labels, 0.1)
    assert training_flop(50, given) == 6 * counter.get_total_flops()  # 6 whole batches of 8


def test_frozen_biases_and_sgd_cost_less() -> None:
    def cost(*overrides: str) -> int:
        return training_flop(50, settings(*overrides))

    frozen, trained = cost("network.whitening_bias_epochs=0"), cost("network.whitening_bias_epochs=3")
    assert frozen < trained
    assert cost("network.whitening_bias_epochs=1") == pytest.approx(frozen + (trained - frozen) / 3)
    assert cost("optimiser.filters=sgd") < cost()
    assert cost("epochs=6", "network.whitening_bias_epochs=4") == 2 * cost()


def test_the_trial_run_costs_what_was_counted_for_it() -> None:
    """32/128/128, 7 epochs of 50 batches of 1,000: 0.0596 PFLOP (497,960 parameters)."""
    given = settings("network.widths=[32, 128, 128]", "epochs=7", "batch_size=1000", "network.whitening_bias_epochs=3")
    assert training_flop(50_000, given) == pytest.approx(0.0596e15, rel=0.005)
