"""SAME and WAFFLE: published losses on language models that answer early."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from effattack.attacks.base import GradientAttack
from effattack.attacks.house.slowdown import house_search
from effattack.attacks.objectives import Goal, Objective
from effattack.attacks.searches.projected import ProjectedGradient
from effattack.errors import NotApplicable
from effattack.victim import Trace, Victim

TAGGED = "stage_tags"
"""In ``Trace.aux`` of a tagger: (B, L, stages, tags), logits of every exit for every token."""


class OfExits(Objective):
    """An objective on what every exit says: mean over the tokens of a tagger."""

    def check(self, trace: Trace, victim: Victim) -> None:
        if trace.stage_logits is None and TAGGED not in trace.aux:
            raise NotApplicable(
                f"{victim.name} has no internal classifiers: SAME and WAFFLE attack models that "
                "answer early"
            )

    def __call__(self, trace: Trace, goal: Goal) -> Tensor:
        if trace.stage_logits is not None:
            return self.of_stages(trace.stage_logits, _taken(trace)[:, 0])
        stages = trace.aux[TAGGED]
        there, taken = (
            units[:, : stages.shape[1]] for units in (trace.gates[0].reached, _taken(trace))
        )
        values = self.of_stages(stages[there], taken[there])
        total = values.new_zeros(there.shape).masked_scatter(there, values)
        return total.sum(1) / there.sum(1)

    @abstractmethod
    def of_stages(self, stages: Tensor, taken: Tensor) -> Tensor:
        """Logits (N, stages, classes) and the stages (N,) that were left at -> (N,)."""


@dataclass(frozen=True)
class Alternating(OfExits):
    """SAME's loss: neighbouring exits should say different things, and be unsure.

    − mean over stages of w_i · [λ · CE(p_i, a_i) + (1 − λ) · CE(p_i, uniform) / C], a_i the second
    class of a stage that says what the stage before it says, and else its first; the weights w_i
    are 0.1 before the stage that is left at, and 1.2^(i − exit) from there on (official code,
    commit 57068bf).

    Args:
        share: λ.
        growth: of the weights per stage behind the exit.
        before: weight of stages before it.
    """

    share: float = 0.8
    growth: float = 1.2
    before: float = 0.1

    def of_stages(self, stages: Tensor, taken: Tensor) -> Tensor:
        logs = stages.log_softmax(2)
        first, second = stages.detach().topk(2, dim=2).indices.unbind(2)
        same = torch.zeros_like(first, dtype=torch.bool)
        same[:, 1:] = first[:, 1:] == first[:, :-1]
        wanted = torch.where(same, second, first)
        alternate = logs.gather(2, wanted[:, :, None])[:, :, 0]
        behind = torch.arange(stages.shape[1], device=stages.device) - taken[:, None]
        weights = torch.where(behind < 0, self.before, self.growth ** behind.clamp_min(0).double())
        uniform = logs.mean(2) / stages.shape[2]
        wished = self.share * alternate + (1 - self.share) * uniform
        return (weights.to(logs) * wished).mean(1)


@dataclass(frozen=True)
class NearlyUniform(OfExits):
    """WAFFLE's score: mean over stages of 1 − Σ_j |p_ij − 1/C| / (C − 1)."""

    def of_stages(self, stages: Tensor, taken: Tensor) -> Tensor:
        classes = stages.shape[2]
        apart = (stages.softmax(2) - 1 / classes).abs().sum(2)
        return (1 - apart / (classes - 1)).mean(1)


class SAME(GradientAttack):
    """SAME's loss under the coordinate gradient.

    Chen et al., "Dynamic Transformers Provide a False Sense of Efficiency", ACL 2023
    (arXiv 2305.12228); official code MatthewCYM/SAME, commit 57068bf.

    Divergences: the loss is theirs, the search ours, so that both compare at equal effort (theirs:
    a beam of 5, the 100 best tokens of each, 10 rounds, at most a tenth of the words and at least
    3; characters as well); the gradient is taken at the place of a word (theirs: in the embedding
    matrix, where repeated words mix, and it is never zeroed); the best iterate of all is returned
    (theirs: that of the last round); no stop words are excepted.

    Args:
        victim: an early-exit classifier or tagger of prompts; of a tagger, the mean over tokens.
        threat: what may be changed, such as ``"swap:2"``.
        steps: gradient evaluations that the effort is equal to.
        share: λ.
        seed: of the search.

    Raises:
        NotApplicable: for a victim without internal classifiers.
    """

    takes = "tokens"

    steps: int = 50
    share: float = 0.8

    def composed(self) -> tuple[Objective, ProjectedGradient]:
        return Alternating(self.share), house_search(self.steps)


class WAFFLE(GradientAttack):
    """WAFFLE's score under the coordinate gradient.

    Coalson et al., "BERT Lost Patience Won't Be Robust to Adversarial Slowdown", NeurIPS 2023;
    official code ztcoalson/WAFFLE, commit 76cdae5.

    Divergences: the score is theirs, the search ours, so that both compare at equal effort (theirs:
    TextFooler and A2T, which replace words by synonyms that keep part of speech and meaning, in the
    order of their importance, until the score passes a threshold).

    Args:
        victim: an early-exit classifier or tagger of prompts; of a tagger, the mean over tokens.
        threat: what may be changed, such as ``"swap:2"``.
        steps: gradient evaluations that the effort is equal to.
        seed: of the search.

    Raises:
        NotApplicable: for a victim without internal classifiers.
    """

    takes = "tokens"

    steps: int = 50

    def composed(self) -> tuple[Objective, ProjectedGradient]:
        return NearlyUniform(), house_search(self.steps)


def _taken(trace: Trace) -> Tensor:
    """(B, units): how many exits each input, or token, went past."""
    return torch.stack([gate.active for gate in trace.gates]).sum(0)
