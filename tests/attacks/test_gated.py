"""ILFO, GradAuto, GradMDM: losses worked out by hand, and gates whose worst case is known."""

from __future__ import annotations

from math import sqrt

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from toys import LinearSaver, embedded, grey_images

from effattack.attacks import ILFO, Attack, GradAuto, GradMDM, build
from effattack.attacks.base import Attack as AnyAttack
from effattack.attacks.objectives import Goal
from effattack.attacks.published.gradauto import SplitGates
from effattack.attacks.published.gradmdm import PowerLosses, power_norm
from effattack.attacks.published.ilfo import DesiredStates
from effattack.attacks.searches.merging import merged, reached_shares
from effattack.attacks.searches.penalised import Penalised
from effattack.errors import NotApplicable, UsageError
from effattack.models_zoo.layer_skipping.skipnet import PooledGate, SigmoidGate, SkipNet
from effattack.threats import Box, Linf, Patch
from effattack.victim import Gate, Opaque, Trace, Victim

PENALISED = [ILFO, GradAuto, GradMDM]
WEIGHT, NEEDED = 20.0, 0.6
"""The gate of :func:`bright_only`: z = WEIGHT (mean - NEEDED)."""


def bright_only(threshold: float = 0.5) -> SkipNet:
    """One block, computed where the mean of the pixels exceeds 0.6."""
    gate = PooledGate(1)
    with torch.no_grad():
        gate.linear.weight.fill_(WEIGHT)
        gate.linear.bias.fill_(-WEIGHT * NEEDED)
    head = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        head[1].weight.copy_(torch.linspace(-1, 1, 32).view(2, 16))
        head[1].bias.zero_()
    return SkipNet(
        nn.Identity(), [nn.Conv2d(1, 1, 1)], [gate], head, (1, 4, 4), threshold=threshold
    )


def dark_images(count: int) -> Tensor:
    """Means about 0.5: 0.1 short of the gate."""
    return grey_images(count, seed=4)


def a_trace(*gates: Gate, shares: Tensor | None = None) -> Trace:
    batch = len(gates[0].margin)
    aux = {} if shares is None else {"shares": shares}
    return Trace(torch.zeros(batch, 2), gates, torch.ones(batch).double(), aux=aux)


def a_gate(margin: Tensor, reached: Tensor) -> Gate:
    """As the door shows it: (B,) is one unit."""
    margin, reached = margin.view(len(margin), -1), reached.view(len(reached), -1)
    return Gate("g", margin, (margin > 0) & reached, reached, 1.0)


@pytest.fixture
def goal() -> Goal:
    return Goal(LinearSaver(), torch.zeros(2, 2), torch.zeros(2, dtype=torch.long))


# losses by hand


def test_ilfo_sums_what_is_missing(goal: Goal) -> None:
    margins = torch.tensor([[-0.5, 0.02], [0.9, -1.0]])
    reached = torch.tensor([[True, True], [True, False]])
    alone = a_gate(torch.tensor([-0.25, -0.1]), torch.tensor([True, True]))
    found = DesiredStates(weight=10, kappa=0.05)(a_trace(a_gate(margins, reached), alone), goal)
    torch.testing.assert_close(found, torch.tensor([-10 * (0.55 + 0.03 + 0.3), -10 * 0.15]))


def test_gradauto_splits_gates_at_one_half() -> None:
    kept, opened = SplitGates(0).wants(torch.tensor([[0.9, 0.2, 0.4], [0.5, 0.5, 1.0]]), 0)
    torch.testing.assert_close(kept, torch.tensor([0.4, 0.5]))
    torch.testing.assert_close(opened, torch.tensor([-0.4, 0.0]))


def test_gradmdm_takes_power_norms() -> None:
    losses, shares = PowerLosses(1.0, p=0.5, q=2, warm_up=10), torch.tensor([[0.8, 0.2]])
    kept, opened = losses.wants(shares, step=10)
    assert kept.item() == pytest.approx(-((sqrt(0.2) + sqrt(0.5)) ** 2))
    assert opened.item() == pytest.approx(sqrt(0.25 + 0.04))
    kept, opened = losses.wants(shares, step=9)
    assert (kept.item(), opened.item()) == pytest.approx((-0.7, 0.7))


