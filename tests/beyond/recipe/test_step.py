"""A step's optimisers: which of them trains what, with which rate and decay."""

import pytest
import torch
from torch import nn

from beyond.recipe.muon import Muon
from beyond.recipe.network import Network
from beyond.recipe.step import optimisers, set_rates, train_step
from tests.support.beyond import settings


@pytest.mark.parametrize(("name", "kind"), [("muon", Muon), ("sgd", torch.optim.SGD)])
def test_the_filters_have_the_named_optimiser_and_everything_is_trained_once(name: str, kind: type) -> None:
    given = settings(f"optimiser.filters={name}")
    model = Network(given.network)
    rest, filters = optimisers(model, given)
    assert type(filters) is kind
    assert {weight.ndim for group in filters.param_groups for weight in group["params"]} == {4}
    trained = [weight for one in (rest, filters) for group in one.param_groups for weight in group["params"]]
    assert {id(weight) for weight in trained} == {id(weight) for weight in model.parameters() if weight.requires_grad}
    assert len(trained) == len(set(map(id, trained)))


def test_a_step_shrinks_a_weight_by_the_decay_times_the_batch_size_and_the_schedule() -> None:
    given = settings("optimiser.weight_decay=0.001", "batch_size=10")
    model = Network(given.network)
    rest, _ = made = optimisers(model, given)
    set_rates(made, 0.5, 0.25)
    before = model.head.weight.detach().clone()
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight) if weight.requires_grad else None
    rest.step()
    step = 0.001 * 10 * 0.5 * (1 + given.optimiser.momentum)  # Nesterov's first step
    torch.testing.assert_close(model.head.weight.detach(), before * (1 - step))
    rates = {group["name"]: group["lr"] for group in rest.param_groups}
    assert rates["head"] == given.optimiser.head_rate * 0.5
    assert rates["whitening"] == given.optimiser.bias_rate * 0.25


def test_the_loss_is_the_sum_of_the_smoothed_cross_entropies() -> None:
    given = settings("label_smoothing=0.2")
    torch.manual_seed(0)
    model = Network(given.network).train()
    pixels, labels = torch.randint(0, 256, (6, 32, 32, 3), dtype=torch.uint8), torch.arange(6)
    loss, logits = train_step(model, optimisers(model, given), pixels, labels, given.label_smoothing)
    targets = 0.8 * nn.functional.one_hot(labels, 10) + 0.02
    expected = -(targets * logits.log_softmax(1)).sum()
    torch.testing.assert_close(loss, expected)
    plain = nn.functional.cross_entropy(logits, labels, reduction="sum")
    assert not torch.isclose(loss, plain)
