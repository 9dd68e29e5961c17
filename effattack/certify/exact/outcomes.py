"""Which sets of decisions a victim can take, what each costs, and what each asks of its gates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import product
from typing import NamedTuple

import numpy as np
import torch

from effattack.certify.exact.encoding import Encoding, Form
from effattack.certify.exact.gates import Gated
from effattack.certify.exact.reading import Reader, as_array
from effattack.errors import NotApplicable
from effattack.victim import Victim
from effattack.victim.structure import Exits, LeadRule, Models, Skips
from effattack.victim.undisturbed import glance

COVERED = (
    "early exits, cascades and skip networks of Linear and ReLU layers whose gates are score "
    "margins, such as exam_exit, exam_cascade and exam_skip"
)


class Outcome(NamedTuple):
    """A way through the network."""

    macs: float
    encode: Callable[[Gated], None]
    """Adds the network up to the last decision, and what the decisions ask."""


def outcomes(victim: Victim) -> list[Outcome]:
    """Those of a victim, most expensive first.

    Of stages in a row, the last ones that are reached: nothing is asked of where an input stops.

    Raises:
        NotApplicable: for a victim that is not covered, saying which are.
    """
    structure = victim.structure()
    if structure is None or victim.currency != "macs":
        raise _uncovered(victim, "it does not say what it is made of, or is not judged by MACs")
    if isinstance(structure, Skips):
        found = _skipping(structure, victim)
    elif isinstance(structure.criterion, LeadRule) and structure.criterion.earliest == 0:
        found = _chain(structure, structure.criterion, victim)
    else:
        raise _uncovered(victim, f"it stops by {structure.criterion!r}")
    found.sort(key=lambda outcome: -outcome.macs)
    point = np.zeros(math.prod(victim.input_shape))
    found[0].encode(Gated(Encoding(point, point)))  # refuses what cannot be read
    return found


def _chain(structure: Exits | Models, rule: LeadRule, victim: Victim) -> list[Outcome]:
    reader = Reader()

    def passing(count: int) -> Callable[[Gated], None]:
        def encode(gated: Gated) -> None:
            inputs = gated.encoding.inputs
            features = _normalised(inputs, structure, victim)
            for k in range(count):
                if isinstance(structure, Exits):
                    features = reader.read(structure.stages[k], features, gated.encoding)
                    scores = reader.read(structure.heads[k], features, gated.encoding)
                else:
                    scores = reader.read(structure.models[k], inputs, gated.encoding)
                gated.unsure(scores, rule.least_lead(k))

        return encode

    return [Outcome(macs, passing(count)) for count, macs in enumerate(structure.costs) if count]


def _normalised(inputs: Form, structure: Exits | Models, victim: Victim) -> Form:
    if isinstance(structure, Models):
        return inputs
    ones = torch.ones(victim.input_shape, dtype=torch.float64)
    mean, std = (
        as_array(torch.as_tensor(value).cpu().double() * ones).reshape(-1)
        for value in (structure.mean, structure.std)
    )
    return Form(inputs.weight / std[:, None], (inputs.bias - mean) / std)


def _skipping(structure: Skips, victim: Victim) -> list[Outcome]:
    reader, last = Reader(), max(structure.gated)
    costs = {gate.name: float(gate.cost) for gate in glance(victim).gates}
    gates = dict(zip(structure.gated, structure.gates, strict=True))

    def following(computed: Mapping[int, bool]) -> Callable[[Gated], None]:
        def encode(gated: Gated) -> None:
            features = reader.read(structure.stem, gated.encoding.inputs, gated.encoding)
            for k in range(last + 1):
                if k in structure.gated:
                    gate = structure.gated[k]
                    scores = reader.read(gate.scores, features, gated.encoding)
                    (gated.unsure if computed[k] else gated.sure)(scores, gate.least_lead)
                if computed.get(k, True) and k < last:
                    features = reader.read(structure.blocks[k], features, gated.encoding)

        return encode

    found = []
    for decisions in product((True, False), repeat=len(gates)):
        computed = dict(zip(gates, decisions, strict=True))
        saved = sum(costs[gates[k]] for k, on in computed.items() if not on)
        found.append(Outcome(victim.max_macs - saved, following(computed)))
    return found


def _uncovered(victim: Victim, reason: str) -> NotApplicable:
    return NotApplicable(f"{victim.name} has no exact worst case here ({reason}): {COVERED} do")
