"""Smoothing against closed forms: a half-space under Gaussian noise has its worst case exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from drawn import reproducible
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from torch import Tensor, nn
from toys import LinearSaver, grey_images

from effattack.attacks import Slowdown
from effattack.certify.smoothing import LEVELS, drawing, needed, smoothing
from effattack.errors import NotApplicable, UsageError
from effattack.threats import parse_threat
from effattack.victim import Gate, Opaque, Trace, Victim
from effattack.victim.smoothed import Smoothed

SHAPE = (1, 3, 3)


class HalfSpace(Victim):
    """Costs 9 MACs, and 91 more where w·x > b: P(dear) = Φ((w·x − b) / σ‖w‖) under noise."""

    def __init__(self, weight: Tensor, bound: float) -> None:
        super().__init__(
            name="half", family="early exit", input_shape=SHAPE, num_classes=2, max_macs=100
        )
        self.first = nn.Linear(9, 1)
        with torch.no_grad():
            self.first.weight.copy_(weight[None])
            self.first.bias.fill_(-bound)

    def trace(self, images: Tensor) -> Trace:
        score = self.first(images.flatten(1))[:, 0]
        gate = Gate("on", torch.tanh(score), score > 0, torch.ones_like(score).bool(), cost=91.0)
        return Trace(
            logits=torch.stack([score, -score], 1),
            gates=(gate,),
            macs=9 + 91 * (score > 0).double(),
        )

    def worst(self, image: Tensor, sigma: float, radius: float) -> float:
        """The expected work of the worst input within l2 ``radius``, any values admitted."""
        size = self.first.weight.norm().item()
        score = self.first(image.flatten(1)).item()
        return 9 + 91 * float(norm.cdf(score / (sigma * size) + radius / sigma))


@st.composite
def halves(draw: st.DrawFn) -> tuple[HalfSpace, Tensor, float, float]:
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    weight = torch.randn(9, generator=generator)
    image = (torch.rand(1, *SHAPE, generator=generator) * 255).round() / 255
    sigma = draw(st.sampled_from([0.05, 0.2, 0.5]))
    away = draw(st.floats(-3, 3)) * sigma * weight.norm().item()
    bound = (weight @ image.flatten()).item() + away
    return HalfSpace(weight, bound), image, sigma, draw(st.floats(0.0, 2.0)) * sigma


@settings(reproducible, max_examples=30)
@given(halves())
def test_a_half_space_is_bounded_tightly(half: tuple[HalfSpace, Tensor, float, float]) -> None:
    victim, image, sigma, radius = half
    drawn = drawing(Smoothed(victim, sigma), image, alpha=1e-6, samples=4000)
    (mean,), _ = drawn.within(radius)
    truth = victim.worst(image, sigma, radius)
    assert mean >= truth
    assert mean <= 100 + 1e-6
    if len(drawn.passing[0]) == 1 or drawn.levels[0][0] == 9:
        share = victim.worst(image, sigma, 0) / 91 - 9 / 91
        spread = 6 * math.sqrt(share * (1 - share) / 4000) + 20 / 4000
        at_most = norm.cdf(norm.ppf(min(1 - 1e-12, share + spread)) + radius / sigma)
        assert mean <= 9 + 91 * at_most + 1e-3


def test_the_tail_is_bounded_beside_the_mean() -> None:
    weight = torch.ones(9)
    image = torch.zeros(1, *SHAPE)
    sigma = 0.1
    victim = HalfSpace(weight, 3.0 * sigma * 3)  # three deviations away: .13 % of the draws
    drawn = drawing(Smoothed(victim, sigma), image, samples=20_000)
    rarely, often = drawn.within(0.2 * sigma)[1], drawn.within(1.5 * sigma)[1]
    assert rarely.item() == 9
    assert often.item() == 100


@pytest.mark.parametrize("seed", range(4))
def test_no_attack_ends_below_a_certificate(seed: int) -> None:
    """The mean of fresh draws at attacked inputs, with its own error, never lies wholly beyond."""
    victim = Smoothed(LinearSaver(seed=seed), 0.1)
    images = grey_images(8, seed=seed)
    for text in ("l2:0.1", "l2:0.3", "linf:8/255"):
        certificate = smoothing(victim, images, parse_threat(text), samples=2000)
        attacked = Slowdown(victim, threat=text, steps=30)(images)
        draws = [victim.seeded(k).trace(attacked).macs for k in range(1000, 1200)]
        works = torch.stack(draws)
        low = works.mean(0) - 4 * works.std(0) / math.sqrt(len(works))
        assert (low <= certificate.most + 1e-6).all()
        assert (certificate.most >= certificate.ceiling).logical_not().equal(certificate.known)
        p99 = works.quantile(0.95, dim=0)
        assert certificate.p99 is not None
        assert (p99 <= certificate.p99).all()


class ManyCosts(Victim):
    """Costs as many MACs as its mean pixel tells: no two draws alike."""

    def __init__(self) -> None:
        super().__init__(
            name="many", family="token sparsification", input_shape=SHAPE, num_classes=2,
            max_macs=1000,
        )  # fmt: skip

    def trace(self, images: Tensor) -> Trace:
        mean = images.flatten(1).mean(1)
        return Trace(
            logits=torch.stack([mean, -mean], 1), gates=(),
            macs=(1000 * mean).double().clamp(1, 1000).round(),
        )  # fmt: skip


def test_work_between_levels_counts_as_the_upper_one() -> None:
    victim = Smoothed(ManyCosts(), 0.1)
    image = torch.full((1, *SHAPE), 0.4)
    drawn = drawing(victim, victim.domain.snap(image), samples=20_000)
    assert len(drawn.levels[0]) <= LEVELS + 1
    assert drawn.levels[0][-1] == 1000
    (mean,), (p99,) = drawn.within(0.0)
    assert 400 < mean < 440  # the mean is 400; what rounding up to 16 levels adds
    assert p99 >= 400 + 2.3 * 1000 * 0.1 / 3
    far, _ = drawn.within(0.1)
    assert far.item() >= 400 + 1000 * 0.1 / 3  # along the mean: all pixels by r / 3


def test_opaque_victims_are_certified_by_what_is_counted() -> None:
    toy, images = LinearSaver(), grey_images(3)
    opaque = Smoothed(Opaque(toy, (1, 4, 4), max_macs=176), 0.1)
    told = smoothing(opaque, images, parse_threat("l2:.05"), samples=100)
    own = smoothing(Smoothed(toy, 0.1), images, parse_threat("l2:.05"), samples=100)
    assert torch.equal(told.most, own.most)
    assert torch.equal(told.clean, own.clean)
    with pytest.raises(NotApplicable, match="give the victim max_macs"):
        smoothing(Smoothed(Opaque(toy, (1, 4, 4)), 0.1), images, parse_threat("l2:.05"))


def test_linf_is_taken_by_the_root_of_the_dimension() -> None:
    victim, images = Smoothed(LinearSaver(), 0.1), grey_images(3)
    drawn = drawing(victim, images, samples=500)
    linf = smoothing(victim, images, parse_threat("linf:4/255"), drawn=drawn)
    l2 = smoothing(victim, images, parse_threat(f"l2:{16 / 255}"), drawn=drawn)
    assert np.allclose(linf.most, l2.most, rtol=1e-3)
    assert (linf.most >= drawn.within(4 / 255 * 4)[0].minimum(linf.ceiling)).all()


def test_what_cannot_be_certified_is_said() -> None:
    victim, images = Smoothed(LinearSaver(), 0.1), grey_images(3)
    far = smoothing(victim, images, parse_threat("box"), samples=100)
    assert not far.known.any()
    assert far.certified_retained == pytest.approx(0, abs=1e-9)
    assert torch.equal(far.most, far.ceiling)
    with pytest.raises(NotApplicable, match=r"adds no noise.*enumeration: "):
        smoothing(LinearSaver(), images, parse_threat("l2:.1"))
    with pytest.raises(UsageError, match="give a probability"):
        smoothing(victim, images, parse_threat("l2:.1"), alpha=1.5)


def test_too_few_samples_are_refused_with_the_number_that_it_takes() -> None:
    victim, images = Smoothed(LinearSaver(), 0.1), grey_images(3)
    with pytest.raises(UsageError, match="too few") as caught:
        smoothing(victim, images, parse_threat("l2:.1"), samples=5)
    least = int(str(caught.value).split("give at least ")[1].split(",")[0])
    smoothing(victim, images, parse_threat("l2:.1"), samples=least)
    with pytest.raises(UsageError, match="too few"):
        smoothing(victim, images, parse_threat("l2:.1"), samples=least - 1)
    assert needed(0.5) == 1
    assert needed(1 / 1024) == 10
