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
from effattack.victim.around import declared
from effattack.victim.contract import Victim
from effattack.victim.draws import OverDraws
from effattack.victim.trace import Ran, Trace


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
        seed: int | str = 0,
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

    def seeded(self, seed: int | str) -> Smoothed:
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
        inside = self.victim.searched(seed)
        found = self if inside is self.victim else self.around(inside)
        return OverDraws(self, [found.seeded(f"search {seed} {k}") for k in range(self.draws)])

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


def _drawn(text: str) -> Generator:
    """A generator that a text stands for."""
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
    return Generator().manual_seed(number)
