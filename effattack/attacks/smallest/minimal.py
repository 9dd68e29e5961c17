"""How small a budget can be, sample by sample."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from effattack.attacks.base import Attack, instead
from effattack.attacks.objectives import BatchGoal
from effattack.attacks.smallest.ladder import ladder, maker
from effattack.errors import NotApplicable, UsageError
from effattack.threats import Linf, Threat
from effattack.victim import Victim


class MinimalBudget(Attack):
    """The smallest budget at which the savings of a sample are gone, found by bisection.

    Every sample is attacked at the largest budget first; where its savings go, the budget is
    halved between one that was enough and one that was not, with a fresh attack each time. That
    takes 1 + log2(number of budgets) attacks, and rests on a larger budget being no worse; an
    attack that misses makes the answer larger, never smaller: it is an upper bound.

    After a call, ``budgets`` holds the smallest budget of each sample in the unit of the threat:
    0 where there was nothing to save, inf where even the largest was not enough; its image is then
    the attempt at the largest.

    Args:
        victim: any victim that the inner attack applies to.
        eps: the largest l-inf budget.
        threat: the largest budget of another kind, and what is bisected: ``"l2:4"``,
            ``"patch:16"``, ``"pixels:64"``. l-inf goes in grey levels, patches by their side,
            pixels one by one, norms in steps of 1/64 of the largest.
        share: of ceiling - clean work that must be taken back for the savings to be gone.
        attack: the inner attack, a name with options.
        seed: of the inner attack.

    Raises:
        NotApplicable: if the inner attack cannot apply to the victim, or its max is unknown.
        UsageError: for a share outside (0, 1], a threat without a size.
    """

    share: float = 1.0
    attack: str = "Slowdown"

    @classmethod
    def usual(cls, victim: Victim) -> Threat:
        return Linf(32 / 255)

    def prepare(self) -> None:
        check_savings(self.victim, self.share)
        self.budgets: Tensor | None = None
        self.ladder = ladder(self.threat)
        self.make = maker(self.victim, self.attack, self.seed)
        self.make(self.threat)

    @property
    def gradients(self) -> int:
        attacks = 1 + math.ceil(math.log2(max(1, len(self.ladder))))
        return attacks * self.make(self.threat).gradients

    def run(self, clean: Tensor, goal: BatchGoal, generator: Generator) -> Tensor:
        before, most = self.victim.spent(goal.trace), goal.ceiling
        assert most is not None
        wanted = before + self.share * (most - before)
        found, top = clean.clone(), len(self.ladder)
        failed = torch.zeros(len(clean), dtype=torch.long)  # ladder[failed - 1] was not enough
        enough = torch.where((before >= most).cpu(), 0, top + 1)

        def try_at(rung: int, rows: Tensor) -> None:
            """Attack some rows with one budget."""
            mine = rows.to(clean.device)
            attacked = self.make(self.ladder[rung - 1])(
                clean[mine], goal.labels[mine], goal.callback
            )
            with torch.no_grad():
                gone = goal.victim.spent(goal.victim.trace(attacked)) >= wanted[mine]
            kept = gone if rung < top else torch.ones_like(gone)
            found[mine[kept]] = attacked[kept]
            enough[rows[gone.cpu()]] = rung
            failed[rows[~gone.cpu()]] = rung

        if len(rows := enough.nonzero().flatten()):
            try_at(top, rows)
        while (open_ := (enough <= top) & (enough - failed > 1)).any():
            middle = (enough + failed) // 2
            for rung in middle[open_].unique().tolist():
                try_at(rung, (open_ & (middle == rung)).nonzero().flatten())
        sizes = torch.tensor([0.0, *(threat.eps for threat in self.ladder), math.inf])
        self.budgets = sizes[enough]
        return found


def check_savings(victim: Victim, share: float) -> None:
    """Refuse a share that is none, and victims of which no savings are known.

    Raises:
        UsageError: for a share outside (0, 1].
        NotApplicable: for a victim of unknown max, with what applies.
    """
    if not 0 < share <= 1:
        raise UsageError(f"share = {share!r}: give a number in (0, 1], such as 0.5")
    if bool(victim.ceiling(victim.example(1), victim.currency).isnan().any()):
        raise NotApplicable(
            f"{victim.name} does not say its max_macs, so no savings are known that could go: "
            f"declare max_macs; {instead(victim, 'compute')}"
        )
