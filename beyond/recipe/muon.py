"""Muon: momentum whose updates are orthogonalised by Newton-Schulz iterations.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024). PyTorch's own `torch.optim.Muon` takes
matrices only and iterates in bfloat16, which is slow on most processors.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer

# Of the quintic a x + b x^3 + c x^5, as published: it takes every singular value in (0, 1] into about 0.7 to 1.2.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
SMALLEST_NORM = 1e-7  # or a gradient of zeros would be divided by zero


def orthogonalise(matrix: torch.Tensor, steps: int) -> torch.Tensor:
    """The matrix with its singular values brought near to 1, its singular vectors kept.

    Args:
        matrix: float (rows, columns).
        steps: Newton-Schulz iterations: after 5, singular values above a hundredth of the norm are within 0.68 to 1.14.
    """
    a, b, c = COEFFICIENTS
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / (wide.norm() + SMALLEST_NORM)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


class Muon(Optimizer):
    """Nesterov momentum with orthogonalised updates, for filter banks (outputs, inputs, side, side).

    Before its update each bank is scaled to the norm sqrt(outputs), so that the learning rate alone says how far an
    update turns it.
    """

    def __init__(self, params: Iterable[torch.Tensor], lr: float, momentum: float, steps: int) -> None:
        super().__init__(list(params), {"lr": lr, "momentum": momentum, "steps": steps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update of every bank that has a gradient."""
        for group in self.param_groups:
            for bank in group["params"]:
                if bank.grad is None:
                    continue
                state = self.state[bank]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(bank)
                buffer = state["momentum_buffer"].mul_(group["momentum"]).add_(bank.grad)
                update = bank.grad.add(buffer, alpha=group["momentum"]).flatten(1)
                bank.mul_(len(bank) ** 0.5 / bank.norm())
                bank.add_(orthogonalise(update, group["steps"]).view_as(bank), alpha=-group["lr"])
