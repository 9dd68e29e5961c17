"""The worst mixture against closed forms and against a solver that knows no tilt."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from effattack.errors import UsageError
from effattack.results.mixture import worst_mixture

COSTS = st.lists(st.integers(-40, 40), min_size=2, max_size=6)


def divergence(weights: np.ndarray, usual: np.ndarray) -> float:
    used = weights > 0
    return float((weights[used] * np.log(weights[used] / usual[used])).sum())


@pytest.mark.parametrize("seed", range(4))
def test_no_solver_finds_a_worse_one(seed: int) -> None:
    draw = np.random.default_rng(seed)
    costs, usual, kappa = draw.normal(size=5), draw.dirichlet(np.full(5, 3.0)), 0.3
    found = worst_mixture(costs, kappa, usual)
    solved = minimize(
        lambda q: -q @ costs,
        usual,
        jac=lambda q: -costs,
        bounds=[(1e-12, 1)] * 5,
        constraints=[
            {"type": "eq", "fun": lambda q: q.sum() - 1},
            {"type": "ineq", "fun": lambda q: kappa - divergence(q, usual)},
        ],
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert solved.success
    assert found.weights @ costs == pytest.approx(-solved.fun, abs=1e-6)
    assert found.weights == pytest.approx(solved.x, abs=1e-3)


def test_of_two_kinds_by_hand() -> None:
    """Weights (q, 1 - q) of divergence κ from (½, ½): κ = log 2 - H(q)."""
    weight = 0.9
    kappa = np.log(2) + weight * np.log(weight) + (1 - weight) * np.log(1 - weight)
    assert worst_mixture([3.0, 1.0], kappa).weights == pytest.approx([0.9, 0.1])
    assert worst_mixture([1.0, 300.0], kappa).weights == pytest.approx([0.1, 0.9])


def test_a_budget_of_nothing_and_one_of_all() -> None:
    usual = [0.5, 0.2, 0.3]
    assert worst_mixture([1, 2, 3], 0, usual).weights == pytest.approx(usual)
    assert worst_mixture([1, 2, 3], 9, usual).weights.tolist() == [0, 0, 1]
    tied = worst_mixture([1, 3, 3], 9, usual)
    assert tied.weights == pytest.approx([0, 0.4, 0.6])
    assert tied.divergence == pytest.approx(np.log(2))
    assert worst_mixture([2, 2, 2], 0.1, usual).weights == pytest.approx(usual)


@given(costs=COSTS, kappa=st.floats(0.01, 3))
def test_it_keeps_to_the_budget_and_uses_it(costs: list[int], kappa: float) -> None:
    usual = np.full(len(costs), 1 / len(costs))
    found = worst_mixture(costs, kappa)
    assert found.weights.sum() == pytest.approx(1)
    assert divergence(found.weights, usual) == pytest.approx(found.divergence, abs=1e-9)
    dearest = np.log(len(costs) / costs.count(max(costs)))
    assert found.divergence == pytest.approx(min(kappa, dearest), abs=1e-6)
    more = worst_mixture(costs, 2 * kappa)
    assert more.weights @ costs >= found.weights @ costs - 1e-9
    assert found.weights @ costs >= np.mean(costs) - 1e-9


@pytest.mark.parametrize(
    ("costs", "kappa", "usual"),
    [
        ([1.0, float("nan")], 0.1, None),
        ([], 0.1, None),
        ([1.0, 2.0], -0.1, None),
        ([1.0, 2.0], float("nan"), None),
        ([1.0, 2.0], 0.1, [1.0, 0.0]),
        ([1.0, 2.0], 0.1, [0.5, 0.2]),
        ([1.0, 2.0], 0.1, [1.0]),
    ],
)
def test_what_is_no_mixture_is_refused(
    costs: list[float], kappa: float, usual: list[float] | None
) -> None:
    with pytest.raises(UsageError, match="give"):
        worst_mixture(costs, kappa, usual)
