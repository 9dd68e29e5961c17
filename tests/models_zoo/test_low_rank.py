"""Low-rank adapters: what they add, that nothing else moves, and that folding changes nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from effattack import audit
from effattack.errors import UsageError
from effattack.models_zoo.digits import turned_digits
from effattack.models_zoo.recipes.low_rank import ADAPTED, adapt, fold
from effattack.models_zoo.recipes.tuning import tune
from effattack.victim import load_victim

LAYERS: dict[str, nn.Module] = {
    "conv": nn.Conv2d(4, 6, 3, padding=1),
    "grouped": nn.Conv2d(4, 6, 3, stride=2, groups=2),
    "linear": nn.Linear(4, 6),
    "series": nn.Conv1d(4, 6, 5),
}
GIVEN = {"conv": (2, 4, 7, 7), "grouped": (2, 4, 7, 7), "linear": (2, 4), "series": (2, 4, 9)}
WEIGHTS = {"digits_cnn_early_exit": 8_044, "digits_vit_ats": 25_320}
"""Of adapters of rank 4, as docs/tuned.md says."""


def drawn(name: str, rank: int, seed: int = 0) -> tuple[nn.Module, nn.ModuleList, Tensor]:
    """An adapted layer in float64, its adapters, which add something, and inputs."""
    torch.manual_seed(seed)
    layer = copy.deepcopy(LAYERS[name]).double()
    adapters = adapt(layer, rank)
    for adapter in adapters:
        nn.init.normal_(adapter.up)
    return layer, adapters, torch.randn(GIVEN[name], dtype=torch.float64)


def test_a_linear_layer_adds_the_product() -> None:
    """x Wᵀ + b + (x Aᵀ) Bᵀ, by hand."""
    layer, (adapter,), x = drawn("linear", 2)
    plain = LAYERS["linear"]
    by_hand = x @ plain.weight.double().T + plain.bias.double() + x @ adapter.down.T @ adapter.up.T
    torch.testing.assert_close(layer(x), by_hand)


def test_a_convolution_adds_two_in_a_row() -> None:
    """A is a convolution to ``rank`` channels, B one of 1 x 1 behind it."""
    layer, (adapter,), x = drawn("conv", 3)
    plain = copy.deepcopy(LAYERS["conv"]).double()
    narrow = F.conv2d(x, adapter.down.view(3, 4, 3, 3), padding=1)
    beside = F.conv2d(narrow, adapter.up[:, :, None, None])
    torch.testing.assert_close(layer(x), plain(x) + beside)


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_untrained_adapters_change_nothing(name: str) -> None:
    layer, x = copy.deepcopy(LAYERS[name]), torch.randn(GIVEN[name])
    adapt(layer, 2)
    torch.testing.assert_close(layer(x), LAYERS[name](x), rtol=0, atol=0)


@settings(max_examples=40)
@given(name=st.sampled_from(sorted(LAYERS)), rank=st.integers(1, 4), seed=st.integers(0, 99))
def test_folded_layers_compute_what_adapted_ones_do(name: str, rank: int, seed: int) -> None:
    layer, adapters, x = drawn(name, rank, seed)
    unfolded = layer(x)
    fold(layer)
    torch.testing.assert_close(layer(x), unfolded)
    assert layer.state_dict().keys() == LAYERS[name].state_dict().keys()
    assert type(layer) is type(LAYERS[name])
    assert all(parameter.requires_grad for parameter in layer.parameters())
    out, inner = adapters[0].up.shape[0], adapters[0].down.shape[1]
    assert sum(each.numel() for each in adapters.parameters()) == rank * (out + inner)


@pytest.mark.parametrize("rank", [0, -1])
def test_a_rank_below_one_is_refused(rank: int) -> None:
    with pytest.raises(UsageError, match=f"rank = {rank} is out of range: give 1 or more"):
        adapt(nn.Linear(4, 6), rank)


def test_a_rank_above_that_of_the_weight_is_refused_before_anything_changes() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 3))
    with pytest.raises(UsageError, match="rank = 4 for a weight of 3 x 8: give 3, its own, or les"):
        adapt(model, 4)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert type(model[0]) is nn.Linear


def test_a_model_without_layers_to_adapt_is_refused() -> None:
    with pytest.raises(UsageError, match="LayerNorm has no linear layer and no convolution"):
        adapt(nn.LayerNorm(4), 1)


@pytest.mark.parametrize("name", sorted(WEIGHTS))
def test_adapters_take_as_many_weights_as_the_page_says(name: str) -> None:
    adapters = adapt(load_victim(name), 4)
    assert sum(each.numel() for each in adapters.parameters()) == WEIGHTS[name]


@pytest.mark.slow
def test_only_adapters_move_and_they_cost_no_macs() -> None:
    """What a tuned victim has beyond the original is of the rank; its statistics are as stored."""
    before, victim = (load_victim("digits_cnn_early_exit") for _ in range(2))
    images, labels = (part[:128] for part in turned_digits("train"))
    trained = tune(victim, (images, labels), rank=2, epochs=2, rate=1e-2, seed=0)
    assert trained == WEIGHTS[before.name] / 2
    adapted = {
        f"{name}.weight" for name, layer in before.named_modules() if isinstance(layer, ADAPTED)
    }
    was, now = before.state_dict(), victim.state_dict()
    assert was.keys() == now.keys()
    for name in was:
        if name not in adapted:
            torch.testing.assert_close(now[name], was[name], rtol=0, atol=0)
            continue
        values = torch.linalg.svdvals((now[name] - was[name]).double().flatten(1))
        assert values[1] > 1e-3 * values[0] > 0
        assert values[2:].sum() < 1e-4 * values[0]
    assert not victim.training
    assert victim.max_macs == before.max_macs
    audit(victim, images[:4])
