"""Muon: its orthogonalisation, and an update by hand."""

import pytest
import torch

from beyond.recipe.muon import Muon, orthogonalise


def matrix(rows: int, columns: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows))


@pytest.mark.parametrize("shape", [(8, 36), (36, 8), (12, 12)])
def test_singular_values_come_near_to_one_and_singular_vectors_stay(shape: tuple[int, int]) -> None:
    left, values, right = torch.linalg.svd(given := matrix(*shape), full_matrices=False)
    made = orthogonalise(given, steps=5)
    found = left.T @ made @ right.T
    torch.testing.assert_close(found, found.diag().diag(), atol=1e-3, rtol=0)
    reached = found.diag()[values > values.norm() / 100]
    assert len(reached) > 6
    assert reached.min() > 0.67
    assert reached.max() < 1.15
    assert (values / values.norm()).max() < 0.67  # they were not


def test_a_gradient_of_zeros_moves_nothing() -> None:
    assert torch.equal(orthogonalise(torch.zeros(3, 4), 3), torch.zeros(3, 4))


def test_an_update_is_nesterov_s_orthogonalised_of_a_bank_of_fixed_norm() -> None:
    bank = torch.nn.Parameter(matrix(4, 18).view(4, 2, 3, 3))
    optimiser, buffer = Muon([bank], lr=0.1, momentum=0.6, steps=3), torch.zeros(4, 18)
    for step in range(3):
        bank.grad = torch.full_like(bank, 0.01 * step) + bank.detach()
        gradient, before = bank.grad.view(4, 18), bank.detach().view(4, 18).clone()
        buffer = 0.6 * buffer + gradient
        scaled = before * 2 / before.norm()  # sqrt(4 outputs)
        optimiser.step()
        expected = scaled - 0.1 * orthogonalise(gradient + 0.6 * buffer, 3)
        torch.testing.assert_close(bank.detach().view(4, 18), expected)
