"""Inputs that were found earlier, in place of an attack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Generator

from effattack.attacks.base import Attack, Knowledge
from effattack.attacks.objectives import Goal
from effattack.domains import Batch
from effattack.threats import Threat
from effattack.victim import Victim


class Replayed(Attack):
    """Gives each clean input the one that was stored for it; nothing is looked for.

    They were found on another victim, or on this one as it was: so it is a transfer.

    Args:
        victim: any victim.
        threat: what they were found in.
        stored: fingerprint of a clean input -> the attacked one, packed.
    """

    knowledge: ClassVar[Knowledge] = "transfer"
    takes = "any"
    label = "replayed"

    def __init__(self, victim: Victim, threat: Threat, stored: Mapping[str, bytes]) -> None:
        self._stored = stored
        super().__init__(victim, threat=threat)

    def run(self, clean: Batch, goal: Goal, generator: Generator) -> Batch:
        domain = self.victim.domain
        return domain.unpack([self._stored[key] for key in domain.fingerprints(clean)], clean)
