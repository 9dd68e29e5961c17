"""What ships is judged by itself; what attacks see is its twin."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from toys import SHAPE, LinearSaver, grey_images

from effattack.domains import Pixels
from effattack.tasks import Classes
from effattack.victim import Victim, audit
from effattack.victim.deployed import Deployed


def flipped(twin: Victim, threshold: float = 0.5) -> Any:
    """A run that decides otherwise than its twin where the first pixel is bright."""

    def run(batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        trace = twin.trace(batch)
        turned = batch.flatten(1)[:, :1] > threshold
        return twin(batch), {gate.name: gate.active ^ turned for gate in trace.gates}

    return run


def macs_of(twin: Victim) -> Any:
    return lambda batch: twin.trace(batch).macs + 1000


def test_what_is_scored_is_the_artefact_s_and_its_twin_stands_beside() -> None:
    twin, batch = LinearSaver(), grey_images(16)
    deployed = Deployed(twin, flipped(twin), macs_of(twin), max_macs=5000)
    found = audit(deployed, batch)
    turned = batch.flatten(1)[:, 0] > 0.5
    trace = twin.trace(batch)
    assert 0 < turned.sum() < 16
    assert list(found.as_twin) == (~turned).tolist()
    assert torch.equal(found.macs, trace.macs + 1000)
    gate = trace.gates[0]
    shown = torch.stack([one[gate.name] for one in found.decisions])
    assert torch.equal(shown, gate.active ^ turned[:, None])
    assert found.elementwise.isnan().all()
    assert torch.equal(deployed.trace(batch).macs, trace.macs), "attacks see the twin"
    assert torch.equal(deployed.queried.trace(batch).macs, found.macs), "queries the artefact"


def test_without_shown_decisions_the_work_stands_for_them() -> None:
    twin, batch = LinearSaver(), grey_images(8)
    same = Deployed(twin, twin.__call__, lambda x: twin.trace(x).macs)
    assert all(audit(same, batch).as_twin)
    dearer = Deployed(twin, twin.__call__, macs_of(twin), max_macs=5000)
    assert not any(audit(dearer, batch).as_twin)
    wrong = Deployed(twin, lambda x: twin(x).flip(1), lambda x: twin.trace(x).macs)
    assert not any(audit(wrong, batch).as_twin)


def test_work_that_nobody_knows_is_nan() -> None:
    twin = LinearSaver()
    deployed = Deployed(twin, twin.__call__)
    found = audit(deployed, grey_images(4))
    assert not deployed.counted
    assert found.macs.isnan().all()
    assert all(found.as_twin)


def test_without_a_twin_it_shows_its_answers() -> None:
    twin, batch = LinearSaver(), grey_images(4)
    alone = Deployed(
        None, twin.__call__, lambda x: twin.trace(x).macs, domain=Pixels(SHAPE), task=Classes(2)
    )
    assert alone.sees == "answers"
    assert alone.checked is None
    assert alone.queried is alone
    assert audit(alone, batch).as_twin == (None,) * 4
    trace = alone.trace(batch)
    assert trace.gates == ()
    assert torch.equal(trace.macs, twin.trace(batch).macs)
    assert torch.equal(trace.logits, twin(batch))
