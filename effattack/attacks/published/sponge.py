"""Sponge examples: inputs on which the activations are large and dense."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Generator, Tensor

from effattack.attacks.base import Attack, GradientAttack
from effattack.attacks.objectives import BatchGoal, Goal, Objective
from effattack.attacks.searches.activations import Activations, density, total_norm, why_unseen
from effattack.attacks.searches.evolution import Evolution
from effattack.attacks.searches.projected import ProjectedGradient, cosine
from effattack.errors import NotApplicable
from effattack.threats import ArrayThreat, Box, Threat
from effattack.victim import Trace, Victim


@dataclass(frozen=True)
class _OfActivations:
    """An objective on what was heard while the trace was made."""

    heard: Activations = field(default_factory=Activations)

    def check(self, trace: Trace, victim: Victim) -> None:
        if reason := why_unseen(victim):
            raise NotApplicable(reason)


class ActivationNorm(_OfActivations):
    """Σ ‖a‖₂ over activation layers a."""

    def __call__(self, trace: Trace, goal: Goal) -> Tensor:
        return total_norm(self.heard.take(len(trace.logits)))


class ZeroSkippingMacs(_OfActivations):
    """Executed MACs times the density of the activations; it has no gradient.

    Roughly the work of an accelerator that skips zeros. It is a staircase: between equal steps the
    norms decide, worth less than one MAC.
    """

    def __call__(self, trace: Trace, goal: Goal) -> Tensor:
        layers = self.heard.take(len(trace.logits))
        norm = total_norm(layers).double()
        return trace.macs * density(layers) + norm / (1 + norm)


class Sponge(GradientAttack):
    """Raises the norms of all activations by projected gradient, starting from noise.

    Shumailov, Zhao, Bates, Papernot, Mullins, Anderson: "Sponge Examples: Energy-Latency Attacks on
    Neural Networks", EuroS&P 2021 (arXiv 2006.03463); the white-box attack on vision: maximise
    Σ ‖a_l‖₂ over the activations a_l of every layer. It aims at accelerators that skip zeros and
    knows nothing of gates: on adaptive victims it is a rival to be measured, and a near-uniform
    image (``uniform``) is the rival that it must beat itself.

    The paper sets no budget: neither does the attack, unless one is given.

    Official code: https://github.com/iliaishacked/sponge_examples (MIT). Divergences: it uses
    L-BFGS, here projected gradient; activations are the outputs of activation modules, of skipped
    work too; the best iterate by executed MACs is returned, the norm deciding between equal ones;
    iterates are rounded to 8 bits. Step size and number of steps are ours.

    Args:
        victim: any model with activation modules.
        eps: l-inf budget in [0, 1] pixels; None: the pixel box alone, as in the paper.
        threat: another budget in place of ``eps``.
        steps: gradient evaluations.
        step_size: of the first step, as a share of the budget.
        seed: of the random start.

    Raises:
        NotApplicable: for a victim whose activations cannot be seen.
    """

    steps: int = 50
    step_size: float = 0.1

    @classmethod
    def usual(cls, victim: Victim) -> Threat:
        return Box()

    def composed(self) -> tuple[Objective, ProjectedGradient]:
        self.wanted = ActivationNorm()
        return self.wanted, ProjectedGradient(self.steps, cosine(self.step_size))

    @classmethod
    def why_not(cls, victim: Victim) -> str | None:
        return why_unseen(victim)

    def run(self, clean: Tensor, goal: Goal, generator: Generator) -> Tensor:
        with self.wanted.heard.listening(self.victim):
            heard = BatchGoal.of(goal.victim, clean, goal.labels, goal.callback)
            return super().run(clean, heard, generator)


class EvolvedSponge(Attack):
    """``Sponge`` by genetic algorithm: no gradient, an energy estimate as fitness (same paper).

    A pool per image; the fittest tenth are parents; children take every value from one of two
    parents at random (the paper's crossover for images), and some of their values are drawn anew.

    Fitness is the executed MACs times the density of the activations, where the paper simulates an
    accelerator that skips zeros, or measures. Size of the pool, generations and mutated share are
    ours; for the rest, see :class:`Sponge`.

    Args:
        victim: any model with activation modules.
        eps: l-inf budget in [0, 1] pixels; None: the pixel box alone, as in the paper.
        threat: another budget in place of ``eps``.
        pool: members of each image's pool.
        generations: of the pool, the random first one included.
        parents: share of the pool (paper: 0.1).
        mutated: share of a child's values that are drawn anew.
        seed: of all that is drawn.

    Raises:
        NotApplicable: for a victim whose activations cannot be seen.
        UsageError: for a pool that cannot breed.
    """

    threat: ArrayThreat

    pool: int = 50
    generations: int = 10
    parents: float = 0.1
    mutated: float = 0.05

    @classmethod
    def usual(cls, victim: Victim) -> Threat:
        return Box()

    def prepare(self) -> None:
        self.search = Evolution(self.pool, self.generations, self.parents, self.mutated)
        self.wanted = ZeroSkippingMacs()

    @classmethod
    def why_not(cls, victim: Victim) -> str | None:
        return why_unseen(victim)

    def run(self, clean: Tensor, goal: Goal, generator: Generator) -> Tensor:
        with self.wanted.heard.listening(self.victim):
            return self.search(clean, self.threat, self.wanted, goal, generator)
