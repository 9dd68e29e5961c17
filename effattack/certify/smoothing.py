"""Randomised smoothing of the cost: the expected work of a noisy system, bounded in an l2 ball.

Let c₀ < c₁ < … < c_K be levels of work, c_K the ceiling, and f_k(x) = P(work(x + N(0, σ²)) > c_k₋₁)
the share of draws that pass a level. As x ↦ Φ⁻¹(f_k(x)) is 1/σ-Lipschitz in l2 (Cohen et al. 2019,
arXiv 1902.02918; Salman et al. 2019, arXiv 1906.04584, lemma 2), every input within r of x has

    E[work] ≤ c₀ + Σ_k (c_k − c_k₋₁) · Φ(Φ⁻¹(p_k) + r/σ)

where p_k ≥ f_k(x) is an upper bound from draws at x (Clopper and Pearson 1934). All bounds hold
together, over all levels of all inputs, with probability 1 − α: each has α / (levels · inputs).

Work between two levels counts as the upper one, so any levels give a bound. They are chosen by
draws of their own: all values that were seen, of all inputs, where these are at most ``LEVELS``
(the exits of a network); else that many quantiles of what was seen of each input.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import beta, norm
from torch import Generator, Tensor

from effattack.certify.certificate import Certificate
from effattack.certify.kinds import covered
from effattack.certify.spending import AT_ONCE, ceiling_of, expect_ceiling, spent
from effattack.errors import NotApplicable, UsageError, expect_least
from effattack.threats import Threat
from effattack.victim import Victim
from effattack.victim.smoothed import Smoothed
from effattack.victim.undisturbed import undisturbed

LEVELS = 16
"""Of work at most, the ceiling beside them."""
CHOOSING = 100
"""Draws of each input that choose the levels."""
OUTWARD = 1e-9
"""Added to every probability, for the rounding of Φ and its inverse."""


@dataclass(frozen=True)
class Drawn:
    """What draws at clean inputs tell of the noisy system: enough for every radius.

    Attributes:
        victim: the smoothed one.
        levels: per input (K + 1,) float64, ascending; the last is its ceiling.
        passing: per input (K,), upper bounds on the shares of draws beyond all levels but the last.
        clean: (B,) work on clean inputs without noise.
        noisy: (B,) mean work of the draws.
        alpha: probability that any of the bounds is too low.
        samples: draws of each input that were counted.
        seconds: that they took.
        passes: of the victim through each input.
    """

    victim: Smoothed
    levels: tuple[np.ndarray, ...]
    passing: tuple[np.ndarray, ...]
    clean: Tensor
    noisy: Tensor
    alpha: float
    samples: int
    seconds: float
    passes: int

    def within(self, radius: float) -> tuple[Tensor, Tensor]:
        """Bounds of the mean and of the 99 % quantile of work, (B,) each, within an l2 radius."""
        pairs = [
            _bounds(levels, passing, radius / self.victim.sigma)
            for levels, passing in zip(self.levels, self.passing, strict=True)
        ]
        mean, p99 = zip(*pairs, strict=True)
        return torch.tensor(mean), torch.tensor(p99)


def smoothing(
    victim: Victim,
    inputs: Tensor,
    threat: Threat,
    *,
    alpha: float = 0.001,
    samples: int = 1000,
    seed: int = 0,
    drawn: Drawn | None = None,
) -> Certificate:
    """Bound the expected work of a smoothed victim on all inputs of a threat.

    It is that of the noisy system; savings are those against the clean inputs without noise. A
    threat is taken by the longest change in l2 that it admits: of l-inf eps · √d.

    Args:
        victim: the smoothed one.
        inputs: clean ones (B, ...).
        threat: a set of arrays.
        alpha: probability that the bound of any input is too low.
        samples: draws of each input.
        seed: of the draws.
        drawn: what :func:`drawing` told of these inputs already, in place of the three.

    Raises:
        NotApplicable: for a victim or a threat that it does not cover, naming what does.
        UsageError: for an alpha that is no probability, or too few samples, saying how many it
            takes.
    """
    if not isinstance(victim, Smoothed):
        raise NotApplicable(
            f"{victim.name} adds no noise, which smoothing is about: give Smoothed(victim, sigma), "
            f"or effattack certify --sigma; other kinds: {covered(but='smoothing')}"
        )
    threat = threat.on(victim.domain)
    inputs = victim.domain.snap(victim.domain.place(inputs, victim.device))
    radius = threat.euclidean(inputs)
    if not math.isfinite(radius):
        raise NotApplicable(f"{threat} has no size in l2: {covered(but='smoothing')}")
    if drawn is None:
        drawn = drawing(victim, inputs, alpha=alpha, samples=samples, seed=seed)
    started = time.perf_counter()
    ceiling = ceiling_of(victim, inputs, threat)
    mean, p99 = drawn.within(radius)
    most = mean.minimum(ceiling)
    return Certificate(
        kind="smoothing",
        victim=victim.name,
        threat=str(threat),
        currency=victim.currency,
        clean=drawn.clean,
        most=most,
        ceiling=ceiling,
        error=drawn.alpha,
        known=most < ceiling,
        seconds=drawn.seconds + time.perf_counter() - started,
        passes=drawn.passes,
        note=_note(drawn, radius),
        p99=p99,
    )


def drawing(
    victim: Smoothed, inputs: Tensor, *, alpha: float = 0.001, samples: int = 1000, seed: int = 0
) -> Drawn:
    """Draws of the noisy system at clean inputs, counted level by level.

    Args:
        victim: the smoothed one; its model inside is traced, or run where it is an artefact.
        inputs: clean ones (B, ...), such as a deployed model can be fed.
        alpha, samples, seed: see :func:`smoothing`.

    Raises:
        NotApplicable: where its work or its ceiling is unknown.
        UsageError: see :func:`smoothing`.
    """
    if not 0 < alpha < 1:
        raise UsageError(f"alpha = {alpha}: give a probability of error, such as .001")
    expect_least("samples", samples, 1)
    inside, generator = victim.victim, Generator().manual_seed(seed)
    started = time.perf_counter()
    with undisturbed(victim):
        ceiling = victim.ceiling(inputs, victim.currency).double().cpu()
        expect_ceiling(victim, ceiling)
        clean = spent(inside, inputs)
        seen = [_works(victim, one, CHOOSING, generator) for one in inputs.split(1)]
        levels = _levels(seen, ceiling.tolist())
        share = alpha / sum(len(each) - 1 for each in levels)
        _expect_enough(samples, share)
        passing, noisy = [], []
        for one, each in zip(inputs.split(1), levels, strict=True):
            works = _works(victim, one, samples, generator)
            passing.append(_upper((works[:, None] > each[:-1]).sum(0), samples, share))
            noisy.append(works.mean())
    return Drawn(
        victim,
        tuple(levels),
        tuple(passing),
        clean,
        torch.tensor(noisy),
        alpha,
        samples,
        time.perf_counter() - started,
        CHOOSING + samples + 1,
    )


def needed(share: float) -> int:
    """Draws that can bound a level at all: none of them beyond it means less than half are."""
    return math.ceil(math.log(share) / math.log(0.5))


def _expect_enough(samples: int, share: float) -> None:
    if samples < (least := needed(share)):
        raise UsageError(
            f"samples = {samples} are too few for the confidence: where none of them passes a "
            f"level, half of all draws still may; give at least {least}, or a larger alpha"
        )


def _works(victim: Smoothed, one: Tensor, count: int, generator: Generator) -> np.ndarray:
    """(count,) work of the model inside on draws of one input."""
    found = []
    for first in range(0, count, AT_ONCE):
        shape = (min(AT_ONCE, count - first), *one.shape[1:])
        noise = torch.randn(shape, generator=generator).to(one)
        found.append(spent(victim.victim, one + victim.sigma * noise))
    return torch.cat(found).numpy()


def _levels(seen: list[np.ndarray], ceilings: list[float]) -> list[np.ndarray]:
    """Per input its levels, by the work of draws that count for nothing else."""
    shared = np.unique(np.concatenate(seen))
    few = len(shared) <= LEVELS
    found = []
    for works, ceiling in zip(seen, ceilings, strict=True):
        chosen = shared if few else np.quantile(works, np.linspace(0, 1, LEVELS), method="higher")
        found.append(np.append(np.unique(chosen[chosen < ceiling]), ceiling))
    return [each if len(each) > 1 else np.array([0.0, *each]) for each in found]


def _upper(passed: np.ndarray, samples: int, share: float) -> np.ndarray:
    """(K,) upper bounds of shares, by the counts beyond each level; they fall as counts do."""
    bounds = beta.ppf(1 - share, passed + 1, np.maximum(samples - passed, 1))
    return np.where(passed < samples, bounds, 1.0)


def _bounds(levels: np.ndarray, passing: np.ndarray, shift: float) -> tuple[float, float]:
    """Of one input the bounds of the mean and of the 99 % quantile, for r/σ = ``shift``."""
    beyond = np.minimum(norm.cdf(norm.ppf(passing) + shift) + OUTWARD, 1.0)
    mean = levels[0] + float(np.diff(levels) @ beyond)
    rarely = np.flatnonzero(beyond <= 0.01)
    return mean, float(levels[rarely[0]] if len(rarely) else levels[-1])


def _note(drawn: Drawn, radius: float) -> str:
    added = (drawn.noisy.sum() / drawn.clean.sum()).item()
    return (
        f"expected work under noise of sigma {drawn.victim.sigma:g} within l2 {radius:.3g} of each "
        f"input; {drawn.samples} draws of each; noise alone takes the mean work to {added:.3f} "
        "times the clean one"
    )
