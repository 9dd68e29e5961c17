"""The most work that an input of a threat can cause, and an input that causes it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from effattack.certify.certificate import Certificate
from effattack.certify.exact.gates import TOLERANCE
from effattack.certify.exact.outcomes import Outcome, outcomes
from effattack.certify.exact.replaying import Replayed
from effattack.certify.exact.solving import Answer
from effattack.domains import Arrays
from effattack.errors import ContractError, NotApplicable, UsageError
from effattack.threats import ArrayThreat, Box, Linf, Threat, parse_threat
from effattack.victim import Victim, audit
from effattack.victim.undisturbed import undisturbed

Status = Literal["solved", "open", "timed out"]


@dataclass(frozen=True)
class Optimum:
    """The worst case of one input.

    Attributes:
        clean: MACs on the clean input.
        found: MACs of ``forward`` on the witness, counted.
        bound: no input of the threat on the grid of the domain takes more, gates within
            ``TOLERANCE`` of their threshold counted as open.
        witness: (1, ...), on the grid, inside the threat; the clean input where nothing is worse.
        status: "solved": found is the bound; "open": the solver's answer lies within the tolerance
            of a threshold, and no input on the grid was found there; "timed out".
        passes: of the victim through this input that it took.
        seconds: that it took.
    """

    clean: float
    found: float
    bound: float
    witness: Tensor
    status: Status
    passes: int
    seconds: float


def exact(
    victim: Victim, images: Tensor, threat: Threat | str, *, time_limit: float = 20.0
) -> Certificate:
    """The exact worst case of small networks, as a certificate.

    Args:
        victim: whose structure is known, of Linear and ReLU layers, gates by score margins.
        images: (B, *input_shape), of its domain.
        threat: a box around each: l-inf, or the whole range.
        time_limit: seconds per image; where they do not suffice, the bound so far stands.

    Raises:
        NotApplicable: for another victim, or a threat that is no box.
        UsageError: for inputs that cannot be used, or no time.
    """
    started = time.perf_counter()
    threat = _box_threat(victim, threat)
    found = optima(victim, images, threat, time_limit=time_limit)
    ceiling = victim.ceiling(threat.largest(images)).cpu()
    status = [each.status for each in found]
    most = torch.tensor([each.bound for each in found], dtype=torch.float64)
    return Certificate(
        kind="exact",
        victim=victim.name,
        threat=str(threat),
        currency="macs",
        clean=torch.tensor([each.clean for each in found], dtype=torch.float64),
        most=most,
        ceiling=ceiling,
        error=0.0,
        known=torch.tensor([s == "solved" for s in status]) | (most < ceiling),
        seconds=time.perf_counter() - started,
        passes=sum(each.passes + 1 for each in found) / len(found),
        note=(
            f"{status.count('solved')} of {len(found)} solved and replayed, "
            f"{status.count('timed out')} timed out, {status.count('open')} open; in floating "
            f"point, gates within {TOLERANCE:g} of a threshold count as open"
        ),
    )


def optima(
    victim: Victim, images: Tensor, threat: Threat | str, *, time_limit: float = 20.0
) -> list[Optimum]:
    """The worst case of each input; see :func:`exact`.

    Ways through the network are tried from the most expensive one down: is there a point of the box
    that takes it? A point is rounded to the grid and replayed; where rounding loses it, the solver
    is asked for a point of the grid.
    """
    threat = _box_threat(victim, threat)
    if not time_limit > 0:
        raise UsageError(f"time_limit = {time_limit}: give seconds per image, such as 20")
    victim.domain.check(images)
    clean = victim.domain.snap(victim.domain.place(images, victim.device))
    ways = outcomes(victim)
    with undisturbed(victim):
        found = [_worst(victim, single, threat, ways, time_limit) for single in clean.split(1)]
        counted = audit(victim, torch.cat([each.witness for each in found])).macs.tolist()
    for index, (each, macs) in enumerate(zip(found, counted, strict=True)):
        if each.found != macs:
            raise ContractError(
                f"{victim.name}: the witness of input {index} takes {macs:.0f} MACs, and trace "
                f"declares {each.found:.0f}: {victim.correction}"
            )
    return found


def _worst(
    victim: Victim, clean: Tensor, threat: ArrayThreat, ways: Sequence[Outcome], limit: float
) -> Optimum:
    started, replayed = time.perf_counter(), Replayed(victim, clean, threat)
    before = best = replayed.macs(clean)
    witness, bound, unknown = clean, before, False
    for way in ways:
        if way.macs <= best:
            break
        left = limit - (time.perf_counter() - started)
        answer, found = replayed.reached(way, left)
        if found is not None and (macs := replayed.macs(found)) > best:
            best, witness = macs, found
        if answer is not Answer.IMPOSSIBLE and way.macs > bound:
            bound, unknown = way.macs, answer is Answer.UNKNOWN
    status: Status = "solved"
    if best < bound:
        status = "timed out" if unknown else "open"
    return Optimum(
        clean=before,
        found=best,
        bound=max(bound, best),
        witness=witness,
        status=status,
        passes=replayed.passes,
        seconds=time.perf_counter() - started,
    )


def _box_threat(victim: Victim, threat: Threat | str) -> ArrayThreat:
    """Raises: NotApplicable, unless every value may change by itself."""
    found = parse_threat(threat) if isinstance(threat, str) else threat
    if not isinstance(victim.domain, Arrays) or not isinstance(found, Linf | Box):
        raise NotApplicable(
            f"{found} is no box around an array: exact worst cases are solved in linf and box"
        )
    return found.on(victim.domain)
