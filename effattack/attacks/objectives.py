"""What an attack wants: a value per input, computed from a trace, to be driven up.

An objective guides the search; it never judges. Iterates are chosen by executed MACs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from effattack.domains import Batch
from effattack.errors import NotApplicable
from effattack.tasks.shares import Shares
from effattack.victim import Gate, Trace, Victim
from effattack.victim.margins import spread
from effattack.victim.trace import CHOSEN_FROM


class Step(NamedTuple):
    """Where a search stands: what its callback is told, once per step."""

    restart: int
    """Of per-sample searches the restart, of universal training the epoch."""
    step: int
    steps: int
    macs: Tensor
    """(B,) of the best iterates so far, what they are chosen by first: executed MACs, or another
    count that is the victim's currency; -inf where none counts yet; in universal training those of
    the batch; of PGDAvg and PGDMax whether the answer is wrong; NaN where only time is measured."""
    value: Tensor
    """(B,) what ties are broken by: their objective; doubt of queries; seconds of LatencyQuery."""


Callback = Callable[[Step], None]


def unwatched(step: Step) -> None:
    """The callback of a search that nobody watches."""


@dataclass(frozen=True)
class Goal:
    """What stays the same while one batch is attacked: what objectives and searches refer to."""

    victim: Victim
    logits: Tensor
    """Outputs on the clean inputs, as the task reads them: (B, classes) of classifiers."""
    labels: Tensor
    """(B,) class indices, or those of another task; the clean answers where none were given."""
    callback: Callback = unwatched
    """Called once per step; what it raises ends the attack."""
    ceiling: Tensor | None = None
    """(B,) float64: the most work that the threat admits from each clean input, in the currency of
    the victim; NaN where unknown. None: not asked for."""
    kept: Tensor | None = None
    """Of iterates that are longer or shorter than the clean inputs, where the parts of those are
    now (:meth:`effattack.domains.Domain.kept`); None: in their places."""

    @property
    def answer(self) -> Tensor:
        """The answers on the clean inputs, (B,) class indices of classifiers."""
        return self.victim.task.answer(self.logits)

    def rows(self, index: Tensor) -> Goal:
        """The same for some of the inputs."""
        ceiling = None if self.ceiling is None else self.ceiling[index]
        return Goal(self.victim, self.logits[index], self.labels[index], self.callback, ceiling)


@dataclass(frozen=True, kw_only=True)
class BatchGoal(Goal):
    """The goal of a whole batch, as an attack begins: the clean inputs are traced once, for all."""

    trace: Trace
    """Of the clean inputs, without gradients."""

    @classmethod
    def of(
        cls,
        victim: Victim,
        clean: Batch,
        labels: Tensor | None,
        callback: Callback = unwatched,
        *,
        largest: Batch | None = None,
    ) -> BatchGoal:
        """The goal of clean inputs; their answers stand for no labels.

        ``largest`` are the inputs of the threat on which the victim can work most; by default the
        clean ones, than which those of arrays are no larger.
        """
        with torch.no_grad():
            trace = victim.trace(clean)
        if labels is None:
            labels = victim.task.answer(trace.logits)
        ceiling = victim.ceiling(clean if largest is None else largest, victim.currency)
        return cls(victim, trace.logits, labels, callback, ceiling, trace=trace)


class Objective(Protocol):
    """Maps a trace of B images to (B,) values; higher is better for the attacker."""

    def __call__(self, trace: Trace, goal: Goal) -> Tensor: ...

    def check(self, trace: Trace, victim: Victim) -> None:
        """Raise NotApplicable if the victim lacks what this objective needs."""


@dataclass(frozen=True)
class MarginHinge:
    """The house objective: Σ cost · min(margin, κ) over reached gates, over max MACs.

    Where a gate is ``pushed``, as those of stages in a row are, all units count, reached or not.

    The cost of a gate is its cost-to-go, what opening it makes possible downstream. κ is the
    overshoot beyond a decision that is still rewarded: enough to be safe from rounding, no more.

    Args:
        kappa: κ in units of the margins.
    """

    kappa: float = 0.05

    def check(self, trace: Trace, victim: Victim) -> None:
        require_gates(trace, victim)
        if math.isnan(victim.max_macs):
            raise NotApplicable(
                f"{victim.name} has gates and no max_macs, by which they are weighed: declare the "
                "structural worst case"
            )

    def __call__(self, trace: Trace, goal: Goal) -> Tensor:
        total = torch.zeros_like(trace.gates[0].margin[:, 0])
        for gate, weight in zip(trace.gates, self.weights(trace.gates), strict=True):
            push = gate.margin.clamp(max=self.kappa)
            if not gate.pushed:
                push = torch.where(gate.reached, push, torch.zeros_like(push))
            total = total + (push * weight).sum(1)
        return total / goal.victim.max_macs

    def weights(self, gates: Sequence[Gate]) -> Iterable[Tensor | float]:
        """Of the units of every gate."""
        return (gate.cost for gate in gates)


@dataclass(frozen=True)
class ReweightedHinge(MarginHinge):
    """The same, the cost of every gate times a weight drawn from the exponential distribution.

    Another way up from where the house objective stands: gates that pulled against each other are
    told apart.

    Args:
        kappa: κ in units of the margins.
        seed: of the weights, which are the same for all inputs and steps.
    """

    seed: int = 0

    def weights(self, gates: Sequence[Gate]) -> Iterable[Tensor | float]:
        drawn = torch.empty(len(gates)).exponential_(generator=Generator().manual_seed(self.seed))
        return (gate.cost * weight for gate, weight in zip(gates, drawn.tolist(), strict=True))


@dataclass(frozen=True)
class UniformExits:
    """DeepSloth's loss: every internal classifier should predict the uniform distribution.

    − Σ over stages but the last of CE(uniform, softmax of the stage); Hong et al. 2021, section 4.
    """

    def check(self, trace: Trace, victim: Victim) -> None:
        if trace.stage_logits is None:
            raise NotApplicable(
                f"{victim.name} has no internal classifiers: UniformExits (DeepSloth) needs an "
                "early-exit network or a cascade"
            )

    def __call__(self, trace: Trace, goal: Goal) -> Tensor:
        assert trace.stage_logits is not None
        return trace.stage_logits[:, :-1].log_softmax(2).mean(2).sum(1)


@dataclass(frozen=True)
class Towards:
    """All stages pushed towards one second class: - Σ over closed gates of cost · |lead| / spread.

    The lead is that of a stage's best other class over the wanted one, in logits: at 0 the two are
    level. The hinge leaves it to each stage which class becomes its second; stages that lean to
    different ones pull against each other, and no number of steps helps. After the multi-targeted
    surrogate of Gowal et al. 2019 (arXiv 1910.09338), there for accuracy.

    Args:
        rank: of the wanted class in the clean answer; 1 is its second.
        kappa: a gate whose margin exceeds it counts as open.
    """

    rank: int
    kappa: float = 0.05

    def check(self, trace: Trace, victim: Victim) -> None:
        stages = trace.stage_logits
        in_a_row = stages is not None and stages.shape[1] == len(trace.gates) + 1
        if not in_a_row or any(gate.margin.shape[1] != 1 for gate in trace.gates):
            raise NotApplicable(f"{victim.name} shows no logits of stages, one per gate")
        if not 0 < self.rank < victim.num_classes:
            raise NotApplicable(
                f"{victim.name} has {victim.num_classes} classes: none is of rank {self.rank} "
                "behind the first"
            )

    def __call__(self, trace: Trace, goal: Goal) -> Tensor:
        assert trace.stage_logits is not None
        stages = trace.stage_logits[:, :-1]
        wanted = goal.logits.argsort(dim=1, descending=True, stable=True)[:, self.rank, None, None]
        wanted = wanted.expand(-1, stages.shape[1], 1)
        others = stages.scatter(2, wanted, -torch.inf).amax(2)
        apart = (others - stages.gather(2, wanted).squeeze(2)).abs() / spread(stages)
        total = trace.logits.new_zeros(len(trace.logits))
        for gate, distance in zip(trace.gates, apart.split(1, dim=1), strict=True):
            total = total - (distance * (gate.margin < self.kappa) * gate.cost).sum(1)
        return total / goal.victim.max_macs


@dataclass(frozen=True)
class UniformSignificance:
    """DeSparsify's loss on ATS: − mean over blocks of KL(S ‖ uniform), S the token significance.

    Yehezkel et al. 2024, section 4.2. The uniform distribution is over the tokens that reach the
    block.
    """

    def check(self, trace: Trace, victim: Victim) -> None:
        if "significance" not in trace.aux:
            raise NotApplicable(
                f"{victim.name} shows no token significance: UniformSignificance (DeSparsify) "
                "needs ATS"
            )

    def __call__(self, trace: Trace, goal: Goal) -> Tensor:
        return -self.divergence(trace).mean(1)

    def divergence(self, trace: Trace) -> Tensor:
        """(B, blocks): KL(S ‖ uniform)."""
        scores = trace.aux["significance"]
        live = torch.stack([gate.reached for gate in trace.gates], dim=1).sum(2)
        tiny = torch.finfo(scores.dtype).tiny
        return (scores * (scores.clamp_min(tiny) * live[:, :, None]).log()).sum(2)


@dataclass(frozen=True)
class WeightedSignificance(UniformSignificance):
    """Ours, no paper's: the same divergence, every block weighted by the cost-to-go of its gate.

    The weights are scaled to a mean of 1, so that the value compares with the unweighted one. On
    a real ViT-Tiny with ATS they made the difference between DeSparsify's loss and the hinge.
    """

    def __call__(self, trace: Trace, goal: Goal) -> Tensor:
        divergence = self.divergence(trace)
        costs = [torch.as_tensor(gate.cost).double().mean() for gate in trace.gates]
        weights = torch.stack(costs).to(divergence)
        return -(divergence * weights / weights.mean()).mean(1)


@dataclass(frozen=True)
class ByMechanism:
    """A paper's losses on ATS, A-ViT and AdaViT, told apart by what the traces show.

    Args:
        paper: what the attack is called.
        losses: what a loss needs of ``trace.aux`` -> the loss; the first that fits is taken.
    """

    paper: str
    losses: Mapping[str, Callable[[Trace, Goal], Tensor]]

    def check(self, trace: Trace, victim: Victim) -> None:
        if not any(shown in trace.aux for shown in self.losses):
            raise NotApplicable(
                f"{self.paper} attacks ATS, A-ViT and AdaViT, which are token sparsification; "
                f"{victim.name} is a victim of {victim.family} and shows no "
                f"{' and no '.join(self.losses)} in its trace"
            )

    def __call__(self, trace: Trace, goal: Goal) -> Tensor:
        fitting = next(shown for shown in self.losses if shown in trace.aux)
        return self.losses[fitting](trace, goal)


@dataclass(frozen=True)
class KeepPrediction:
    """Another objective, minus a weight times the cross-entropy to the clean prediction.

    Args:
        slow: the objective that raises the work.
        weight: of the cross-entropy.
    """

    slow: Objective
    weight: float

    def check(self, trace: Trace, victim: Victim) -> None:
        self.slow.check(trace, victim)

    def __call__(self, trace: Trace, goal: Goal) -> Tensor:
        loss = F.cross_entropy(trace.logits, goal.answer, reduction="none")
        return self.slow(trace, goal) - self.weight * loss


Answer = Callable[[Tensor, Goal], Tensor | None]
"""How much outputs say what is wanted: (B,) in [-1, 1], positive if they do.

