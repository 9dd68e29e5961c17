"""What ships is judged by itself; what attacks see is its twin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from toys import SHAPE, LinearSaver, grey_images

from effattack.attacks.by_name import build
from effattack.domains import Pixels
from effattack.errors import ContractError, NotApplicable, UsageError
from effattack.results.selfchecks import check_victim
from effattack.tasks import Classes
from effattack.victim import Victim, audit
from effattack.victim.checks import ARTEFACT, INVARIANTS, held_to
from effattack.victim.deployed import Deployed
from effattack.victim.digests import victim_digest


def flipped(twin: Victim) -> Callable[[Tensor], Any]:
    """A run that decides otherwise than its twin where the first pixel is bright."""

    def run(batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return twin(batch), {
            gate.name: gate.active ^ bright(batch)[:, None] for gate in twin.trace(batch).gates
        }

    return run


def bright(batch: Tensor) -> Tensor:
    return batch.flatten(1)[:, 0] > 0.5


def dearer(twin: Victim) -> Callable[[Tensor], Tensor]:
    return lambda batch: twin.trace(batch).macs + 1000


def as_declared(twin: Victim) -> Callable[[Tensor], Tensor]:
    return lambda batch: twin.trace(batch).macs


def alone(twin: Victim, work: Any = None) -> Deployed:
    return Deployed(None, twin.__call__, work, domain=Pixels(SHAPE), task=Classes(2))


def test_what_is_scored_is_the_artefact_s_and_its_twin_stands_beside() -> None:
    twin, batch = LinearSaver(), grey_images(16)
    deployed = Deployed(twin, flipped(twin), dearer(twin), max_macs=5000)
    found, trace = audit(deployed, batch), twin.trace(batch)
    assert 0 < bright(batch).sum() < 16
    assert list(found.as_twin) == (~bright(batch)).tolist()
    assert torch.equal(found.macs, trace.macs + 1000)
    shown = torch.stack([one[trace.gates[0].name] for one in found.decisions])
    assert torch.equal(shown, trace.gates[0].active ^ bright(batch)[:, None])
    assert found.elementwise.isnan().all()
    assert torch.equal(deployed.trace(batch).macs, trace.macs), "attacks see the twin"
    assert torch.equal(deployed.queried.trace(batch).macs, found.macs), "queries the artefact"


def test_without_shown_decisions_the_work_stands_for_them() -> None:
    twin, batch = LinearSaver(), grey_images(8)
    same = Deployed(twin, twin.__call__, as_declared(twin))
    assert all(audit(same, batch).as_twin)
    assert not any(audit(Deployed(twin, twin.__call__, dearer(twin), max_macs=5000), batch).as_twin)
    wrong = Deployed(twin, lambda x: twin(x).flip(1), as_declared(twin))
    assert not any(audit(wrong, batch).as_twin)


def test_what_a_gate_that_was_not_reached_would_decide_is_no_matter() -> None:
    twin, batch = LinearSaver(), grey_images(8)

    class Unreached(LinearSaver):
        def trace(self, images: Tensor) -> Any:
            found = super().trace(images)
            gate = found.gates[0]
            never = torch.zeros_like(gate.reached)
            return found._replace(gates=(gate._replace(reached=never, active=never),))

    assert all(audit(Deployed(Unreached(), flipped(twin)), batch).as_twin)


def test_work_that_nobody_knows_is_nan() -> None:
    twin = LinearSaver()
    found = audit(Deployed(twin, twin.__call__), grey_images(4))
    assert found.macs.isnan().all()
    assert all(found.as_twin)


def test_without_a_twin_it_shows_its_answers() -> None:
    twin, batch = LinearSaver(), grey_images(4)
    artefact = alone(twin, as_declared(twin))
    assert artefact.checked is None
    assert audit(artefact, batch).as_twin == (None,) * 4
    trace = artefact.trace(batch)
    assert trace.gates == ()
    assert torch.equal(trace.macs, twin.trace(batch).macs)
    assert torch.equal(trace.logits, twin(batch))
    for name in ("Slowdown", "AutoSlow", "Sponge"):
        with pytest.raises(NotApplicable, match="QueryAttack"):
            build(name, artefact)
    moved = build("QueryAttack(queries=20)", artefact, 0.2)(batch)
    assert (twin.trace(moved).macs >= trace.macs).all()
    with pytest.raises(NotApplicable, match=r"work that is known.*LatencyQuery applies"):
        build("QueryAttack", alone(twin))


def test_queries_ask_the_artefact_and_gradients_its_twin() -> None:
    """Work that falls where the twin's rises: each attack raises what it sees."""
    twin, batch = LinearSaver(), grey_images(16)
    upside_down = Deployed(twin, twin.__call__, lambda x: 400 - twin.trace(x).macs, max_macs=400)
    crafted = build("Slowdown(steps=20)", upside_down, 0.2)(batch)
    queried = build("QueryAttack(queries=30)", upside_down, 0.2)(batch)
    clean = twin.trace(batch).macs
    assert (twin.trace(crafted).macs >= clean).all()
    assert (twin.trace(queried).macs <= clean).all()
    assert (twin.trace(crafted).macs > clean).any()
    assert (twin.trace(queried).macs < clean).any()


