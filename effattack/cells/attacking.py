"""The rows of an attack cell: every input is attacked, run on the deployed path, and audited.

The prediction comes from ``forward``, the work is what was counted while it ran, and ``trace`` must
have declared the same. An artefact that ships tells both itself, and its twin stands beside.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from effattack.attacks.fitting import fitted
from effattack.attacks.objectives import Step
from effattack.cells.held import Held
from effattack.cells.marks import marked
from effattack.cells.spec import CellSpec
from effattack.domains import Batch
from effattack.errors import ContractError, MeasurementError
from effattack.results import heat
from effattack.results.decisions import opened, to_text
from effattack.victim import Audit, Victim, audit
from effattack.victim.checks.costs import expect_admitted

SHOWN = 8
"""Inputs per victim and attack that the frame keeps for the report."""
STORED = 2 * 10**6
"""Bytes of attacked inputs that a cell stores for a corpus, beside its kept ones."""

Watch = Callable[[CellSpec, Step], None]
"""Told of every step of an attack, and whose it is."""


def run_attack(held: Held, spec: CellSpec, watch: Watch) -> pd.DataFrame:
    """Attack one slice and score it input by input.

    Raises:
        ContractError: if the declared work of an input is not the executed one, is none, leaves
            out work that the counter cannot see, or is more than the victim admits.
        MeasurementError: if no answer can be read.
    """
    victim, domain, task = held.victim, held.victim.domain, held.victim.task
    inputs, labels = held.inputs(spec)
    attack, watched = held.attacks[spec.attack_digest], partial(watch, spec)
    with marked("attack"):
        adversarial = fitted(attack, watched)(inputs, labels, watched)
    with marked("audit"):
        found = audit(victim, adversarial)
    _expect_answers(victim, spec, found)
    answers, kept = task.answer(found.logits), domain.kept(adversarial, inputs)
    samples = np.arange(spec.first, spec.last)
    return pd.DataFrame(
        {
            "sample": samples,
            "knowledge": attack.knowledge,
            "label": [task.text(label) for label in labels],
            "prediction": [task.text(answer) for answer in answers],
            "right": task.right(answers, labels, kept).cpu(),
            **_agreement(held, spec, answers, kept),
            **_if_told("as_twin", found.as_twin),
            **_if_told("capped", found.capped),
            "tokens_sent": domain.tokens(adversarial),
            **_work(victim, spec, found, attack.threat.largest(inputs)),
            "elementwise": found.elementwise,
            "outside": [json.dumps(one) if one else None for one in found.outside],
            "modelled_joules": found.modelled_joules,
            "knife_edge": found.knife_edge,
            **domain.distances(adversarial, inputs),
            "opened": [opened(one) for one in found.decisions],
            "decisions": [
                to_text(one) if sample < SHOWN else None
                for sample, one in zip(samples, found.decisions, strict=True)
            ],
            "stage_macs": [json.dumps(one) if one else None for one in found.stages],
            "heat": [
                _heat(boxes, single) if sample < SHOWN else None
                for sample, boxes, single in zip(
                    samples, found.candidates, domain.singles(adversarial), strict=True
                )
            ],
            "image": _stored(held, spec, found, domain.pack(adversarial)),
        }
    )


def _heat(boxes: Tensor | None, image: Tensor) -> bytes | None:
    """Where the candidates of an image lie; None of victims that tell none."""
    if boxes is None:
        return None
    height, width = image.shape[-2:]
    return heat.to_bytes(heat.covered(boxes.numpy(), (height, width)))


def _stored(held: Held, spec: CellSpec, found: Audit, rows: list[bytes]) -> list[bytes | None]:
    """The attacked inputs that are stored: those to be kept, and of the others, those that take
    back most as far as there is room."""
    room, stored = STORED, set(range(spec.kept - spec.first))
    for index in _by_gain(held, spec, found) if sum(map(len, rows)) > room else range(len(rows)):
        room -= len(rows[index])
        if room >= 0:
            stored.add(index)
    return [row if index in stored else None for index, row in enumerate(rows)]


def _by_gain(held: Held, spec: CellSpec, found: Audit) -> list[int]:
    """Rows of a slice, those first whose work rose most by the count that judges."""
    victim = held.victim
    with torch.no_grad():
        clean = victim.spent(victim.trace(held.inputs(spec)[0])).cpu()
    work = found.macs if victim.currency == "macs" else found.counts[victim.currency]
    return (work - clean).argsort(descending=True, stable=True).tolist()


def _agreement(
    held: Held, spec: CellSpec, answers: Tensor, kept: Tensor | None
) -> dict[str, Tensor]:
    """Whether each answer agrees with the clean one, where the stored answers cannot tell it."""
    if held.victim.task.exact:
        return {}
    return {"same": held.victim.task.agree(held.answers(spec), answers, kept).cpu()}


def _if_told(column: str, values: tuple[bool | None, ...]) -> dict[str, tuple[bool | None, ...]]:
    """A column of what not every victim tells: whether a twin decides alike, or a cap ended it."""
    return {} if None in values else {column: values}


def _expect_answers(victim: Victim, spec: CellSpec, found: Audit) -> None:
    if broken := (~victim.task.valid(found.logits)).nonzero().flatten().tolist():
        raise MeasurementError(
            f"{spec.victim}: no answer can be read from the outputs for {victim.domain.noun} "
            f"{spec.first + broken[0]} under {spec.attack} (NaN or infinite?): check the weights "
            "and the normalisation"
        )


def _work(victim: Victim, spec: CellSpec, found: Audit, largest: Batch) -> dict[str, Tensor]:
    """Each count by its name, and the most of it that the threat admits: ``max_`` and its name."""
    columns: dict[str, Tensor] = {}
    for name, spent in {"macs": found.macs, **found.counts}.items():
        most = victim.ceiling(largest, name).cpu().double()
        for row, (done, admitted) in enumerate(zip(spent.tolist(), most.tolist(), strict=True)):
            what = f"{victim.domain.noun} {spec.first + row} under {spec.attack}"
            if name == "macs":
                expect_admitted(victim, done, what)
            if done > admitted:
                raise ContractError(
                    f"{victim.name}: {what} took {done:,.0f} {name}, {done - admitted:,.0f} more "
                    "than the ceiling of its threat: correct Victim.ceiling"
                )
        columns |= {name: spent, f"max_{name}": most}
    return columns
