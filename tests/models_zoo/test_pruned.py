"""A pruned network: what is zero, and that dense kernels multiply it all the same."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from effattack import audit
from effattack.errors import UsageError
from effattack.models_zoo.networks import convolution, pooled_head
from effattack.models_zoo.quantization.pruned import Pruned
from effattack.victim.checks import INVARIANTS, Check

SHAPE = (3, 8, 8)
MACS = 64 * 27 * 8 + 16 * 72 * 12 + 12 * 5


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(convolution(3, 8), convolution(8, 12, 2), pooled_head(12, 5)).eval()


def images(count: int = 4) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
def test_contract(check: Check) -> None:
    assert check(Pruned(network(), SHAPE, 0.5), images()) == []


def weights(model: nn.Module) -> Tensor:
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    return torch.cat([layer.weight.detach().flatten() for layer in layers])


@pytest.mark.parametrize("amount", [0, 0.3, 0.9])
def test_the_smallest_weights_are_zero(amount: float) -> None:
    before, victim = network(), Pruned(network(), SHAPE, amount)
    old, new = weights(before), weights(victim)
    assert int((new == 0).sum()) == round(amount * len(old))
    kept = new != 0
    assert torch.equal(new[kept], old[kept])
    if amount:
        assert old[~kept].abs().max() <= old[kept].abs().min()
    assert set(victim.model.state_dict()) == set(before.state_dict()), "permanent: no masks left"


def test_zeros_are_multiplied_all_the_same() -> None:
    victim = Pruned(network(), SHAPE, 0.5)
    assert victim.constant
    assert victim.max_macs == victim.dense_macs == MACS
    assert audit(victim, images()).macs.tolist() == [MACS] * 4


def test_nonzero_macs() -> None:
    victim = Pruned(network(), SHAPE, 0.5)
    layers = [m for m in victim.model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    left = [int(layer.weight.count_nonzero()) for layer in layers]
    assert victim.nonzero_macs == 64 * left[0] + 16 * left[1] + left[2]
    assert Pruned(network(), SHAPE, 0).nonzero_macs == MACS


def test_the_users_model_is_left_as_it_was() -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    Pruned(model, SHAPE, 0.9)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("amount", [-0.1, 1, 2, float("nan")])
def test_amount_out_of_range(amount: float) -> None:
    with pytest.raises(UsageError, match="share of the weights"):
        Pruned(network(), SHAPE, amount)


def test_nothing_to_prune() -> None:
    with pytest.raises(UsageError, match="no linear or convolutional layer"):
        Pruned(nn.Sequential(nn.Flatten(), nn.LayerNorm(4)), (1, 2, 2))
    with pytest.raises(UsageError, match="no parameters"):
        Pruned(nn.Flatten(), (1, 2, 2))
