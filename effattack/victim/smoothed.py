"""A victim with noise at its door: randomised, so that its expected cost can be certified.

Noise N(0, σ²) is added to every value of an input before the model sees it, as the deployed system
would: not clamped to the range of the domain, not rounded to its grid. One draw per request; the
work is that of the model inside on the noisy input. What can be certified of that:
:mod:`effattack.certify.smoothing`.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Generator, Tensor

from effattack.domains import Arrays, Batch
from effattack.errors import NotApplicable, UsageError, expect_least
from effattack.tasks import Classes
from effattack.victim.around import declared
from effattack.victim.contract import Victim
from effattack.victim.trace import Gate, Ran, Trace


class Smoothed(Victim):
    """A victim that adds Gaussian noise to its inputs.

    The noise of an input is fixed by the seed and the input's digest, alike in both paths and in
    every batch: contract and audit hold for each seed. Searches take draws of their own, and means
    over several (:meth:`searched`); the input that they return is judged on a draw that none of
    them has used.

    Args:
        victim: of images or series.
        sigma: σ, in the unit of the inputs: of images in [0, 1] pixels.
        seed: of the deployed noise.
        draws: that searches average over.
        name: by default the victim's, and ``_smoothed``.

    Raises:
        UsageError: for σ that is not positive and finite, or less than one draw.
        NotApplicable: for a victim of other inputs: noise needs neighbours.
    """

    def __init__(
        self,
        victim: Victim,
        sigma: float,
        *,
        seed: int = 0,
        draws: int = 8,
        name: str | None = None,
    ) -> None:
        if not isinstance(victim.domain, Arrays):
            raise NotApplicable(
                f"{victim.name} takes {victim.domain.nouns}, to which no noise can be added: "
                "Smoothed takes victims of images and of series"
            )
        if not (math.isfinite(sigma) and sigma > 0):
            raise UsageError(
                f"sigma = {sigma}: give a positive number in the unit of the inputs, such as .1; "
                "without noise nothing is smoothed"
            )
        expect_least("draws", draws, 1)
        super().__init__(**declared(victim, name=name or f"{victim.name}_smoothed"))
        self.sees, self.counted = victim.sees, victim.counted
        self.victim, self.sigma, self.seed, self.draws = victim, float(sigma), seed, draws
        self.by_input = True

    def seeded(self, seed: int) -> Smoothed:
        """The same system under other noise."""
        return Smoothed(self.victim, self.sigma, seed=seed, draws=self.draws, name=self.name)

    def forward(self, batch: Batch) -> Tensor:
        return self.victim(self.noisy(batch, f"{self.seed}"))

    def trace(self, batch: Batch) -> Trace:
        return self.victim.trace(self.noisy(batch, f"{self.seed}"))

    def noisy(self, batch: Tensor, key: str) -> Tensor:
        """Inputs with the noise that a key stands for; differentiable, same shape.

        Noise is drawn in float32 whatever the precision, so that the same victim in double
        precision sees the same.
        """
        digests = self.domain.fingerprints(batch) if self.by_input else [""] * len(batch)
        noise = [torch.randn(batch.shape[1:], generator=_drawn(f"{key} {d}")) for d in digests]
        return batch + self.sigma * torch.stack(noise).to(batch)

    def searched(self, seed: int) -> Victim:
        """Means over as many draws as ``draws`` says, none of which is one of the deployed system.

        Choosing inputs by the draw on which they are judged would be choosing luck.
        """
        return OverDraws(self, seed)

    def ceiling(self, batch: Batch, count: str = "macs") -> Tensor:
        return self.victim.ceiling(batch, count)

    def in_float64(self) -> Smoothed | None:
        inside = self.victim.in_float64()
        return None if inside is None else self.around(inside)

    def around(self, victim: Victim) -> Smoothed:
        """The same noise before another victim."""
        found = Smoothed(victim, self.sigma, seed=self.seed, draws=self.draws, name=self.name)
        found.by_input = self.by_input
        return found

    @property
    def checked(self) -> Smoothed | None:
        """With one noise for all inputs, before what the victim inside is checked on.

        A gradient is that of one draw: a change of the input must not bring another.
        """
        if (inside := self.victim.checked) is None:
            return None
        fixed = self.around(inside)
        fixed.by_input = False
        return fixed

    @property
    def queried(self) -> Victim:
        inside = self.victim.queried
        return self if inside is self.victim else self.around(inside)

    def ran(self, single: Batch) -> Ran | None:
        """What an artefact inside did with a noisy input."""
        if type(self.victim).ran is Victim.ran:
            return None
        return self.victim.ran(self.noisy(single, f"{self.seed}"))

    @property
    def correction(self) -> str:
        return self.victim.correction


class OverDraws(Victim):
    """A smoothed victim as searches see it: work is a mean over draws, and so are gradients.

    Every gate has the units of all draws, each at its share of the cost; so an objective that sums
    over units is a mean over draws (expectation over transformation; Athalye et al., ICML 2018,
    arXiv 1707.07397). Logits, those of stages and what losses of papers read (``aux``) are means;
    such losses read gates unit by unit, so where there are any, margins are means, too, over the
    draws in which a decision was reached.

    Args:
        smoothed: the victim.
        seed: of the search; its draws differ from those of any deployed seed.
    """

    def __init__(self, smoothed: Smoothed, seed: int) -> None:
        super().__init__(**declared(smoothed))
        self.sees, self.counted = smoothed.sees, smoothed.counted
        self.smoothed, self.seed = smoothed, seed

    def forward(self, batch: Batch) -> Tensor:
        return self.smoothed.victim(self._noisy(batch, 0))

    def trace(self, batch: Batch) -> Trace:
        inside = self.smoothed.victim
        return joined(
            [inside.trace(self._noisy(batch, k)) for k in range(self.smoothed.draws)],
            averages=isinstance(self.task, Classes),
        )

    def ceiling(self, batch: Batch, count: str = "macs") -> Tensor:
        return self.smoothed.ceiling(batch, count)

    def _noisy(self, batch: Tensor, draw: int) -> Tensor:
        return self.smoothed.noisy(batch, f"search {self.seed} {draw}")


def joined(traces: list[Trace], *, averages: bool) -> Trace:
    """One trace of the same inputs in several draws: their gates, and means of all else.

    Args:
        traces: one per draw.
        averages: whether outputs are numbers that have a mean; else the first draw's stand.
    """
    first = traces[0]
    gate = _mean_gate if first.aux else _beside
    stages = [trace.stage_logits for trace in traces if trace.stage_logits is not None]
    slacks = [trace.slack for trace in traces if trace.slack is not None]
    return first._replace(
        logits=_mean([trace.logits for trace in traces]) if averages else first.logits,
        gates=tuple(map(gate, zip(*(trace.gates for trace in traces), strict=True))),
        macs=_mean([trace.macs for trace in traces]),
        stage_logits=_mean(stages) if stages else None,
        aux={key: _mean([trace.aux[key] for trace in traces]) for key in first.aux},
        also={key: _mean([trace.also[key] for trace in traces]) for key in first.also},
        slack=torch.stack(slacks).amin(0) if slacks else None,
    )


def _mean_gate(draws: tuple[Gate, ...]) -> Gate:
    """Active where it is in half of the draws or more."""
    counted = torch.stack([gate.reached | gate.pushed for gate in draws])
    margins = torch.stack([gate.margin for gate in draws]).where(counted, 0)
    active = torch.stack([gate.active for gate in draws]).double().mean(0) >= 0.5
    return draws[0]._replace(
        margin=margins.sum(0) / counted.sum(0).clamp(min=1),
        active=active,
        reached=torch.stack([gate.reached for gate in draws]).any(0),
    )


def _beside(draws: tuple[Gate, ...]) -> Gate:
    shares = 1 / len(draws)
    costs = [torch.as_tensor(g.cost).to(g.margin).expand_as(g.margin) * shares for g in draws]
    return draws[0]._replace(
        margin=torch.cat([gate.margin for gate in draws], 1),
        active=torch.cat([gate.active for gate in draws], 1),
        reached=torch.cat([gate.reached for gate in draws], 1),
        cost=torch.cat(costs, 1),
    )


def _mean(values: list[Tensor]) -> Tensor:
    if not values[0].is_floating_point():
        return values[0]
    return torch.stack(values).mean(0)


def _drawn(text: str) -> Generator:
    """A generator that a text stands for."""
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
    return Generator().manual_seed(number)
