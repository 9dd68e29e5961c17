"""AutoSlow: the ensemble, with no parameter but the budget."""

from __future__ import annotations

from typing import NamedTuple

from torch import Generator, Tensor

from effattack.attacks.base import Attack, check_objective
from effattack.attacks.house.slowdown import house_objective, house_search
from effattack.attacks.objectives import (
    AlsoAnswer,
    BatchGoal,
    Objective,
    UniformExits,
    WeightedSignificance,
    prediction_leads,
)
from effattack.attacks.published.desparsify_losses import DESPARSIFY
from effattack.attacks.published.quantattack_losses import NearOutliers
from effattack.attacks.searches.best import Best, kept
from effattack.attacks.searches.projected import ProjectedGradient
from effattack.attacks.searches.squares import RandomSearch
from effattack.errors import NotApplicable
from effattack.threats import ArrayThreat
from effattack.victim import Victim

MEMBERS: tuple[Objective, ...] = (
    UniformExits(),
    DESPARSIFY,
    WeightedSignificance(),
    NearOutliers(),
)
"""The losses beside the house attack's: DeepSloth's, DeSparsify's, the same weighted by cost-to-go,
QuantAttack's. Each joins where its ``check`` finds what it needs. SlowFormer's were made for one
patch on all images; GradAuto and GradMDM merge two gradients, and are no loss."""

KAPPA, FINE_KAPPA = 0.05, 0.001
"""κ of the house attack's first run, and of its second: the margins of gates whose two answers lie
close together (SkipNet) stay below the first, which then keeps pushing gates that are open."""
HOUSE, OTHERS, AGAIN = 100, 30, 70
"""Gradients of the house attack's first run, of all published losses together, of its second."""
QUERIES = 30


class Stage(NamedTuple):
    """One run of the ensemble."""

    objective: Objective
    search: ProjectedGradient
    afresh: bool
    """From a random point of the budget; else from the best images so far."""


class AutoSlow(Attack):
    """The ensemble: house attack, published losses, a restart and a query search in turn.

    As AutoAttack is for accuracy (Croce and Hein, ICML 2020, arXiv 2003.01690): a fixed ensemble
    that needs no tuning. The house attack goes first, with half of the gradients; the losses of
    DeepSloth, DeSparsify and QuantAttack, where the victim shows what they need, go on from the
    best image found so far; the house attack starts again from a random point, with a finer hinge;
    what is left is searched by queries, which need no gradient and so tell masked gates from closed
    ones. Each image keeps what made the victim execute most MACs on its hard path, and leaves as
    soon as that is the max.

    Args:
        victim: any victim with gates.
        eps: l-inf budget in [0, 1] pixels.
        threat: another budget in place of ``eps``; a patch has one place per image throughout.
        keep_prediction: slow and right: only images that keep the clean prediction count, and all
            objectives gain its lead up to 0.05.
        seed: of all random numbers.

    Raises:
        NotApplicable: for a victim without gates.
    """

    threat: ArrayThreat

    keep_prediction: bool = False

    def prepare(self) -> None:
        accept = kept if self.keep_prediction else None
        house, fine = (house_objective(k, self.keep_prediction) for k in (KAPPA, FINE_KAPPA))
        check_objective(house, self.victim)
        others = [each for each in MEMBERS if applies(each, self.victim)]
        if self.keep_prediction:
            others = [AlsoAnswer(each, prediction_leads) for each in others]
        share = OTHERS // max(1, len(others))
        again = AGAIN + OTHERS - share * len(others)

        def search(steps: int, first: float = 1.0) -> ProjectedGradient:
            return house_search(steps, first, accept=accept)

        self.stages = (
            Stage(house, search(HOUSE), afresh=True),
            *(Stage(each, search(share, 0.25), afresh=False) for each in others),
            Stage(fine, search(again), afresh=True),
        )
        self.queries = RandomSearch(QUERIES, accept=accept)

    @property
    def gradients(self) -> int:
        """Most gradient evaluations of one image; beside them, ``queries.queries`` forwards."""
        return sum(stage.search.steps for stage in self.stages)

    def run(self, clean: Tensor, goal: BatchGoal, generator: Generator) -> Tensor:
        threat = self.threat.placed(clean, generator)
        best = Best.of(clean, goal)
        for number, (objective, search, afresh) in enumerate(self.stages):
            best.rank.value.fill_(-float("inf"))  # values of different objectives do not compare
            start = threat.start(clean, generator) if afresh else best.inputs.clone()
            search.climb(best, start, clean, threat, objective, goal, number)
        self.queries.climb(best, clean, threat, goal, generator, len(self.stages))
        return best.inputs


def applies(objective: Objective, victim: Victim) -> bool:
    """Whether the victim shows what an objective needs."""
    try:
        check_objective(objective, victim)
    except NotApplicable:
        return False
    return True
