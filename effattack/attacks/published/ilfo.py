"""ILFO: the smallest change that moves every gate to where it computes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from effattack.attacks.objectives import Goal, require_gates
from effattack.attacks.searches.penalised import Penalised, PenalisedAttack, Pull
from effattack.victim import Trace, Victim


@dataclass(frozen=True)
class DesiredStates(Pull):
    """- c · f, f the distance of the gates from where they compute: Σ max(κ - margin, 0).

    Over the gates that were reached, all of the same weight.

    Args:
        weight: c.
        kappa: κ in units of the margins, what is safe from rounding.
    """

    weight: float
    kappa: float

    def check(self, trace: Trace, victim: Victim) -> None:
        require_gates(trace, victim)

    def __call__(self, trace: Trace, goal: Goal) -> Tensor:
        distance = torch.zeros_like(trace.gates[0].margin[:, 0])
        for gate in trace.gates:
            missing = (self.kappa - gate.margin).clamp_min(0) * gate.reached
            distance = distance + missing.sum(1)
        return -self.weight * distance


class ILFO(PenalisedAttack):
    """Minimises ‖x' - x‖² + c · f(x'), f the distance from the desired intermediate states.

    Haque, Chauhan, Liu, Yang: "ILFO: Adversarial Attack on Adaptive Neural Networks", CVPR 2020;
    there on SkipNet, whose gate values it moves, and on SACT, whose ponder cost it moves. The form
    is that of Carlini and Wagner, "Towards Evaluating the Robustness of Neural Networks", S&P 2017
    (arXiv 1608.04644).

    The state of a gate is its margin, so that the attack applies to every victim with gates. The
    paper sets no budget: neither does the attack, unless one is given.

    Official code: none found. Written from the formulation; c, κ, steps and learning rate are ours.
    Divergences: pixels are clipped, where Carlini and Wagner optimise their inverse tanh and search
    for c; the best iterate by executed MACs is returned; iterates are rounded to 8 bits.

    Args:
        victim: any victim with gates: early exits, cascades, layer skipping, adaptive tokens.
        eps: l-inf budget in [0, 1] pixels; None: the pixel box alone, as in the paper.
        threat: another budget in place of ``eps``.
        steps: gradient evaluations.
        rate: learning rate of Adam, in [0, 1] pixels.
        weight: c.
        kappa: κ in units of the margins.
        seed: of the place of a patch; nothing else is drawn.

    Raises:
        NotApplicable: for a victim without gates.
    """

    steps: int = 100
    rate: float = 0.01
    weight: float = 1000.0
    kappa: float = 0.05

    def composed(self) -> tuple[Pull, Penalised]:
        return DesiredStates(self.weight, self.kappa), Penalised(self.steps, self.rate, weight=1.0)
