"""A piecewise linear network on a box, as a mixed-integer linear problem.

Tjeng, Xiao and Tedrake, "Evaluating Robustness of Neural Networks with Mixed Integer Programming",
ICLR 2019 (arXiv 1711.07356), equation 5: with pre-activation p in [l, u], l < 0 < u, the unit
a = max(p, 0) is a >= p, a >= 0, a <= u s, a <= p - l (1 - s) with s in {0, 1}. Units that cannot
change sign inside the box need no variable.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Form(NamedTuple):
    """Features that are affine in the variables: weight @ variables + bias."""

    weight: Array
    """(features, variables that there were when it was made)."""
    bias: Array
    """(features,)."""

    def rows(self, index: Array) -> Form:
        """Some of the features."""
        return Form(self.weight[index], self.bias[index])

    def linear(self, weight: Array, bias: Array | float) -> Form:
        """A linear layer behind it."""
        return Form(weight @ self.weight, weight @ self.bias + bias)

    def wide(self, variables: int) -> Array:
        """Its weight for so many variables."""
        return np.pad(self.weight, ((0, 0), (0, variables - self.weight.shape[1])))


class Relaxed(NamedTuple):
    """Units of a layer that may have either sign."""

    first: int
    """Index of the first one's variable."""
    before: Form
    """Their pre-activations."""
    lower: Array
    upper: Array


class Encoding:
    """Variables in boxes, some of them whole numbers, and rows that bound sums of them.

    Args:
        lower, upper: (N,), the box of the inputs.
        step: what one unit of an input's variable is worth.
        low: what an input's variable of 0 is worth.
    """

    def __init__(self, lower: Array, upper: Array, step: float = 1.0, low: float = 0.0) -> None:
        self.lower, self.upper = lower.astype(float), upper.astype(float)
        self.whole = np.zeros(len(lower), dtype=bool)
        self.inputs = Form(step * np.eye(len(lower)), np.full(len(lower), low))
        self.rows: list[tuple[Form, Array]] = []
        """Forms and what they must at least be, feature by feature."""
        self.layers: list[Relaxed] = []

    @property
    def size(self) -> int:
        """How many variables there are."""
        return len(self.lower)

    def new(self, lower: Array, upper: Array, whole: bool = False) -> Form:
        """Further variables, as features."""
        first, count = self.size, len(lower)
        self.lower = np.concatenate([self.lower, lower])
        self.upper = np.concatenate([self.upper, upper])
        self.whole = np.concatenate([self.whole, np.full(count, whole)])
        return Form(np.eye(count, first + count, first), np.zeros(count))

    def total(self, *terms: Form) -> Form:
        """The sum of forms of equally many features."""
        weight = np.sum([term.wide(self.size) for term in terms], axis=0)
        return Form(weight, np.sum([term.bias for term in terms], axis=0))

    def at_least(self, form: Form, least: Array | float = 0.0) -> None:
        """Each feature must be at least so much."""
        self.rows.append((form, np.broadcast_to(least, form.bias.shape)))

    def relu(self, form: Form) -> Form:
        """max(form, 0); adds two variables for each unit that may have either sign."""
        lower, upper = self.bounds(form)
        either = np.flatnonzero((lower < 0) & (upper > 0))
        keep = (lower >= 0).astype(float)
        out = Form(form.weight * keep[:, None], form.bias * keep)
        if not len(either):
            return out
        before, low, high = form.rows(either), lower[either], upper[either]
        self.layers.append(Relaxed(self.size, before, low, high))
        active = self.new(np.zeros(len(either)), high)
        sign = self.new(np.zeros(len(either)), np.ones(len(either)), whole=True)
        minus = _scaled(before, -np.ones(len(either)))
        self.at_least(self.total(active, minus))
        self.at_least(self.total(_scaled(sign, high), _scaled(active, -np.ones(len(either)))))
        # p - l (1 - s) - a >= 0
        self.at_least(self.total(before, _scaled(sign, low), _negative(active)), low)
        spread = np.zeros((len(form.bias), len(either)))
        spread[either, np.arange(len(either))] = 1
        return self.total(out, active.linear(spread, 0.0))

    def bounds(self, form: Form) -> tuple[Array, Array]:
        """(features,) twice: no input of the box takes a feature beyond them."""
        return -self._upper(_negative(form)), self._upper(form)

    def _upper(self, form: Form) -> Array:
        """The better of two: intervals of the variables, and linear bounds taken back to the box.

        Zhang et al., "CROWN", NeurIPS 2018 (arXiv 1811.00866): a <= u (p - l) / (u - l), and
        a >= p or 0, whichever leaves the smaller area.
        """
        weight, bias = form.wide(self.size), form.bias.copy()
        best = _largest(weight, self.lower, self.upper) + bias
        for layer in reversed(self.layers):
            units = slice(layer.first, layer.first + len(layer.lower))
            positive, negative = np.maximum(weight[:, units], 0), np.minimum(weight[:, units], 0)
            slope = layer.upper / (layer.upper - layer.lower)
            through = positive * slope + negative * (layer.upper > -layer.lower)
            weight[:, units] = 0
            weight += through @ layer.before.wide(self.size)
            bias += through @ layer.before.bias - positive @ (slope * layer.lower)
            best = np.minimum(best, _largest(weight, self.lower, self.upper) + bias)
        return best


def _scaled(form: Form, factors: Array) -> Form:
    return Form(form.weight * factors[:, None], form.bias * factors)


def _negative(form: Form) -> Form:
    return Form(-form.weight, -form.bias)


def _largest(weight: Array, lower: Array, upper: Array) -> Array:
    return np.maximum(weight, 0) @ upper + np.minimum(weight, 0) @ lower
