"""Gradients reach the input from everything that attacks go through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from effattack.budgets import LEVELS
from effattack.domains import Arrays, Batch, Domain, Parts
from effattack.domains.base import tensors
from effattack.errors import GradientError
from effattack.victim import Trace, Victim
from effattack.victim.checks.blame import first_of, per_image
from effattack.victim.door import in_words
from effattack.victim.rounding import on_knife_edge
from effattack.victim.twins import quantized
from effattack.victim.undisturbed import undisturbed

EXCESS = 3.0
"""How many times more a value may move than its gradient tells: 0.3 is the most in the zoo."""


def check_gradients(victim: Victim, batch: Batch) -> list[str]:
    """Invariant 4: gradients reach the input from the logits and from every gate.

    And they are those of the values: where every pixel changes by one grey level (every sample of a
    series by a 255th of its range), up or down at random, a value moves by no more than ``EXCESS``
    times the most that its gradient allows such a change. A value that was detached and given
    another gradient does; a straight-through estimator does not. Outputs that list what was found
    (boxes, matches) are not held to that, their gates are.

    Words have no gradients: a victim that lifts them owes gradients in its leaf, and takes the same
    decisions with it as without; to one that does not lift them, this does not apply.

    Returns:
        one warning for each of them whose gradient is zero over the whole batch. (An ``Opaque``
        model or quantized weights without a gradient are one, too: query attacks need none.)

    Raises:
        GradientError: a ContractError, where the gradient is missing, NaN, infinite or another's.
    """
    warnings, noun = [], victim.domain.noun
    if not (victim.domain.smooth or victim.lifts):
        return []
    with undisturbed(victim):
        leaves, trace = _with_leaves(victim, batch)
        sources = _sources(trace)
        words = dict.fromkeys(("tokens", "graph"), "the leaf")
        target = {"pixels": "the pixels", **words}.get(victim.domain.kind, "the input")
        arrays = isinstance(victim.domain, Arrays)
        moved = _moved(victim, batch) if arrays else [None] * len(sources)
        for source, change in zip(sources, moved, strict=True):
            with in_words(f"{victim.name}: trace"):
                gradient = source.gradient(leaves)
            if gradient is None and (victim.sees == "answers" or quantized(victim)):
                warnings.append(f"{victim.name}: no gradient: only query attacks apply")
            elif gradient is None:
                raise GradientError(
                    f"{victim.name}: no gradient from {source.name} reaches {target}: compute it "
                    "in trace() without detach, no_grad or integer kernels (quantized layers need "
                    "a straight-through estimator)"
                )
            elif not torch.isfinite(gradient).all():
                index = first_of(~torch.isfinite(gradient))
                raise GradientError(
                    f"{victim.name}: {noun} {index}: the gradient from {source.name} is NaN or "
                    "infinite: look for 0 * log 0, a norm at 0 or a division by 0 in trace()"
                )
            elif change is not None and (untold := source.untold(gradient, change, victim.domain)):
                raise GradientError(f"{victim.name}: {untold}")
            elif source.reached.any() and not gradient.any():
                warnings.append(
                    f"{victim.name}: the gradient from {source.name} is zero over all "
                    f"{len(batch)} {victim.domain.nouns}: attacks through it are blind; "
                    "bound margins without saturating them"
                )
    return warnings


class _Source(NamedTuple):
    """What attacks take gradients of."""

    name: str
    values: Tensor
    """(B, ...) floats."""
    reached: Tensor
    """Same shape, bool."""
    eps: float
    """Of the precision that they were computed in."""

    @property
    def weights(self) -> Tensor:
        """Of a mean over the reached values, at random: a plain one may be constant (Σ s = 1)."""
        generator = Generator().manual_seed(0)
        drawn = 0.5 + torch.rand(self.values.shape, generator=generator).to(self.values)
        return (
            drawn
            * self.reached
            / per_image(self.reached).sum(1).clamp_min(1).view(-1, *[1] * (self.values.dim() - 1))
        )

    def gradient(self, leaves: list[Tensor]) -> Tensor | None:
        """Of that mean, in all leaves that it reaches: (B, n)."""
        if not self.values.requires_grad:
            return None
        mixture = (self.values * self.weights).sum()
        found = torch.autograd.grad(mixture, leaves, retain_graph=True, allow_unused=True)
        reached = [per_image(gradient) for gradient in found if gradient is not None]
        return torch.cat(reached, 1) if reached else None

    def untold(self, gradient: Tensor, change: Tensor, domain: Any) -> str:
        """What most inputs moved by, and their gradient does not tell of; empty if it does."""
        seen = per_image(self.reached).any(1)
        moved = per_image(change * self.weights).sum(1).abs()
        told = per_image(gradient).abs().sum(1) * (domain.high - domain.low) / LEVELS
        rounding = 100 * self.eps * per_image(self.values).abs().amax(1)
        hidden = seen & (moved > EXCESS * told + rounding)
        if 2 * hidden.sum() <= seen.sum():
            return ""
        index = first_of(hidden)
        grey = "pixel changed by a grey level"
        little = grey if domain.kind == "pixels" else "value changed by a 255th of its range"
        return (
            f"{domain.noun} {index}: {self.name} moved by {moved[index]:.2g} when each {little}, "
            f"of which its gradient allows {told[index]:.2g} at most: it is not the "
            "gradient of this value; compute both in trace() without detach or no_grad"
        )


def _with_leaves(victim: Victim, batch: Batch) -> tuple[list[Tensor], Trace]:
    """What gradients are taken in, and the trace that leads to it."""
    given = batch.detach().clone()
    leaves = [part.requires_grad_() for part in tensors(given) if part.is_floating_point()]
    words = _words(victim.domain, given) if victim.lifts else None
    if words is None:
        return leaves, victim.trace(given)
    places = torch.arange(words.shape[1], device=words.device).expand(len(words), -1)
    leaf = victim.lift(words, places)
    rows = leaf.rows.detach().requires_grad_()
    lifted: Callable[..., Trace] = victim.trace
    trace = lifted(given, leaf=leaf._replace(rows=rows))
    _expect_equal(victim, trace, victim.trace(batch))
    return [*leaves, rows], trace


def _words(domain: Domain, batch: Batch) -> Tensor | None:
    """The ids that a victim lifts: of the first part of tokens, where there are several parts."""
    if isinstance(domain, Parts):
        parts = (_words(part, batch[name]) for name, part in domain.parts.items())
        return next((words for words in parts if words is not None), None)
    return batch if domain.kind in ("tokens", "graph") else None


def _expect_equal(victim: Victim, lifted: Trace, plain: Trace) -> None:
    """Words that were lifted and not moved are what they were.

    Raises:
        GradientError: naming the first input whose work differs.
    """
    apart = (lifted.macs != plain.macs) & ~(on_knife_edge(lifted) | on_knife_edge(plain))
    if apart.any():
        raise GradientError(
            f"{victim.name}: {victim.domain.noun} {first_of(apart)}: with lift() and without, "
            "trace() states different MACs: read the leaf's rows in its places, as they are"
        )


def _sources(trace: Trace) -> list[_Source]:
    """The outputs, unless they are whole numbers, and every gate."""
    eps = torch.finfo(trace.dtype or trace.macs.dtype).eps
    gates = [_Source(f"gate {g.name}", g.margin, g.reached, eps) for g in trace.gates]
    if not trace.logits.is_floating_point():
        return gates
    everything = torch.isfinite(trace.logits)
    return [_Source("the logits", trace.logits, everything, eps), *gates]


def _moved(victim: Victim, batch: Batch) -> list[Tensor | None]:
    """Of each source, half of what it moves by between two inputs that lie around each input.

    None of outputs that list what was found: members come and go at once, and no gradient tells.
    """
    domain: Any = victim.domain
    generator = Generator().manual_seed(0)
    signs = torch.randint(0, 2, batch.shape, generator=generator).to(batch) * 2 - 1
    with torch.no_grad():
        above, below = (
            _sources(victim.trace((batch + reach * signs / LEVELS).clamp(domain.low, domain.high)))
            for reach in (domain.high - domain.low, domain.low - domain.high)
        )
    lists = {"the logits"} if victim.task.padding is not None else set()
    return [
        None if a.name in lists else (a.values - b.values) / 2
        for a, b in zip(above, below, strict=True)
    ]