None for a task whose answers have no differentiable lead."""


def prediction_leads(logits: Tensor, goal: Goal) -> Tensor | None:
    """The clean answer is kept."""
    return goal.victim.task.lead(logits, goal.answer)


def prediction_trails(logits: Tensor, goal: Goal) -> Tensor | None:
    """The clean answer is changed."""
    lead = prediction_leads(logits, goal)
    return None if lead is None else -lead


def label_trails(logits: Tensor, goal: Goal) -> Tensor | None:
    """The answer is wrong."""
    lead = goal.victim.task.lead(logits, goal.labels)
    return None if lead is None else -lead


@dataclass(frozen=True)
class AlsoAnswer:
    """Another objective plus a weight times min(answer, κ).

    Unlike the cross-entropy of the papers (:class:`KeepPrediction`), it asks for nothing while the
    answer is safe.

    Args:
        slow: the objective that raises the work.
        answer: what is wanted of the prediction.
        weight: of the answer against the work.
        kappa: κ, in units of the answer.
    """

    slow: Objective
    answer: Answer
    weight: float = 1.0
    kappa: float = 0.05

    def check(self, trace: Trace, victim: Victim) -> None:
        self.slow.check(trace, victim)

    def __call__(self, trace: Trace, goal: Goal) -> Tensor:
        slow, given = self.slow(trace, goal), self.answer(trace.logits, goal)
        return slow if given is None else slow + self.weight * given.clamp(max=self.kappa)


@dataclass(frozen=True)
class StayUnnoticed:
    """Another objective, and what keeps the clean answer as it is.

    Where the trace shows what an answer is chosen from (``CHOSEN_FROM``), all that are not as they
    were are charged for: Σ max(0, κ - lead) over wanted members and unwanted proposals
    (:meth:`effattack.tasks.shares.Shares.leads`), each weighing as ``openings`` units of the
    dearest gate. Log-odds do not saturate, so the surest of them is pushed as hard as the others;
    and a κ of 1 keeps hundreds of them away from the threshold at once, over which a box that moves
    by a pixel jumps. Elsewhere the lead of the clean answer, as :class:`AlsoAnswer` has it.

    Args:
        slow: the objective that raises the work.
        openings: that a member which should not be there, or should, is worth.
        kappa: κ of proposals, in log-odds.
    """

    slow: Objective
    openings: float = 15.0
    kappa: float = 1.0

    def check(self, trace: Trace, victim: Victim) -> None:
        self.slow.check(trace, victim)

    def __call__(self, trace: Trace, goal: Goal) -> Tensor:
        proposals, task = trace.aux.get(CHOSEN_FROM), goal.victim.task
        if proposals is None or not isinstance(task, Shares):
            return AlsoAnswer(self.slow, prediction_leads)(trace, goal)
        leads = task.leads(proposals, goal.answer)
        lacking = torch.stack([(self.kappa - each).clamp_min(0).sum() for each in leads])
        dearest = max(float(torch.as_tensor(gate.cost).max()) for gate in trace.gates)
        return self.slow(trace, goal) - self.openings * dearest / goal.victim.max_macs * lacking


def require_gates(trace: Trace, victim: Victim) -> None:
    """Refuse victims that show no decision.

    Raises:
        NotApplicable: with the reason.
    """
    if not trace.gates:
        why = "its MACs are constant" if victim.constant else "it cannot be opened"
        raise NotApplicable(
            f"{victim.name} has no gates ({why}): gradient compute attacks do not apply"
        )
