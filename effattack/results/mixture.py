"""The worst mixture of a few kinds of inputs, within a divergence of how they usually mix.

Distributionally robust optimisation asks for the worst of all distributions near the usual one.
Michel, Hashimoto and Neubig, "Modeling the Second Player in Distributionally Robust Optimization",
ICLR 2021 (arXiv 2103.10282), let a parametric model be that distribution, under a bound on its
Kullback-Leibler divergence. Here the model is a softmax over a few kinds (clean, each shift), which
holds every mixture of them, so that the worst one has a closed form and nothing is relaxed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import log_softmax

from effattack.errors import UsageError


class Mixture(NamedTuple):
    """How often inputs are of each kind."""

    weights: NDArray[np.float64]
    """(kinds,), of sum 1."""
    divergence: float
    """From the usual mixture, in nats: Σ q log(q / p)."""


def worst_mixture(costs: ArrayLike, kappa: float, usual: ArrayLike | None = None) -> Mixture:
    """The mixture of the highest expected cost: argmax of Σ q c subject to KL(q ‖ p) <= κ.

    It is an exponential tilt, q ∝ p exp(c / τ), with the τ at which the budget is used up; where
    the budget is enough for it, all weight is on the dearest kinds.

    Args:
        costs: (kinds,), the mean cost of an input of each.
        kappa: κ in nats, at least 0.
        usual: (kinds,) p, how inputs usually mix; by default evenly.

    Raises:
        UsageError: for costs that are no finite numbers, a negative κ, or a mixture that is none.
    """
    cost = np.asarray(costs, float)
    if cost.ndim != 1 or not cost.size or not np.isfinite(cost).all() or not kappa >= 0:
        raise UsageError(f"costs = {costs!r}, kappa = {kappa}: give finite numbers, and 0 or more")
    prior = np.full(len(cost), 1 / len(cost)) if usual is None else np.asarray(usual, float)
    if prior.shape != cost.shape or not (prior > 0).all() or abs(prior.sum() - 1) > 1e-9:
        raise UsageError(f"usual = {usual!r}: give a positive share for each cost, in all 1")
    dearest = cost == cost.max()
    most = -np.log(prior[dearest].sum())
    if kappa == 0:
        return Mixture(prior, 0.0)
    if kappa >= most:
        return Mixture(np.where(dearest, prior, 0) / prior[dearest].sum(), float(most))
    unit = (cost - cost.max()) / np.ptp(cost)
    far = 1.0
    while _divergence(far, unit, prior) < kappa:
        far *= 2
    steepness = brentq(lambda s: _divergence(s, unit, prior) - kappa, 0, far, xtol=1e-12)
    weights = np.exp(_tilted(steepness, unit, prior))
    return Mixture(weights, _divergence(steepness, unit, prior))


def _tilted(steepness: float, cost: NDArray, prior: NDArray) -> NDArray:
    """Log-weights of the tilt."""
    return log_softmax(np.log(prior) + steepness * cost)


def _divergence(steepness: float, cost: NDArray, prior: NDArray) -> float:
    """Of the tilt, from the usual mixture; it grows with the steepness."""
    weights = _tilted(steepness, cost, prior)
    return float((np.exp(weights) * (weights - np.log(prior))).sum())