@pytest.mark.parametrize("p", [0.35, 3.5, 50])
def test_power_norms_neither_underflow_nor_explode(p: float) -> None:
    values = torch.tensor([[0.01, 0.02, 0.0]], requires_grad=True)
    norm = power_norm(values, p)
    expected = sum(v**p for v in (0.01, 0.02, torch.finfo(torch.float32).eps)) ** (1 / p)
    assert norm.item() == pytest.approx(expected, rel=1e-3)
    norm.sum().backward()
    assert values.grad is not None
    assert torch.isfinite(values.grad).all()
    assert values.grad[0, 1] > 0


def test_merging_takes_away_what_opposes() -> None:
    wanted = torch.tensor([[1.0, 1.0]]).expand(5, 2)
    keep = torch.tensor([[-1.0, 0.0], [2.0, 0.0], [0.0, 0.0], [-1e-30, 0.0], [-1.0, -1.0]])
    expected = torch.tensor([[0.0, 1.0], [1.0, 1.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    torch.testing.assert_close(merged(wanted, keep), expected)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_merged_never_closes_what_is_open(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    wanted, keep = torch.randn(2, 4, 6, generator=generator, dtype=torch.float64)
    found = merged(wanted, keep)
    assert ((found * keep).sum(1) >= -1e-9).all()
    agree = (wanted * keep).sum(1) >= 0
    assert torch.equal(found[agree], wanted[agree])


def test_unreached_gates_are_neither_open_nor_closed() -> None:
    reached = torch.tensor([[True, False], [False, True]])
    shares = torch.tensor([[0.9, 0.9], [0.1, 0.1]], requires_grad=True)
    found = reached_shares(a_trace(a_gate(torch.zeros(2, 2), reached), shares=shares))
    torch.testing.assert_close(found, torch.tensor([[0.9, 0.5], [0.5, 0.1]]))
    found.sum().backward()
    assert shares.grad is not None
    assert shares.grad.tolist() == reached.float().tolist()


def test_gradauto_steps_have_unit_length_times_pixels() -> None:
    victim, clean = bright_only(), dark_images(3)
    images = (clean + 0.02).requires_grad_()
    trace = victim.trace(images)
    goal = Goal(victim, victim.trace(clean).logits.detach(), torch.zeros(3, dtype=torch.long))
    away = (trace.logits - goal.logits).square().sum()
    (noticed,) = torch.autograd.grad(away, images, retain_graph=True)
    alone = SplitGates(0).direction(trace, images, goal, 0)
    torch.testing.assert_close(alone, torch.full_like(alone, 16 / 4))  # unit: 1/4 per pixel
    quiet = SplitGates(50).direction(victim.trace(images), images, goal, 0)
    torch.testing.assert_close(quiet, alone - 50 * noticed)
    assert noticed.abs().max() > 0


# shares of real gates


@pytest.mark.parametrize("name", ["digits_skipnet", "digits_vit_adavit"])
def test_shares_decide_at_one_half_in_the_order_of_the_gates(
    name: str, digit_images: Tensor
) -> None:
    with torch.no_grad():
        trace = embedded(name).trace(digit_images[:4])
    active = torch.cat([gate.active for gate in trace.gates], dim=1)
    assert torch.equal(reached_shares(trace) > 0.5, active)
    assert active.any()
    assert not active.all()


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.7])
def test_shares_of_other_thresholds_are_moved(threshold: float) -> None:
    z = torch.linspace(-3, 3, 50)
    gate = SigmoidGate(threshold)
    assert torch.equal(gate.share(z) > 0.5, gate.computes(z))
    if threshold == 0.5:
        torch.testing.assert_close(gate.share(z), z.sigmoid())


# what they find


@pytest.mark.parametrize("attack", PENALISED)
@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_a_gate_falls_at_little_more_than_the_least_distance(
    attack: type[Attack], threshold: float
) -> None:
    victim, clean = bright_only(threshold), dark_images(4)
    short = NEEDED + torch.tensor(threshold).logit() / WEIGHT - clean.mean((1, 2, 3))
    least = 4 * short  # along the mean: 16 pixels, each by what is missing
    found = attack(victim, steps=50)(clean)
    assert not victim.trace(clean).gates[0].active.any()
    assert victim.trace(found).gates[0].active.all()
    distance = (found - clean).flatten(1).norm(dim=1)
    assert (distance >= least - 1e-5).all()
    assert (distance <= 1.1 * least + 0.08).all(), "two steps of Adam"


@pytest.mark.parametrize("attack", PENALISED)
def test_what_is_open_is_left_alone(attack: type[Attack]) -> None:
    bright = dark_images(3).clamp_min(0.65).mul(255).round() / 255
    assert torch.equal(attack(bright_only(), steps=10)(bright), bright)


@pytest.mark.parametrize("attack", PENALISED)
def test_a_given_budget_is_kept(attack: type[Attack]) -> None:
    victim, clean = bright_only(), dark_images(4)
    near = attack(victim, 4 / 255, steps=20)(clean)
    assert 0 < (near - clean).abs().max() <= 4 / 255 + 1e-6
    assert not victim.trace(near).gates[0].active.any(), "0.1 is out of reach"
    patched = attack(victim, threat="patch:2@1,1", steps=20)(clean)
    outside = (patched != clean)[:, 0]
    outside[:, 1:3, 1:3] = False
    assert not outside.any()


@pytest.mark.parametrize("attack", PENALISED)
def test_without_a_budget_the_pixel_box_is_all(attack: type[AnyAttack]) -> None:
    victim, name = bright_only(), attack.__name__
    assert isinstance(attack(victim).threat, Box)
    assert attack(victim).name == name
    assert isinstance(build(name, victim, 4 / 255).threat, Linf)
    assert isinstance(build(f"{name}(threat='box')", victim).threat, Box)
    assert isinstance(attack(victim, threat="patch:2").threat, Patch)


@pytest.mark.parametrize("attack", PENALISED)
def test_images_do_not_see_their_batch_mates(attack: type[Attack]) -> None:
    made, clean = attack(bright_only(), steps=15), dark_images(3)
    assert torch.equal(made(clean), torch.cat([made(image) for image in clean.split(1)]))


@pytest.mark.slow
def test_only_the_price_on_distance_holds_gradmdm_back(digit_images: Tensor) -> None:
    """Its gradient opens nearly all that there is: what is left shut was too dear."""
    victim, clean = embedded("digits_skipnet"), digit_images[:6]
    paper, cheap, noise = (
        build(text, victim, Box())
        for text in ("GradMDM(steps=60)", "GradMDM(steps=60, distance_weight=1.0)", "noise")
    )

    def work(images: Tensor) -> float:
        with torch.no_grad():
            return victim.trace(images).macs.mean().item()

    found = {attack: attack(clean) for attack in (paper, cheap, noise)}
    assert work(clean) < work(found[paper]) < work(found[cheap])
    assert work(found[cheap]) > work(found[noise])
    assert work(found[cheap]) > 0.95 * victim.max_macs
    moved = {attack: (images - clean).norm() for attack, images in found.items()}
    assert moved[paper] < moved[cheap] < moved[noise] / 2


def test_gradauto_can_keep_the_logits() -> None:
    victim, clean = bright_only(), dark_images(4)

    def moved(attack: Attack) -> float:
        return (victim.trace(attack(clean)).logits - victim.trace(clean).logits).norm().item()

    free, quiet = (GradAuto(victim, steps=40, logits_weight=w) for w in (0.0, 1e5))
    assert moved(quiet) < 0.8 * moved(free)


# who can be attacked


@pytest.mark.parametrize("attack", [GradAuto, GradMDM])
def test_sigmoid_gates_are_needed(attack: type[Attack], ats: Victim, early_exit: Victim) -> None:
    for victim in (ats, early_exit):
        with pytest.raises(
            NotApplicable, match=rf"^{attack.__name__} needs sigmoid.*{victim.name} is a"
        ):
            attack(victim)


def test_ilfo_needs_gates() -> None:
    with pytest.raises(NotApplicable, match="cannot be opened"):
        ILFO(Opaque(LinearSaver(), (1, 4, 4)))


def test_a_search_steps_at_least_once() -> None:
    with pytest.raises(UsageError, match="steps = 0"):
        Penalised(0, 0.01, 1.0)
