"""One step of training: its optimisers, its learning rates, and its loss."""

import torch
from torch.nn import functional
from torch.optim import SGD, Optimizer

from beyond.recipe.muon import Muon
from beyond.recipe.network import Network
from beyond.recipe.settings import Settings

Groups = dict[str, list[torch.Tensor]]


def parameter_groups(model: Network) -> Groups:
    """What is trained, in groups of one learning rate each: filters, norms' biases, whitening's biases, head."""
    groups: Groups = {"filters": [], "biases": [], "whitening": [], "head": [model.head.weight]}
    for name, weight in model.named_parameters():
        if weight.requires_grad and weight.ndim == 4:
            groups["filters"].append(weight)
        elif weight.requires_grad and weight.ndim == 1:
            groups["whitening" if name == "whiten.bias" else "biases"].append(weight)
    return groups


def optimisers(model: Network, settings: Settings) -> list[Optimizer]:
    """SGD with Nesterov momentum for biases and head, and Muon or SGD for the filters.

    The loss is a sum over the batch, as in airbench94, and so the weight decay grows with the batch. SGD multiplies it
    by the learning rate: over the peak rate, a step shrinks a weight by the decay times the schedule.
    """
    given, groups = settings.optimiser, parameter_groups(model)
    decay = given.weight_decay * settings.batch_size
    rates = {"biases": given.bias_rate, "whitening": given.bias_rate, "head": given.head_rate}
    by_group = [
        {"params": groups[name], "lr": rate, "weight_decay": decay / rate, "name": name} for name, rate in rates.items()
    ]
    made: list[Optimizer] = [SGD(by_group, lr=given.bias_rate, momentum=given.momentum, nesterov=True)]
    filters, rate, momentum = groups["filters"], given.filters_rate, given.filters_momentum
    if given.filters == "muon":
        made.append(Muon(filters, rate, momentum, given.newton_schulz_steps))
    else:
        made.append(SGD(filters, lr=rate, momentum=momentum, weight_decay=decay / rate, nesterov=True))
    for group in (group for optimiser in made for group in optimiser.param_groups):
        group["peak"] = group["lr"]
    return made


def set_rates(optimisers: list[Optimizer], part: float, whitening_part: float) -> None:
    """Set each group's learning rate to that part of its peak; `whitening_part` is of the whitening's biases."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * (whitening_part if group.get("name") == "whitening" else part)


def train_step(
    model: Network, optimisers: list[Optimizer], pixels: torch.Tensor, labels: torch.Tensor, smoothing: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Train on one batch.

    Args:
        model: In training mode.
        optimisers: For its weights.
        pixels: uint8 (B, 32, 32, 3).
        labels: int64 (B,).
        smoothing: Of the labels.

    Returns:
        The loss, summed over the batch (nats), and the logits (B, 10).
    """
    logits = model(pixels)
    loss = functional.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum")
    model.zero_grad(set_to_none=True)
    loss.backward()
    for optimiser in optimisers:
        optimiser.step()
    return loss.detach(), logits.detach()
