"""Verbose Images: a model does not stop writing about an image; its terms follow the steps."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import NamedTuple

import torch
from torch import Tensor

from effattack.attacks.base import GradientAttack
from effattack.attacks.objectives import Goal, Objective
from effattack.attacks.published.generators_losses import Verbose, VerboseTerms
from effattack.attacks.searches.memory import Memory
from effattack.attacks.searches.parts import changed_parts
from effattack.attacks.searches.projected import ProjectedGradient, constant, input_gradient
from effattack.threats.arrays import on_arrays
from effattack.victim import Trace

TURNS = ((10.0, -20.0), (0.5, 1.0))
"""a and b of T_j(t) = a ln t + b, of the end token and of the diversity; t counts from 1."""
KEPT = 0.9
"""How much of the last weights is kept."""


class VerboseImages(GradientAttack):
    """The three terms of Verbose Images along signs of the gradient, weighted anew at every step.

    Gao et al., "Inducing High Energy-Latency of Large Vision-Language Models with Verbose Images",
    ICLR 2024 (arXiv 2401.11170); official code KuofengGao/Verbose_Images, commit 8658c87. The end
    token late, every step unsure, states diverse: :class:`.generators_losses.VerboseTerms`, whose
    weights follow the steps: :class:`InTime`.

    Divergences: the budget is in pixels, where the paper has it (code: of normalised values, about
    2/255); the start is a point of the budget (code: normal noise outside of it); states are those
    that tokens are drawn from, as they are (code: the absolute values of all layers, of what was
    read, too); L_unc is a mean over steps (code: their sum, a common factor of all weights but for
    the tenth part that is new); the text that is read again is the one that the iterate leads to
    (code: the longest of three sampled ones); the best iterate by executed work is returned (code:
    the longest on average of three samples, over all iterates).

    Args:
        victim: one that writes text of what it sees or hears.
        eps: l-inf budget in [0, 1] pixels.
        threat: another budget in place of ``eps``; of several parts, one in arrays alone:
            ``"image:linf:8/255"``.
        steps: gradient evaluations.
        step_size: as a share of the budget; .125 is theirs, 1/255, of 8/255.
        seed: of the random start.

    Raises:
        NotApplicable: for a victim that writes no text, or a threat that changes words, for which
            ``VerboseSamples`` has the same terms.
    """

    takes = "arrays or parts"

    steps: int = 1000
    step_size: float = 0.125

    def composed(self) -> tuple[Objective, ProjectedGradient]:
        if self.victim.domain.kind == "parts":
            for threat in changed_parts(self.threat).values():
                on_arrays(threat)
        return Verbose(), InTime(self.steps, constant(self.step_size))


@dataclass(frozen=True)
class InTime(ProjectedGradient):
    """Uphill along − L_unc − λ₁ L_end + λ₂ ‖H‖_*, the weights following the steps.

    At step t they are λ_j = .9 λ_j of the step before + .1 |L_unc / (L_j · T_j(t))|, at the first
    the fraction alone, without a gradient.
    """

    def memory(self, start: Tensor) -> Memory:
        return Balance(torch.zeros_like(start), start.new_zeros(len(start), 2), 0)

    def after(
        self,
        memory: Memory,
        inputs: Tensor,
        trace: Trace,
        value: Tensor,
        objective: Objective,
        goal: Goal,
    ) -> Memory:
        assert isinstance(memory, Balance)
        terms = VerboseTerms()(trace, goal)
        memory = memory.weighing(terms.detach())
        return memory.after(input_gradient(memory.uphill(terms), inputs, trace))


class Balance(NamedTuple):
    """The last direction, and the weights of the steps so far."""

    along: Tensor
    scales: Tensor
    """(B, 2): log λ_j."""
    seen: int
    """Steps."""

    def weighing(self, terms: Tensor) -> Balance:
        """One step on, at the logarithms (B, 3) of L_unc, L_end and ‖H‖_*."""
        turns = terms.new_tensor([log(abs(a * log(self.seen + 1) + b)) for a, b in TURNS])
        now = terms[:, :1] - terms[:, 1:] - turns
        if self.seen:
            now = torch.logaddexp(self.scales + log(KEPT), now + log(1 - KEPT))
        return self._replace(scales=now, seen=self.seen + 1)

    def uphill(self, terms: Tensor) -> Tensor:
        """(B,): what has the gradient of the weighted sum, up to a factor of each input.

        That of L_j is L_j times that of log L_j, so a term weighs λ_j L_j; the softmax divides all
        three by their sum.
        """
        shares = torch.cat([terms[:, :1], self.scales + terms[:, 1:]], 1).detach().softmax(1)
        return (terms * shares * terms.new_tensor([-1, -1, 1])).sum(1)

    def after(self, gradient: Tensor) -> Balance:
        return self._replace(along=gradient)

    def direction(self) -> Tensor:
        return self.along

    def rows(self, index: Tensor) -> Balance:
        return self._replace(along=self.along[index], scales=self.scales[index])
