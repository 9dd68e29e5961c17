"""What a solver's point does once it is rounded to what a device can be fed."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from effattack.certify.exact.encoding import Array
from effattack.certify.exact.outcomes import Outcome
from effattack.certify.exact.solving import Answer, Box, solve
from effattack.threats import ArrayThreat
from effattack.victim import Victim


class Replayed:
    """What one input and those around it make a victim do; counts the passes that it takes."""

    def __init__(self, victim: Victim, clean: Tensor, threat: ArrayThreat) -> None:
        self.victim, self.clean, self.threat = victim, clean, threat
        self.box = _box(threat, clean)
        self.passes = 0

    def macs(self, single: Tensor) -> float:
        """Of one input, by the hard decisions of ``trace``."""
        self.passes += 1
        with torch.no_grad():
            return self.victim.trace(single).macs.item()

    def rounded(self, variables: Array) -> Tensor:
        """The nearest input of the threat on the grid."""
        values = torch.from_numpy(variables) * self.box.step + self.box.low
        return self.threat.on_grid(values.to(self.clean).view_as(self.clean), self.clean)

    def reached(self, way: Outcome, limit: float) -> tuple[Answer, Tensor | None]:
        """Whether the grid has an input of an outcome, and the candidate that was found."""
        started = time.perf_counter()
        answer, inputs = solve(way, self.box, limit)
        if inputs is None:
            return answer, None
        near = self.rounded(inputs)
        if self.threat.domain.step is None or self.macs(near) >= way.macs:
            return answer, near
        left = limit - (time.perf_counter() - started)
        answer, inputs = solve(way, self.box, left, whole=True)
        return answer, near if inputs is None else self.rounded(inputs)


def _box(threat: ArrayThreat, clean: Tensor) -> Box:
    """From the lowest input of the threat to the highest; on a grid, counted in its steps."""
    domain = threat.domain
    step = 1.0 if domain.step is None else domain.step
    low = 0.0 if domain.step is None else domain.low
    ends = [
        threat.on_grid(torch.full_like(clean, value), clean).double().cpu().flatten().numpy()
        for value in (domain.low, domain.high)
    ]
    if domain.step is not None:
        ends = [((end - low) / step).round() for end in ends]
    return Box(ends[0], ends[1], step, low)
