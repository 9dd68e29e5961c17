"""What networks are trained on: inside the budget, worse than clean, and as the losses say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from own_exits import EPS, own_exits, small_digits
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from toys import embedded

from effattack.attacks.objectives import Goal, MarginHinge
from effattack.errors import NotApplicable
from effattack.hardening.bounds import Bounded, Interval, stage_intervals, through
from effattack.hardening.inner import Ascent, Both, Noise, WrongAnswers, answers_loss
from effattack.hardening.losses import Attacked, Lesson, pushes
from effattack.hardening.savers import Savers
from effattack.models_zoo.digits import digits
from effattack.threats import L2, Linf, Patch, Threat
from effattack.victim.structure import Models

IMAGES, LABELS = (part[:16] for part in small_digits("train"))
BOTH = Both(WrongAnswers(), MarginHinge())


@pytest.mark.parametrize("objective", [WrongAnswers(), MarginHinge(), BOTH])
@pytest.mark.parametrize("threat", [Linf(EPS), L2(0.5), Patch(3)])
def test_ascents_stay_inside_and_climb(objective: Any, threat: Threat) -> None:
    victim = own_exits()
    bound: Any = threat.on(victim.domain)
    found = Ascent(objective, 3)(victim, IMAGES, LABELS, bound, Generator().manual_seed(0))
    assert not found.requires_grad
    assert found.min() >= 0
    assert found.max() <= 1
    change = (found - IMAGES).flatten(1)
    if isinstance(threat, Patch):
        assert (change != 0).sum(1).amax() <= 9
    else:
        size = change.abs().amax(1) if isinstance(threat, Linf) else change.norm(dim=1)
        assert size.max() <= threat.eps + 1e-5

    def value(images: Tensor) -> float:
        trace = victim.trace(images)
        return objective(trace, Goal(victim, trace.logits, LABELS)).sum().item()

    assert value(found) > value(IMAGES)


def test_noise_has_the_deviation_that_it_says() -> None:
    victim = own_exits()
    grey = torch.full((200, 1, 8, 8), 0.5)
    threat: Any = Linf(EPS).on(victim.domain)
    found = Noise(0.1)(victim, grey, torch.zeros(200), threat, Generator().manual_seed(0))
    assert (found - grey).std().item() == pytest.approx(0.1, rel=0.02)
    assert 0 <= found.min() <= found.max() <= 1


def test_the_loss_is_the_sum_that_it_says() -> None:
    victim = own_exits()
    threat: Any = Linf(EPS).on(victim.domain)
    losses = Attacked(Noise(0.1), clean=0.25, margins=2.0, least=-0.3)
    lesson = Lesson(victim, IMAGES, LABELS, threat, Generator().manual_seed(5), 0.0)
    noisy = Noise(0.1)(victim, IMAGES, LABELS, threat, Generator().manual_seed(5))
    expected = torch.zeros(16)
    for images, weight in ((noisy, 1.0), (IMAGES, 0.25)):
        trace = victim.trace(images)
        for stage in trace.stage_logits.unbind(1):
            expected += weight * F.cross_entropy(stage, LABELS, reduction="none")
        for gate in trace.gates:
            push = gate.margin[:, 0].clamp(min=-0.3) * gate.cost
            expected += weight * 2.0 * push / victim.max_macs
    assert torch.allclose(losses(lesson), expected, atol=1e-5)


def test_margins_that_nobody_reached_weigh_nothing() -> None:
    victim = embedded("digits_vit_ats")
    images = digits("test")[0][:4]
    with torch.no_grad():
        trace = victim.trace(images)
    gates = tuple(g._replace(margin=torch.where(g.reached, g.margin, 0.9)) for g in trace.gates)
    assert torch.equal(
        pushes(trace, victim, -0.5), pushes(trace._replace(gates=gates), victim, -0.5)
    )


def test_savers_show_what_their_cascade_does() -> None:
    cascade = embedded("digits_three_stage_cascade")
    structure = cascade.structure()
    assert isinstance(structure, Models)
    images, labels = (part[:40] for part in digits("test"))
    with torch.no_grad():
        whole, alone = cascade.trace(images), Savers(cascade, structure).trace(images)
    assert torch.equal(whole.stage_logits[:, :-1], alone.stage_logits)
    for one, other in zip(whole.gates, alone.gates, strict=True):
        assert (one.name, one.cost, one.pushed) == (other.name, other.cost, other.pushed)
        assert torch.equal(one.margin, other.margin)
        assert torch.equal(one.active, other.active)
        assert torch.equal(one.reached, other.reached)
    base = F.cross_entropy(whole.stage_logits[:, -1], labels, reduction="none")
    assert torch.allclose(answers_loss(whole, labels), answers_loss(alone, labels) + base)


def layers(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3, 2, 1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.MaxPool2d(2, 1),
        nn.Sequential(nn.Conv2d(3, 4, 2), nn.AvgPool2d(2), nn.Flatten()),
        nn.Linear(4, 5),
    )
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.1, 2)
    return net.double().eval()


@given(st.integers(0, 10_000), st.floats(0, 0.5))
@settings(max_examples=40, deadline=None)
def test_no_input_leaves_its_interval(seed: int, radius: float) -> None:
    net = layers(seed)
    generator = Generator().manual_seed(seed)
    middle = torch.rand(1, 1, 8, 8, generator=generator, dtype=torch.float64)
    noise = torch.rand(64, 1, 8, 8, generator=generator, dtype=torch.float64) * 2 - 1
    inputs = middle + radius * noise.sign() * noise.abs().round()  # corners, and the middle's
    with torch.no_grad():
        bound = through(net, Interval(middle - radius, middle + radius))
        said = net(inputs)
    assert (said >= bound.lower - 1e-9).all()
    assert (said <= bound.upper + 1e-9).all()


def test_an_interval_of_one_point_is_the_answer() -> None:
    victim = own_exits()
    with torch.no_grad():
        said = victim.trace(IMAGES).stage_logits
        for k, bound in enumerate(stage_intervals(victim, Interval(IMAGES, IMAGES))):
            assert torch.allclose(bound.lower, said[:, k], atol=1e-5)
            assert torch.allclose(bound.upper, said[:, k], atol=1e-5)


def test_bound_training_begins_with_the_clean_loss_and_says_what_it_cannot_bound() -> None:
    victim = own_exits()
    threat: Any = Linf(EPS).on(victim.domain)
    lesson = Lesson(victim, IMAGES, LABELS, threat, Generator(), 0.0)
    plain = answers_loss(victim.trace(IMAGES), LABELS)
    assert torch.allclose(Bounded()(lesson), plain)
    assert (Bounded()(lesson._replace(progress=0.9)) > plain).all()
    with pytest.raises(NotApplicable, match="is for l-inf budgets"):
        Bounded()(lesson._replace(threat=L2(1.0).on(victim.domain)))
    victim.stages[1].append(nn.GELU())
    with pytest.raises(NotApplicable, match="no rule for GELU"):
        Bounded().check(victim.trace(IMAGES[:1]), victim)
