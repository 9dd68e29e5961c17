"""``benchmarks/denoising.py``: when it stops, in closed form, and both of its paths."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from effattack import audit
from effattack.results.selfchecks import check_victim
from effattack.victim import Victim


@pytest.fixture(scope="module")
def denoising() -> ModuleType:
    """The script as a module; its own folder is on the path when it runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        import denoising

        return denoising


def fading(module: ModuleType, tolerance: float, cap: int) -> Victim:
    """Of black pictures alone: all else is noise to it."""
    denoiser, reader = nn.Linear(64, 64, bias=False), nn.Linear(64, 10)
    nn.init.eye_(denoiser.weight).data.neg_()
    return module.Sampler(denoiser, reader, tolerance, cap)


def steps_of(grey: float, tolerance: float, cap: int, first: float) -> int:
    """What is left before step t is grey Π (1 - h), and 1 - h = (1 - h₀) / (1 + h₀ (t - 1))."""
    for t in range(1, cap):
        if grey < tolerance:
            return t
        grey *= (1 - first) / (1 + first * (t - 1))
    return cap


@given(grey=st.floats(0.02, 1), tolerance=st.floats(0.01, 0.5), cap=st.integers(2, 9))
def test_it_stops_where_the_closed_form_does(
    denoising: ModuleType, grey: float, tolerance: float, cap: int
) -> None:
    sides = (tolerance * (1 - 1e-9), tolerance * (1 + 1e-9))
    nearby = {steps_of(grey, side, cap, denoising.FIRST) for side in sides}
    assume(len(nearby) == 1)
    victim = fading(denoising, tolerance, cap).double()
    trace = victim.trace(torch.full((1, 1, 8, 8), grey, dtype=torch.float64))
    assert trace.macs.item() == nearby.pop() * 64 * 64 + 640


def test_work_is_the_executed_one_and_each_picture_stops_by_itself(denoising: ModuleType) -> None:
    victim = fading(denoising, 0.1, 6)
    greys = (0.05, 0.104, 0.22, 1.0)
    images = torch.tensor(greys)[:, None, None, None].expand(-1, 1, 8, 8).contiguous()
    steps = [steps_of(grey, 0.1, 6, denoising.FIRST) for grey in greys]
    assert steps == [1, 2, 5, 6]
    assert audit(victim, images).macs.tolist() == [n * 64 * 64 + 640 for n in steps]
    torch.testing.assert_close(victim(images), victim.trace(images).logits)


@pytest.mark.slow
def test_the_trained_one_keeps_the_contract_and_is_made_the_same_each_time(
    denoising: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(denoising, "EPOCHS", 3)
    before = torch.random.get_rng_state()
    first, second = (denoising.networks.__wrapped__() for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    for one, other in zip(first, second, strict=True):
        for name, weight in one.state_dict().items():
            assert torch.equal(weight, other.state_dict()[name])
    images, clean, _ = denoising.noisy("heldout", seed=1)
    assert 0 < (images - clean).abs().max() <= 1
    check_victim(denoising.Sampler(*first, tolerance=0.05), images[:6])