def test_the_contract_is_the_twin_s_and_batch_mates_are_the_artefact_s() -> None:
    twin, batch = LinearSaver(), grey_images(8)
    (contract, gradients, again) = check_victim(Deployed(twin, flipped(twin)), batch)
    assert contract.passed
    assert "of its twin and the artefact" in contract.message
    assert gradients.passed
    assert again.passed

    def mixing(images: Tensor) -> Tensor:
        return twin(images) if len(images) == 1 else twin(images).flip(1)

    with pytest.raises(ContractError, match="declare batch_coupled=True"):
        check_victim(Deployed(twin, mixing), batch)
    assert check_victim(Deployed(twin, mixing, batch_coupled=True), batch)[0].passed
    assert "of it alone" in check_victim(alone(twin), batch)[0].message


def test_an_artefact_for_one_input_runs_in_a_loop() -> None:
    twin, batch = LinearSaver(), grey_images(5)

    def single(images: Tensor) -> Tensor:
        if len(images) != 1:
            raise RuntimeError("Got invalid dimensions: got 5, expected 1")
        return twin(images)

    deployed = Deployed(twin, single, lambda x: twin.trace(x).macs)
    assert torch.allclose(deployed(batch), twin(batch))
    assert torch.equal(deployed.queried.trace(batch).macs, twin.trace(batch).macs)


def test_the_digest_covers_what_the_artefact_does() -> None:
    twin = LinearSaver()

    def made(shift: float, weights: Tensor) -> Deployed:
        return Deployed(twin, lambda x: twin(x) + shift * weights, lambda x: twin.trace(x).macs)

    one, ones = torch.ones(2), torch.ones(2)
    assert victim_digest(made(0.5, one)) == victim_digest(made(0.5, ones))
    assert victim_digest(made(0.5, one)) != victim_digest(made(0.25, one))
    assert victim_digest(made(0.5, one)) != victim_digest(made(0.5, 2 * one))
    assert victim_digest(made(0.5, one)) != victim_digest(Deployed(twin, twin.__call__))


TWIN = LinearSaver()


def failing(batch: Tensor) -> Tensor:
    raise ValueError("no kernel for this shape")


def gates_of(name: str, units: int) -> Callable[[Tensor], Any]:
    return lambda x: (TWIN(x), {name: torch.ones(len(x), units, dtype=torch.bool)})


GATE = TWIN.trace(grey_images(1)).gates[0].name
BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no victim": ({"twin": torch.nn.Linear(1, 1), "run": TWIN}, UsageError, "effattack.Victim"),
    "nothing known": ({"twin": None, "run": TWIN}, UsageError, r"domain=.*task="),
    "no function": ({"run": 3}, UsageError, "functions of a batch"),
    "other classes": ({"run": TWIN, "task": Classes(7)}, UsageError, r"classes 7.*classes 2"),
    "other size": ({"run": TWIN, "domain": Pixels((1, 8, 8))}, UsageError, r"8, 8.*4, 4"),
    "other logits": ({"run": lambda x: torch.zeros(len(x), 7)}, ContractError, r"\(1, 7\)"),
    "no tensor": ({"run": lambda x: "cat"}, ContractError, "run returned a str"),
    "nothing": ({"run": lambda x: None}, ContractError, "run returned None"),
    "raising": ({"run": failing}, ContractError, "run raised ValueError.*no kernel for this shape"),
    "work raising": ({"run": TWIN, "work": failing}, ContractError, "work raised ValueError"),
    "no MACs": ({"run": TWIN, "work": lambda x: {"n": x[:, 0, 0, 0]}}, ContractError, "out macs"),
    "of two": ({"run": TWIN, "work": lambda x: torch.ones(2)}, ContractError, "one number each"),
    "negative": ({"run": TWIN, "work": lambda x: -torch.ones(len(x))}, ContractError, "-1"),
    "none done": ({"run": TWIN, "work": lambda x: np.zeros(len(x))}, ContractError, "0 macs"),
    "unknown gate": ({"run": gates_of("exit", 1)}, ContractError, f"'exit', which.*{GATE}"),
    "other units": ({"run": gates_of(GATE, 3)}, ContractError, "3 decisions of gate"),
    "no bools": ({"run": lambda x: (TWIN(x), {GATE: TWIN(x)})}, ContractError, "bool by the name"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_with_its_remedy(case: str) -> None:
    given, error, message = BAD[case]
    with pytest.raises(error, match=message):
        Deployed(**{"twin": TWIN, **given})


def test_an_artefact_is_held_to_the_contract_of_its_twin() -> None:
    twin = LinearSaver()
    assert held_to(twin) == [(check, twin) for check in INVARIANTS]
    artefact = Deployed(twin, twin)
    of_the_twin = [(check, twin) for check in INVARIANTS]
    assert held_to(artefact) == of_the_twin + [(check, artefact) for check in ARTEFACT]
