"""Linear bounds: the last exit that any input of a threat can reach.

Backward linear bounds (CROWN: Zhang et al., NeurIPS 2018, arXiv 1811.00866) of every value that a
ReLU or a max pooling decides on, from the input on, in float64: what a value is at least over all
inputs of the threat is led back, step by step, to a linear function of the input, whose least value
has a closed form. Beside the bounds of the exact network stand, explicitly, how far the deployed
one may round (an unknown error of every step, led back like the rest), and how far float64 may.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from effattack.certify.certificate import Certificate
from effattack.certify.chains import Chain
from effattack.certify.rounding import gamma
from effattack.certify.rows import Rows, both_ways, of_whole
from effattack.certify.steps import Given, Linear, Relaxed, Step, needed
from effattack.errors import NotApplicable
from effattack.threats import Threat
from effattack.threats.balls import L1, L2, Linf
from effattack.threats.base import SLACK
from effattack.victim import Victim

ROWS = 128
"""Functions that are led back together: what memory allows."""
SPARE = 4
"""Roundings of float64 per step beside those of its terms: relaxations, and sums of constants."""


def linear_bounds(victim: Victim, images: Tensor, threat: Threat) -> Certificate:
    """The most work of any input of a threat, by the last exit that can be reached.

    An exit is the last one where linear bounds prove that every input of the threat stops there at
    the latest; where none is proved to, the ceiling stands.

    Args:
        victim: a chain of stages or models (:meth:`~effattack.Victim.structure`) of convolutions,
            linear layers, batch norm, ReLU, pooling and residual sums, whose criterion tells
            ``surely_stops``: confidence, or the margin of the top two.
        images: (B, C, H, W).
        threat: a ball in l-inf, l2 or l1.

    Raises:
        NotApplicable: for another victim, criterion or threat, naming those that are covered.
    """
    started = time.perf_counter()
    threat = threat.on(victim.domain)
    chain = Chain.of(victim)
    with torch.no_grad():
        clean = victim.trace(images).macs.double().cpu()
        ceiling = victim.ceiling(threat.largest(images)).double().cpu()
        most = torch.stack(
            [
                _most(chain, box_of(image.double().cpu(), threat), float(work))
                for image, work in zip(images, clean, strict=True)
            ]
        )
    known = most < torch.inf
    return Certificate(
        kind="linear bounds",
        victim=victim.name,
        threat=str(threat),
        currency="macs",
        clean=clean,
        most=torch.where(known, most, ceiling),
        ceiling=ceiling,
        error=0.0,
        known=known,
        seconds=time.perf_counter() - started,
        note="in float64, with the rounding of the deployed network bounded",
    )


def _most(chain: Chain, box: Box, clean: float) -> Tensor:
    """Work of the first stage at which every input of a box is sure to have stopped; inf: none."""
    bounds = Bounds(chain.network.steps, box, chain.dtype)
    for stage, (number, work) in enumerate(zip(chain.logits, chain.costs, strict=False)):
        if work < clean:
            continue  # the clean input goes past it
        top = int(bounds.clean(number).argmax())
        if chain.criterion.surely_stops(bounds.behind(number, top), stage, bounds.slip(number)):
            return torch.tensor(work).double()
    return torch.tensor(torch.inf).double()


class Box:
    """The inputs around a clean one that a threat admits, and the least of functions of them."""

    def __init__(self, centre: Tensor, radius: Tensor, norm: Callable[[Tensor], Tensor]) -> None:
        self.centre, self.radius, self.norm = centre, radius, norm

    def least(self, rows: Rows) -> Tensor:
        """(P, R): what functions of the input are at least."""
        middle = (rows.weights * rows.over(self.centre)).sum((-3, -2, -1))
        return rows.constant + middle - self.norm(rows.weights * rows.over(self.radius))

    @property
    def size(self) -> Tensor:
        """(C, H, W): the largest absolute values."""
        return self.centre.abs() + self.radius


def box_of(image: Tensor, threat: Threat) -> Box:
    """Of an image (C, H, W) in float64; in l-inf, without what lies outside of the domain.

    Raises:
        NotApplicable: for a threat that is no ball.
    """
    norms: dict[type[Threat], Callable[[Tensor], Tensor]] = {
        Linf: lambda values: values.abs().sum((-3, -2, -1)),
        L2: lambda values: values.flatten(2).norm(dim=2),
        L1: lambda values: values.abs().amax((-3, -2, -1)),
    }
    norm = norms.get(type(threat))
    if norm is None or threat.name.endswith("@sd"):
        raise NotApplicable(
            f"linear bounds do not cover {threat}: they cover linf, l2 and l1, such as linf:1/255"
        )
    reach = threat.eps + SLACK
    if isinstance(threat, Linf):
        low = (image - reach).clamp_min(threat.domain.low - SLACK)
        high = (image + reach).clamp_max(threat.domain.high + SLACK)
        return Box((low + high) / 2, (high - low) / 2, norm)
    return Box(image, torch.full_like(image, reach), norm)


class Bounds:
    """What the values of a network can be over the inputs of a box, as computed in a precision.

    Args:
        steps: of the network, in order.
        box: of its input.
        dtype: what the deployed network computes in.
    """

    def __init__(self, steps: list[Step], box: Box, dtype: torch.dtype) -> None:
        self.steps, self.box, self.dtype = steps, box, dtype
        self._between: dict[int, tuple[Tensor, Tensor]] = {}
        self._size: dict[int, Tensor] = {}
        self._carried: dict[int, tuple[Tensor, int]] = {}
        self._clean: dict[int, Tensor] = {0: box.centre}

    def clean(self, number: int) -> Tensor:
        """(C, H, W): what a step gives for the centre of the box."""
        if number not in self._clean:
            step = self.steps[number]
            self._clean[number] = step(*map(self.clean, step.before))
        return self._clean[number]

    def behind(self, number: int, top: int) -> Tensor:
        """(classes,): by how much a class leads each other one in logits, at least; its own 0."""
        shape = self.steps[number].shape
        one = torch.eye(shape[0], dtype=self.box.centre.dtype)
        return self._least(number, of_whole(one[top] - one, shape), one[top] + one)[0]

    def slip(self, number: int) -> float:
        """How far the deployed criterion may be off, in units of the logits of a step."""
        largest = self._largest(number).max().item()
        return gamma(8 * (len(self._largest(number)) + 8), self.dtype) * (1 + largest)

    def between(self, number: int) -> tuple[Tensor, Tensor]:
        """The lower and the upper bounds (C, H, W) of what a step gives."""
        if number not in self._between:
            shape = self.steps[number].shape
            whole = both_ways(shape, self.box.centre)
            functions = whole.weights.shape[1]
            chunk = max(1, ROWS // len(whole.constant))
            found = []
            for first in range(0, functions, chunk):
                part = slice(first, first + chunk)
                rows = whole._replace(
                    weights=whole.weights[:, part], constant=whole.constant[:, part]
                )
                found.append(self._least(number, rows))
            least = torch.cat(found, dim=1).T.unflatten(1, shape[1:])
            slack = self._slack(number)
            low, high = least[: shape[0]] - slack, -least[shape[0] :] + slack
            self._between[number] = low, high
        return self._between[number]

    def _least(self, number: int, rows: Rows, sizes: Tensor | None = None) -> Tensor:
        """(P, R): what functions of what a step gives are at least.

        Args:
            sizes: (R, C), of whole functions of a vector: their coefficients' absolute values, for
                the rounding of float64.
        """
        pending = {number: rows}
        least = rows.constant
        for each in reversed(needed(self.steps, number)):
            step, mine = self.steps[each], pending.pop(each)
            if isinstance(step, Given):
                least = self.box.least(mine)
                break
            for below, under in self._led_back(each, step, mine):
                under = under.inside(self.steps[below].shape)
                pending[below] = pending[below].plus(under) if below in pending else under
        if sizes is not None:
            least = least - sizes @ self._slack(number).flatten()
        return least

    def _led_back(self, number: int, step: Step, rows: Rows) -> list[tuple[int, Rows]]:
        """Functions of what a step gives, as functions of what goes in."""
        if isinstance(step, Relaxed):
            return [(step.before[0], step.least(rows, *self.between(step.before[0])))]
        assert isinstance(step, Linear)
        strayed = gamma(step.terms, self.dtype) * self._terms(number)
        off = (rows.weights.abs() * rows.over(strayed)).sum((-3, -2, -1))
        first = step.back(rows._replace(constant=rows.constant - off))
        others = [first._replace(constant=torch.zeros_like(off)) for _ in step.before[1:]]
        return list(zip(step.before, [first, *others], strict=True))

    def _terms(self, number: int) -> Tensor:
        """(C, H, W): the absolute values of all terms of each value of a step, added up."""
        step = self.steps[number]
        return step.largest(*map(self._largest, step.before))

    def _largest(self, number: int) -> Tensor:
        """(C, H, W): the largest absolute values of what the deployed step gives."""
        if number not in self._size:
            step = self.steps[number]
            if isinstance(step, Given):
                size = self.box.size
            elif isinstance(step, Linear):
                size = self._terms(number) * (1 + gamma(step.terms, self.dtype))
            else:
                low, high = self.between(step.before[0])
                size = step.largest(torch.maximum(low.abs(), high.abs()))
            self._size[number] = size
        return self._size[number]

    def _slack(self, number: int) -> Tensor:
        """(C, H, W): how far float64 may stray on the way back from each value to the input.

        No coefficient or constant exceeds the sum of the absolute values of all paths, which is
        what the steps give with absolute weights: relaxations have slopes of at most 1.
        """
        carried, roundings = self._carried_to(number)
        return gamma(2 * roundings, torch.float64) * carried

    def _carried_to(self, number: int) -> tuple[Tensor, int]:
        if number not in self._carried:
            step = self.steps[number]
            if isinstance(step, Given):
                self._carried[number] = self.box.size, SPARE
            else:
                sizes, counts = zip(*map(self._carried_to, step.before), strict=True)
                own = step.terms if isinstance(step, Linear) else 0
                self._carried[number] = step.largest(*sizes), max(counts) + own + SPARE
        return self._carried[number]
