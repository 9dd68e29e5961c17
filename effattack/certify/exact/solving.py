"""One outcome on one box, asked of HiGHS through SciPy."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

import numpy as np

from effattack.certify.exact.encoding import Array, Encoding
from effattack.certify.exact.gates import Gated
from effattack.certify.exact.outcomes import Outcome

ENOUGH = 4.0
"""Relative gap at which a solver may stop: a witness that lies a fifth of ``INSIDE`` beyond all
thresholds will do. It has no say in what is impossible."""


class Answer(Enum):
    """What a solver says of an outcome."""

    REACHED = "reached"
    IMPOSSIBLE = "impossible"
    UNKNOWN = "unknown"


class Solved(NamedTuple):
    """An answer, and where it is reached the inputs."""

    answer: Answer
    inputs: Array | None = None
    """(N,), in units of the variables."""


class Box(NamedTuple):
    """The inputs of a threat: variables between two ends, each worth a step of the domain."""

    lower: Array
    upper: Array
    step: float
    low: float


def solve(outcome: Outcome, box: Box, seconds: float, *, whole: bool = False) -> Solved:
    """Whether some input of the box takes the decisions of an outcome.

    Args:
        outcome: of the victim.
        box: where to look.
        seconds: after which the answer is unknown.
        whole: look at whole numbers of steps alone.
    """
    if seconds <= 0:
        return Solved(Answer.UNKNOWN)
    gated = Gated(Encoding(*box))
    outcome.encode(gated)
    if gated.impossible:
        return Solved(Answer.IMPOSSIBLE)
    return _asked(gated, len(box.lower), seconds, whole)


def _asked(gated: Gated, inputs: int, seconds: float, whole: bool) -> Solved:
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_matrix

    encoding = gated.encoding
    size = encoding.size
    weight = csr_matrix(np.concatenate([form.wide(size) for form, _ in encoding.rows]))
    least = np.concatenate([least - form.bias for form, least in encoding.rows])
    integral = encoding.whole.copy()
    integral[:inputs] = whole
    found = milp(
        gated.slack.wide(size)[0],
        constraints=LinearConstraint(weight, least, np.inf),
        bounds=Bounds(encoding.lower, encoding.upper),
        integrality=integral.astype(int),
        options={"time_limit": seconds, "mip_rel_gap": ENOUGH},
    )
    if found.status == 2:
        return Solved(Answer.IMPOSSIBLE)
    if found.x is None:
        return Solved(Answer.UNKNOWN)
    return Solved(Answer.REACHED, found.x[:inputs])
