"""Group weights in closed form."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor

from effattack.hardening.groups import Evenly, WorstGroups


def test_one_step_is_the_exponentiated_gradient() -> None:
    weighing = WorstGroups(3, rate=0.5)
    losses = tensor([1.0, 3.0, 5.0], requires_grad=True)
    loss = weighing(losses, tensor([0, 0, 2]))
    grown = tensor([2 * 0.5, 0.0, 5 * 0.5]).exp() / 3
    weights = grown / grown.sum()
    assert torch.allclose(weighing.weights, weights)
    assert loss.item() == pytest.approx((weights * tensor([2.0, 0.0, 5.0])).sum().item())
    loss.backward()
    assert losses.grad is not None
    assert torch.allclose(losses.grad, tensor([weights[0] / 2, weights[0] / 2, weights[2]]))
    assert weighing.steps == 1


def test_after_many_steps_the_worst_group_rules() -> None:
    """The weights after n steps of constant losses are the softmax of η n times the losses."""
    weighing = WorstGroups(3, rate=0.1)
    for _ in range(20):
        weighing(tensor([1.0, 2.0, 4.0]), tensor([0, 1, 2]))
    assert torch.allclose(weighing.weights, (2 * tensor([1.0, 2.0, 4.0])).softmax(0))


@given(st.lists(st.floats(0, 50), min_size=1, max_size=6), st.floats(0.001, 10))
def test_weights_are_shares_and_the_loss_is_at_least_the_mean(
    values: list[float], rate: float
) -> None:
    weighing = WorstGroups(len(values), rate)
    losses, groups = tensor(values, dtype=torch.float64), torch.arange(len(values))
    loss = weighing(losses, groups)
    assert weighing.weights.sum().item() == pytest.approx(1, abs=1e-5)
    assert loss.item() >= losses.mean().item() - 1e-5
    assert loss.item() <= losses.max().item() + 1e-5


def test_evenly_is_the_mean() -> None:
    weighing = Evenly(2)
    assert weighing(tensor([1.0, 2.0, 6.0]), tensor([0, 0, 1])) == 3
    assert weighing.steps == 1
