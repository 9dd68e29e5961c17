"""What happens to series with no attacker: samples get lost, sensors drift. Controls."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor

from effattack.attacks.base import Attack, Kind
from effattack.attacks.objectives import Goal
from effattack.errors import UsageError
from effattack.threats import ArrayThreat


class Disturbance(Attack):
    """A disturbance of series, brought into the budget."""

    kind: ClassVar[Kind] = "control"
    knowledge = "nothing"
    takes = "series"
    threat: ArrayThreat

    def run(self, clean: Tensor, goal: Goal, generator: Generator) -> Tensor:
        threat = self.threat.placed(clean, generator)
        disturbed = self.disturbed(clean, generator)
        return threat.on_grid(threat.project(disturbed, clean), clean)

    @abstractmethod
    def disturbed(self, clean: Tensor, generator: Generator) -> Tensor:
        """Series (B, C, L) as the disturbance leaves them, without a budget."""


class Gaps(Disturbance):
    """Stretches of samples are missing, and stand as the last one before them, or as zero.

    Args:
        victim: any victim of series.
        eps: l-inf budget.
        threat: another budget, in place of ``eps``.
        share: of the samples that are missing.
        length: of one gap.
        fill: ``"last"`` or ``"zero"``.
        seed: of their places.

    Raises:
        UsageError: for a share, length or fill that is none.
    """

    label = "gaps"

    share: float = 0.2
    length: int = 4
    fill: Literal["last", "zero"] = "last"

    def prepare(self) -> None:
        if not 0 < self.share <= 1 or self.length < 1 or self.fill not in ("last", "zero"):
            raise UsageError(
                f"share = {self.share}, length = {self.length}, fill = {self.fill!r}: give a share "
                "in (0, 1], at least one sample, and 'last' or 'zero'"
            )

    def disturbed(self, clean: Tensor, generator: Generator) -> Tensor:
        batch, _, times = clean.shape
        count = max(1, round(self.share * times / self.length))
        first = torch.randint(0, times, (batch, count, 1), generator=generator)
        index = torch.arange(times)
        missing = ((index >= first) & (index < first + self.length)).any(1).to(clean.device)
        if self.fill == "zero":
            return clean.masked_fill(missing[:, None], 0.0)
        last = torch.where(missing, 0, index.to(clean.device)).cummax(1).values
        return clean.gather(2, last[:, None].expand_as(clean))


class Drift(Disturbance):
    """Every channel drifts away slowly and evenly, up or down, to the end of the budget.

    Args:
        victim: any victim of series.
        eps: l-inf budget.
        threat: another budget, in place of ``eps``.
        seed: of the directions.
    """

    label = "drift"

    def disturbed(self, clean: Tensor, generator: Generator) -> Tensor:
        up = 2 * torch.randint(0, 2, (*clean.shape[:2], 1), generator=generator) - 1
        slope = torch.linspace(0, 1, clean.shape[2])
        return clean + self.threat.reach * (up * slope).to(clean)
