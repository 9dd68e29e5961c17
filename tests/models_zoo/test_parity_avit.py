"""A-ViT: equal to the official implementation, obeying the contract, not blind where saturated."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from parity import golden, relative
from torch import Tensor

from effattack import audit
from effattack.errors import UsageError
from effattack.models_zoo.networks import small_vit
from effattack.models_zoo.token_sparsification.avit import AViT
from effattack.models_zoo.token_sparsification.avit_policy import AdaptiveHalting, Halted
from effattack.victim.checks import INVARIANTS, Check

FACTS, VECTORS, WEIGHTS = golden("avit")
IMAGES = VECTORS["input"]


@pytest.fixture(params=sorted(FACTS["variants"]))
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[False, True], ids=["as_published", "stop_on_cls"])
def stop_on_cls(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture
def official(variant: str, stop_on_cls: bool) -> AViT:
    return AViT.from_official(WEIGHTS, **FACTS["variants"][variant], stop_on_cls=stop_on_cls)


@pytest.mark.parametrize("path", ["forward", "trace"])
def test_logits(official: AViT, variant: str, path: str) -> None:
    with torch.no_grad():
        logits = official(IMAGES) if path == "forward" else official.trace(IMAGES).logits
        official, images = official.double(), IMAGES.double()
        exact = official(images) if path == "forward" else official.trace(images).logits
    assert relative(logits, VECTORS[f"{variant}/logits"]) < 1e-5
    assert relative(exact, VECTORS[f"{variant}/logits_f64"]) < 1e-12


def test_decisions(official: AViT, variant: str, stop_on_cls: bool) -> None:
    expected = VECTORS[f"{variant}/active_mask"].bool()
    if stop_on_cls:
        expected = expected & expected[:, :, :1]
    with torch.no_grad():
        trace = official.trace(IMAGES)
    assert torch.equal(trace.aux["live"], expected)
    assert expected.any(2).any()
    assert not expected.all()
    for index in range(expected.shape[1] - 1):
        cls, tokens = trace.gates[2 * index : 2 * index + 2]
        assert (cls.name, tokens.name) == (f"blocks.{index}.cls", f"blocks.{index}.tokens")
        onward = torch.cat([cls.active, tokens.active], dim=1)
        assert torch.equal(onward, expected[:, index + 1])
        assert torch.equal(cls.reached[:, 0], expected[:, index, 0])


def test_scores(variant: str) -> None:
    official = AViT.from_official(WEIGHTS, **FACTS["variants"][variant])
    with torch.no_grad():
        aux = official.trace(IMAGES).aux
        exact = official.double().trace(IMAGES.double()).aux["ponder"]
    live = aux["live"]
    assert torch.equal(live.sum(1), VECTORS[f"{variant}/counter_token"].long())
    torch.testing.assert_close(exact, VECTORS[f"{variant}/rho_token_f64"], rtol=0, atol=1e-10)
    torch.testing.assert_close(aux["ponder"], VECTORS[f"{variant}/rho_token"], rtol=0, atol=1e-5)
    for name, vector in (("halting", "halting_score"), ("cumulative", "cum_halting")):
        if (expected := VECTORS.get(f"{variant}/{vector}")) is not None:
            torch.testing.assert_close(aux[name][live], expected[live], rtol=0, atol=1e-5)


def test_gradients(variant: str) -> None:
    official = AViT.from_official(WEIGHTS, **FACTS["variants"][variant])
    images = IMAGES.clone().requires_grad_()
    trace = official.trace(images)
    sources = {"logit3": trace.logits[:, 3], "rho": trace.aux["ponder"]}
    for name, source in sources.items():
        (gradient,) = torch.autograd.grad(source.sum(), images, retain_graph=True)
        expected = VECTORS[f"{variant}/grad_{name}_sum_sample0_1"]
        assert relative(gradient[: len(expected)], expected) < 1e-4


def test_executed_macs(official: AViT) -> None:
    counted = audit(official, IMAGES)
    assert not counted.knife_edge.any()
    assert (counted.macs < official.max_macs).all()


def test_stopping_on_cls_saves_dead_compute_only(variant: str) -> None:
    published, stopping = (
        AViT.from_official(WEIGHTS, **FACTS["variants"][variant], stop_on_cls=stop)
        for stop in (False, True)
    )
    with torch.no_grad():
        whole, early = published.trace(IMAGES), stopping.trace(IMAGES)
    cls_halted = ~whole.aux["live"][:, -1, 0]
    assert torch.equal(whole.logits, early.logits)
    assert cls_halted.any()
    assert not cls_halted.all()
    assert torch.equal(early.macs < whole.macs, cls_halted)


def random_victim(*, stop_on_cls: bool, scale: float = 6.0, center: float = 9.0) -> AViT:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vit = small_vit(depth=4)
        with torch.no_grad():
            for parameter in vit.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
    return AViT(vit, gate_scale=scale, gate_center=center, stop_on_cls=stop_on_cls)


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    noise = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return noise * torch.linspace(0, 1, 6).view(-1, 1, 1, 1)


def test_random_victim_is_undecided(pixels: Tensor) -> None:
    with torch.no_grad():
        trace = random_victim(stop_on_cls=False).trace(pixels)
    assert len(set(trace.macs.tolist())) == len(pixels)
    assert all(0 < gate.active.float().mean() < 1 for gate in trace.gates[1::2])
    assert 0 < trace.gates[2].active.float().mean() < 1


@pytest.mark.parametrize("check", INVARIANTS)
def test_contract(check: Check, stop_on_cls: bool, pixels: Tensor) -> None:
    assert check(random_victim(stop_on_cls=stop_on_cls), pixels) == []


def test_forward_equals_trace_in_float64(stop_on_cls: bool, pixels: Tensor) -> None:
    victim, images = random_victim(stop_on_cls=stop_on_cls).double(), pixels.double()
    with torch.no_grad():
        torch.testing.assert_close(victim(images), victim.trace(images).logits, rtol=0, atol=1e-10)


def test_saturated_scores_keep_a_slope(pixels: Tensor) -> None:
    """Where h is 1 in float32 its own slope is 0; the margin still tells where to push."""
    victim = random_victim(stop_on_cls=False, scale=300.0, center=450.0)
    images = pixels.clone().requires_grad_()
    trace = victim.trace(images)
    for index, gate in enumerate(trace.gates[1:4:2]):
        scores = trace.aux["halting"][:, index, 1:]
        saturated = gate.reached & (scores == 1)
        hit = saturated.any(1)
        assert hit.any()
        slopes = [
            torch.autograd.grad((values * saturated).sum(), images, retain_graph=True)[0]
            for values in (scores, gate.margin)
        ]
        native, house = (slope.flatten(1).norm(dim=1)[hit] for slope in slopes)
        assert not native.any()
        assert house.min() > 1e-4


@pytest.mark.parametrize("center", [-1e4, 1e4], ids=["all_halt", "none_halts"])
def test_extremes(center: float, stop_on_cls: bool, pixels: Tensor) -> None:
    victim = random_victim(stop_on_cls=stop_on_cls, center=center)
    with torch.no_grad():
        trace, counted = victim.trace(pixels), audit(victim, pixels)
    live = trace.aux["live"].sum(1)
    assert (live == (1 if center < 0 else 4)).all()
    assert ((counted.macs == victim.max_macs) == (center > 0)).all()
    torch.testing.assert_close(counted.logits, trace.logits, rtol=1e-4, atol=1e-4)


def test_a_sum_of_exactly_the_threshold_halts_uncounted() -> None:
    policy = AdaptiveHalting(gate_scale=1.0, gate_center=0.0, eps=0.25)
    state = policy.step(policy.start(torch.zeros(1, 3, 2)), torch.tensor([[0.5, 0.75, 0.8]]))
    assert state.onward.tolist() == [[True, False, False]]
    assert state.weight.tolist() == [[0.5, 0.0, 1.0]]
    state = policy.step(state, torch.ones(1, 3))
    assert state.weight.tolist() == [[0.5, 0.0, 0.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_sign_of_the_margin_is_the_decision(dtype: torch.dtype) -> None:
    """Also within rounding of the threshold, where log-odds and probabilities may disagree."""
    policy = AdaptiveHalting(gate_scale=1.0, gate_center=0.0, eps=0.01)
    before = torch.linspace(0, 0.98, 99, dtype=dtype)[:, None].expand(99, 2001)
    log_odds = (0.99 - before).logit() + torch.linspace(-1e-5, 1e-5, 2001, dtype=dtype)
    state = Halted(before, 1 - before, before * 0, torch.ones_like(before, dtype=torch.bool))
    onward = policy.step(state, log_odds.sigmoid()).onward
    margin = policy.margin(state, log_odds, onward)
    assert torch.equal(margin > 0, onward)
    assert 0 < onward.float().mean() < 1
    assert margin.abs().max() < 1e-4


@pytest.mark.parametrize("wrong", [{"halting_eps": 0.0}, {"halting_eps": 1.0}, {"gate_scale": 0}])
def test_values_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        AViT(small_vit(depth=1), **({"gate_scale": 10.0, "gate_center": 30.0} | wrong))


def test_keys_that_do_not_fit() -> None:
    weights = dict(WEIGHTS)
    weights["blocks.1.attn.extra"] = weights.pop("blocks.1.norm1.bias")
    with pytest.raises(
        UsageError, match=r"missing blocks\.1\.norm1\.bias.*surplus blocks\.1\.attn"
    ):
        AViT.from_official(weights, **FACTS["variants"]["sharp"])
