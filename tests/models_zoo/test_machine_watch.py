"""Modalities are paid for one after the other; machines are made by rule."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import PCG64, Generator
from torch import Tensor, nn
from toys import embedded

from effattack.attacks import build
from effattack.counting.macs import count_macs
from effattack.domains import PartsBatch, Pixels, Series
from effattack.errors import UsageError
from effattack.models_zoo.files import read_card
from effattack.models_zoo.multimodal import machines
from effattack.models_zoo.multimodal.gated import Modality, ModalityCascade
from effattack.models_zoo.multimodal.machine_watch import (
    machine_watch_without_camera,
    machine_watch_without_vibration,
)
from effattack.models_zoo.recipes import RECIPES
from effattack.threats import parse_threat
from effattack.victim import Victim, audit
from effattack.victim.checks import INVARIANTS

CLASSES = 3
MACS = {
    "wire": (5 * 4 + 4 * CLASSES, 4 * 2 + 2 * CLASSES),
    "eye": (9 * 6 + 6 * CLASSES, 6 * 2 + 2 * CLASSES),
}
"""Of each stage and its head, by hand."""
ONE = 1 / 300


def stage(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, outputs), nn.Tanh())


def modality(domain: Any, *widths: int) -> Modality:
    sizes = list(pairwise(widths))
    heads = [nn.Linear(o, CLASSES) for _, o in sizes]
    return Modality(domain, [stage(*size) for size in sizes], heads)


def made(threshold: float | Sequence[float] = 0.6) -> ModalityCascade:
    """A wire of five samples before an eye of nine pixels, two classifiers each."""
    torch.manual_seed(0)
    parts = {
        "wire": modality(Series(1, 5, -1, 1), 5, 4, 2),
        "eye": modality(Pixels((1, 3, 3)), 9, 6, 2),
    }
    victim = ModalityCascade(parts, threshold, name="toy watch")
    with torch.no_grad():
        for head in (h for part in parts.values() for h in part.heads):
            head.weight.mul_(4)
    return victim


def seen(count: int, seed: int = 0) -> PartsBatch:
    draw = torch.Generator().manual_seed(seed)
    wire, eye = (torch.rand(count, 1, *size, generator=draw) for size in ((5,), (3, 3)))
    return PartsBatch({"wire": 2 * wire - 1, "eye": eye})


def test_macs_are_those_of_the_modalities_that_were_paid_for() -> None:
    """By hand from which gates were passed, against the closed form, the counter and the stages."""
    victim, batch = made(), seen(40)
    trace = victim.trace(batch)
    assert [gate.name for gate in trace.gates] == ["wire.exits.0", "pay.eye", "eye.exits.0"]
    on, eye, further = (gate.active[:, 0].double() for gate in trace.gates)
    assert 0 < further.sum() < eye.sum() < on.sum() < 40, "else this tells nothing"
    (one, two), (three, four) = MACS["wire"], MACS["eye"]
    assert torch.equal(trace.stages["wire"], one + two * on)
    assert torch.equal(trace.stages["eye"], three * eye + four * further)
    assert torch.equal(trace.macs, trace.stages["wire"] + trace.stages["eye"])
    assert torch.equal(audit(victim, batch).macs, trace.macs)
    assert victim.max_macs == one + two + three + four
    assert victim.dense_macs == victim.max_macs - (4 + 6) * CLASSES


def test_a_modality_that_is_not_paid_for_does_not_matter() -> None:
    """Whatever its part holds, numbers or not."""
    victim, batch = made(), seen(40)
    paid = victim.trace(batch).stages["eye"] > 0
    blind = batch.replaced(eye=torch.full_like(batch["eye"], torch.nan))
    answers = victim(blind)
    torch.testing.assert_close(answers[~paid], victim(batch)[~paid])
    assert answers[paid].isnan().all()


def test_evidence_adds_up_as_bayes_has_it() -> None:
    """Two parts that are independent given the class, each with its exact log-probabilities."""
    table = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4], [0.2, 0.3, 0.5]]).double()
    parts = {}
    for name, domain in {"wire": Series(1, 3, 0, 1), "eye": Pixels((1, 1, 3))}.items():
        head = nn.Linear(3, 3, bias=False)
        head.weight = nn.Parameter(table.log().clone())
        parts[name] = Modality(domain, [nn.Flatten()], [head])
    victim = ModalityCascade(parts, 1.0).double()
    one, other = (
        outcome.flatten() for outcome in torch.meshgrid(*[torch.arange(3)] * 2, indexing="ij")
    )
    hot = nn.functional.one_hot
    batch = PartsBatch(
        {"wire": hot(one, 3)[:, None].double(), "eye": hot(other, 3)[:, None, None].double()}
    )
    joint = table[:, one] * table[:, other]
    posterior = (joint / joint.sum(0)).T
    torch.testing.assert_close(victim(batch).softmax(1), posterior)


@pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
def test_it_keeps_the_contract(check: Callable[[Victim, Any], list[str]]) -> None:
    assert check(made(), seen(12)) == []


@pytest.mark.slow
@given(threshold=st.floats(0, 1), seed=st.integers(0, 2**16))
@settings(max_examples=25, deadline=None)
def test_both_paths_answer_alike_at_any_threshold(threshold: float, seed: int) -> None:
    victim, batch = made(threshold).double(), seen(9, seed)
    trace = victim.trace(batch)
    torch.testing.assert_close(victim(batch), trace.logits)
    assert sum(count_macs(victim, one) for one in batch.split(1)) == trace.macs.sum()


@pytest.mark.parametrize("missing", ["eye", "wire"])
def test_a_missing_modality_is_refused_and_the_others_answer(missing: str) -> None:
    victim, batch = made(), seen(6)
    rest = PartsBatch({name: part for name, part in batch.parts.items() if name != missing})
    for path in (victim, victim.trace):
        with pytest.raises(UsageError, match=rf"got no {missing}.*victim.without\('{missing}'\)"):
            path(rest)
    (left,) = rest.parts
    others = victim.without(missing)
    assert others.name == f"toy watch_without_{missing}"
    assert others.max_macs == sum(MACS[left])
    own: Any = victim.modalities[left]
    sure = ~others.criterion.go_on(own.said(rest[left])[:, :1])
    torch.testing.assert_close(others(rest)[sure], own.said(rest[left])[sure, 0])
    torch.testing.assert_close(others(rest)[~sure], own.said(rest[left])[~sure, -1])
    assert torch.equal(others.trace(rest).stages[left], audit(others, rest).macs)


def test_a_cascade_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="nobody has no modalities: give one"):
        ModalityCascade({}, 0.5, name="nobody")


def test_thresholds_of_single_decisions_are_not_given_to_others() -> None:
    victim = made([0.6, 0.7, 0.8])
    with pytest.raises(UsageError, match=r"without eye there are fewer: .* \(wire\) and a crit"):
        victim.without("eye")


def test_what_cannot_be_left_out_is_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown modality 'nose'"):
        made().without("nose")
    with pytest.raises(UsageError, match="no modality but wire: a request must bring it"):
        made().without("eye").without("wire")
    parts = {"wire": modality(Series(1, 5, -1, 1), 5, 4), "eye": modality(Pixels((1, 3, 3)), 9, 6)}
    with pytest.raises(UsageError, match="two_without_eye has one classifier in all"):
        ModalityCascade(parts, 0.5, name="two").without("eye")


def test_modalities_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="1 stages and 2 heads"):
        Modality(Series(1, 5, -1, 1), [stage(5, 4)], [nn.Linear(4, 3)] * 2)
    with pytest.raises(UsageError, match=r"heads have \[3, 2\] classes"):
        Modality(Series(1, 4, -1, 1), [stage(4, 4)] * 2, [nn.Linear(4, 3), nn.Linear(4, 2)])
    other = Modality(Pixels((1, 3, 3)), [stage(9, 4)], [nn.Linear(4, 2)])
    with pytest.raises(UsageError, match="'wire': 3, 'eye': 2} classes"):
        ModalityCascade({"wire": modality(Series(1, 5, -1, 1), 5, 4), "eye": other}, 0.5)


def test_the_test_machines_are_the_same_everywhere() -> None:
    batch, labels = machines.scored_machines()
    machines.DOMAIN.check(batch)
    content = b"".join(machines.DOMAIN.pack(batch)) + labels.numpy().astype("<i8").tobytes()
    assert hashlib.sha256(content).hexdigest()[:16] == "523af2802a6a1788"


@pytest.mark.slow
def test_splits_differ_and_their_deviation_is_declared() -> None:
    splits = [machines.watched(split) for split in ("train", "heldout", "test")]
    declared: Any = machines.DOMAIN.parts["vibration"]
    assert splits[0][0]["vibration"].std().item() == pytest.approx(declared.deviation, abs=5e-4)
    prints = [set(machines.DOMAIN.fingerprints(batch)) for batch, _ in splits]
    assert sum(map(len, prints)) == len(set.union(*prints)) == 4500
    assert splits[2][1].bincount().tolist() == [50] * len(machines.CLASSES)


def harmonic(kind: str, order: int) -> float:
    """Mean size of a harmonic of the revolution, of 200 machines whose fault is at its worst."""
    draw, sizes = Generator(PCG64(5)), []
    for _ in range(200):
        state = draw.bit_generator.state
        turns = np.arange(machines.LENGTH) * draw.uniform(8, 12) / machines.LENGTH
        draw.bit_generator.state = state
        signal = machines.vibration(machines.CLASSES.index(kind), 1.0, draw)
        wave = np.exp(-2j * np.pi * order * turns)
        sizes.append(2 * abs((signal * wave).mean()))
    return float(np.mean(sizes))


@pytest.mark.parametrize(
    ("kind", "order", "more"),
    [("out of balance", 1, 1.2), ("out of line", 2, 1.0), ("out of line", 3, 0.4)],
)
def test_faults_of_the_rotor_show_in_their_harmonic(kind: str, order: int, more: float) -> None:
    assert harmonic(kind, order) - harmonic("sound", order) == pytest.approx(more, abs=0.06)


@pytest.mark.parametrize("kind", ["cracked", "leaking"])
def test_faults_of_the_surface_leave_the_vibration_as_it_was(kind: str) -> None:
    sound, other = (
        machines.vibration(machines.CLASSES.index(name), 1.0, Generator(PCG64(3)))
        for name in ("sound", kind)
    )
    assert np.array_equal(sound, other)


def test_a_bearing_rings_as_often_as_it_is_hit() -> None:
    """At a revolution in 36 samples, ten apart."""
    rings = machines.ringing(np.arange(108) / 36)
    assert np.allclose(rings[:10], rings[50:60])
    assert rings[0] == 1
    assert rings[1] == pytest.approx(np.exp(-0.2) * np.cos(0.6 * np.pi))


@pytest.fixture(scope="module")
def watch() -> ModalityCascade:
    victim = embedded("machine_watch")
    assert isinstance(victim, ModalityCascade)
    return victim


@pytest.mark.parametrize(
    ("factory", "data", "key"),
    [
        (machine_watch_without_camera, machines.scored_vibrations, "without_camera"),
        (machine_watch_without_vibration, machines.scored_pictures, "without_vibration"),
    ],
)
def test_the_card_tells_what_a_missing_modality_costs(
    watch: ModalityCascade, factory: Any, data: Any, key: str
) -> None:
    victim, card = factory(), read_card("machine_watch")
    assert victim.task.names == watch.task.names == machines.CLASSES
    judged(victim, *data(), card[key])
    assert victim.data.endswith(data.__name__)
    assert card[key]["accuracy"] < card["accuracy"] - 0.1, "the gate is needed"


def judged(victim: Victim, batch: PartsBatch, labels: Tensor, card: dict[str, Any]) -> None:
    with torch.no_grad():
        trace = victim.trace(batch)
    accuracy = (trace.logits.argmax(1) == labels).double().mean().item()
    assert accuracy == pytest.approx(card["accuracy"], abs=1.01 * ONE)
    assert trace.macs.mean().item() == pytest.approx(card["clean_macs"], rel=5e-3)


def test_the_card_of_all_modalities_agrees(watch: ModalityCascade) -> None:
    card = read_card("machine_watch")
    judged(watch, *machines.scored_machines(), card)
    assert card["accuracy"] >= 0.95
    assert card["accuracy"] >= card["dense_accuracy"] - 0.02
    assert card["clean_macs"] <= 0.75 * card["max_macs"]
    assert (watch.max_macs, watch.dense_macs) == (card["max_macs"], card["dense_macs"])
    assert sum(p.numel() for p in watch.parameters()) == card["parameters"]
    assert card["recipe"].split()[-1] in RECIPES


@pytest.mark.slow
def test_the_sensor_makes_it_pay_for_the_camera_and_the_camera_cannot(
    watch: ModalityCascade,
) -> None:
    """By a change of the picture alone, nobody who was sure by vibration pays."""
    batch, _ = machines.watched("heldout")
    clean = watch.trace(batch)
    batch = batch[clean.stages["camera"] == 0][:16]
    for threat, pays in (("vibration:linf:.2sd", True), ("camera:linf:32/255", False)):
        found = build("Slowdown(steps=8)", watch, parse_threat(threat))(batch)
        assert (watch.trace(found).stages["camera"] > 0).any() == pays
