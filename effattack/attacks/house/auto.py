"""AutoSlow: the ensemble, with no parameter but the budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from torch import Generator, Tensor

from effattack.attacks.base import Attack, check_objective
from effattack.attacks.house.slowdown import house_search
from effattack.attacks.objectives import (
    BatchGoal,
    MarginHinge,
    Objective,
    ReweightedHinge,
    StayUnnoticed,
    Towards,
    UniformExits,
    WeightedSignificance,
)
from effattack.attacks.published.desparsify_losses import DESPARSIFY
from effattack.attacks.published.generators_losses import GENERATORS
from effattack.attacks.published.ilfo import ILFO, DesiredStates
from effattack.attacks.published.quantattack_losses import NearOutliers
from effattack.attacks.searches.best import Best, kept
from effattack.attacks.searches.by_kind import asking, climbing
from effattack.attacks.searches.climbing import Climb
from effattack.attacks.searches.projected import ProjectedAdam, constant
from effattack.attacks.searches.squares import RandomSearch
from effattack.errors import NotApplicable
from effattack.victim import Victim

LOSSES: tuple[Objective, ...] = (
    UniformExits(),
    DESPARSIFY,
    WeightedSignificance(),
    NearOutliers(),
    *GENERATORS,
)
"""Losses for some victims: DeepSloth's, DeSparsify's, the same weighted by cost-to-go, and
QuantAttack's; for generators NMTSloth's, Verbose Samples' and LoopLLM's. Each joins where its
``check`` finds what it needs. SlowFormer's were made for one patch on all images; GradAuto and
GradMDM merge two gradients, and are no loss."""

TOWARDS = (Towards(1), Towards(2), Towards(3), Towards(4))
"""The classes that come next in the clean answer; they join where the stages of a chain answer."""

KAPPA, FINE_KAPPA = 0.05, 0.001
"""κ of the house attack's first run, and of its others: the margins of gates whose two answers lie
close together (SkipNet) stay below the first, which then keeps pushing gates that are open."""
HOUSE, OTHERS, STATES, CLASSES, AGAIN, REFINED = 30, 20, 40, 40, 35, 35
"""Gradients of each row of the table, in turn; ``OTHERS`` those of all ``LOSSES`` that join,
``CLASSES`` those of all ``TOWARDS``, or of ``STARTS`` runs where none joins."""
STARTS = 2
"""House runs of 20 gradients: on skip networks two more starts find what a longer run does not."""
QUERIES = 30

Start = Literal["random", "clean", "best"]


class Stage(NamedTuple):
    """One run of the ensemble."""

    objective: Objective
    search: Climb
    start: Start
    """A random point of the budget, the clean images, or the best images so far."""


class AutoSlow(Attack):
    """The ensemble: six kinds of run that fail on different images, and a query search.

    As AutoAttack is for accuracy (Croce and Hein, ICML 2020, arXiv 2003.01690): a fixed ensemble
    that needs no tuning. In turn:

    ==========================================  ==================  ==============
    wants                                       by                  from
    ==========================================  ==================  ==============
    the house attack's hinge                    projected gradient  a random point
    losses of DeepSloth, DeSparsify and         projected gradient  the best
    QuantAttack, of NMTSloth, Verbose Samples
    and LoopLLM, where the victim shows what
    they need
    ILFO's desired states                       Adam                the clean one
    one second class at all stages of a chain,  projected gradient  the clean one
    four in turn
    or, without such stages, the hinge, finer,  projected gradient  random points
    twice
    the hinge, finer                            projected gradient  a random point
    the hinge, its gates reweighted             projected gradient  the best
    ==========================================  ==================  ==============

    Where no loss of the second row joins, its gradients go to the last finer hinge. What is left is
    searched by queries, which need no gradient and so tell masked gates from closed ones. Each
    image keeps what made the victim execute most MACs on its hard path, and leaves as soon as that
    is the max.

    Of prompts, every run is a coordinate gradient of equal effort, and queries draw words.

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

    takes = "arrays or tokens or graph or parts"
    edition = 3

    keep_prediction: bool = False

    def prepare(self) -> None:
        check_objective(MarginHinge(KAPPA), self.victim, self.threat)
        losses, share, spare = shared(OTHERS, LOSSES, self.victim)
        classes, each_class, more = shared(CLASSES, TOWARDS, self.victim)
        finer = MarginHinge(FINE_KAPPA)
        turns = [Stage(each, house_search(each_class, 0.5), "clean") for each in classes]
        starts = [Stage(finer, house_search(CLASSES // STARTS), "random")] * STARTS
        stages = (
            Stage(MarginHinge(KAPPA), house_search(HOUSE), "random"),
            *(Stage(each, house_search(share, 0.25), "best") for each in losses),
            Stage(DesiredStates(1.0, KAPPA), ProjectedAdam(STATES, constant(ILFO.rate)), "clean"),
            *(turns or starts),
            Stage(finer, house_search(AGAIN + spare + (more if turns else 0)), "random"),
            Stage(ReweightedHinge(KAPPA, self.seed), house_search(REFINED, 0.5), "best"),
        )
        stages = tuple(map(right, stages)) if self.keep_prediction else stages
        self.stages = tuple(
            stage._replace(search=climbing(stage.search, self.threat, self.seed))
            for stage in stages
        )
        squares = RandomSearch(QUERIES, accept=kept if self.keep_prediction else None)
        self.queries = asking(squares, self.threat)

    @property
    def gradients(self) -> int:
        """Most gradient evaluations of one image; beside them, ``queries.queries`` forwards."""
        return sum(stage.search.steps for stage in self.stages)

    def run(self, clean: Tensor, goal: BatchGoal, generator: Generator) -> Tensor:
        threat = self.threat.placed(clean, generator)
        best = Best.of(clean, goal)
        starts = {
            "random": lambda: threat.start(clean, generator),
            "clean": clean.clone,
            "best": lambda: best.inputs.clone(),
        }
        for number, (objective, search, start) in enumerate(self.stages):
            best.rank.value.fill_(-float("inf"))  # values of different objectives do not compare
            search.climb(best, starts[start](), clean, threat, objective, goal, number)
        self.queries.climb(best, clean, threat, goal, generator, len(self.stages))
        return best.inputs


def shared(
    gradients: int, objectives: Sequence[Objective], victim: Victim
) -> tuple[list[Objective], int, int]:
    """Those that apply, the gradients of each, and those that are left over."""
    joined = [each for each in objectives if applies(each, victim)]
    share = gradients // max(1, len(joined))
    return joined, share, gradients - share * len(joined)


def applies(objective: Objective, victim: Victim) -> bool:
    """Whether the victim shows what an objective needs."""
    try:
        check_objective(objective, victim)
    except NotApplicable:
        return False
    return True


def right(stage: Stage) -> Stage:
    """The same run, of images that keep the clean prediction alone."""
    search = replace(stage.search, accept=kept)
    return Stage(StayUnnoticed(stage.objective), search, stage.start)
