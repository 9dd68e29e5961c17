"""The cheapest attack on an entry: a file that declares more pixels than it needs."""

from __future__ import annotations

from typing import ClassVar

from torch import Generator, Tensor

from effattack.attacks.base import Attack, Knowledge
from effattack.attacks.objectives import BatchGoal
from effattack.errors import NotApplicable
from effattack.threats import Threat
from effattack.threats.size import Size
from effattack.victim import Victim


class LargeFile(Attack):
    """The same picture at the largest size of its threat: decoding and resizing cost more.

    It knows nothing of the model, and asks it nothing. Of a victim whose files have free sizes
    (:class:`effattack.victim.entry.Entry`); judged by the count ``declared_pixels``.

    Args:
        victim: which takes files of any size.
        threat: ``"size:4096"``, or another side.
        seed: of no influence.

    Raises:
        NotApplicable: for a threat of another kind, or a victim whose inputs have one size.
    """

    knowledge: ClassVar[Knowledge] = "nothing"
    takes = "any"
    threat: Size

    @classmethod
    def usual(cls, victim: Victim) -> Threat:
        return Size(4096)

    def prepare(self) -> None:
        if not isinstance(self.threat, Size):
            raise NotApplicable(f"LargeFile changes sizes, not {self.threat}: use size:4096")

    def run(self, clean: Tensor, goal: BatchGoal, generator: Generator) -> Tensor:
        return self.threat.on_grid(self.threat.largest(clean), clean)
