"""Attacks with typing errors on trained victims: a classifier, a tagger, a generator."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from toys import embedded_or_skip as load

from effattack import attacks
from effattack.certify.enumeration import enumeration
from effattack.registry import call, import_factory
from effattack.threats import parse_threat
from effattack.victim import Victim, audit

NAMES = ("ner_exit", "sums_lm", "text_exit")


def prompts(victim: Victim, count: int) -> Tensor:
    assert victim.data is not None
    return call(import_factory(victim.data), victim.data)[0][:count]


def work(victim: Victim, batch: Tensor) -> Tensor:
    with torch.no_grad():
        return victim.spent(victim.trace(batch))


@pytest.mark.slow
@pytest.mark.parametrize("attack", ["QueryAttack(queries=20)", "Slowdown(steps=10)"])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_found_can_be_typed_and_is_no_cheaper(name: str, attack: str) -> None:
    victim = load(name)
    clean, threat = prompts(victim, 4), parse_threat("chars:2").on(victim.domain)
    found = attacks.build(attack, victim, threat)(clean)
    threat.check(found, clean)
    assert (work(victim, found) >= work(victim, clean)).all()
    assert (work(victim, found) <= victim.ceiling(threat.largest(clean), victim.currency)).all()
    assert torch.equal(audit(victim, found).macs, victim.trace(found).macs)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_answers_that_are_to_be_kept_are_kept(name: str) -> None:
    victim = load(name)
    clean, threat = prompts(victim, 4), parse_threat("chars:2").on(victim.domain)
    found = attacks.build("Slowdown(steps=10, keep_prediction=True)", victim, threat)(clean)
    answers = [victim.task.answer(victim(batch)) for batch in (clean, found)]
    assert victim.task.agree(*answers, victim.domain.kept(found, clean)).all()


@pytest.mark.slow
def test_the_worst_single_error_is_nearly_found() -> None:
    """At 600 prompts through the model of some 2,600 that the budget holds."""
    victim = load("text_exit")
    clean, threat = prompts(victim, 2), parse_threat("chars:1").on(victim.domain)
    exact = enumeration(victim, clean, threat)
    found = work(victim, attacks.build("Slowdown(steps=200)", victim, threat)(clean))
    assert (found <= exact.most).all()
    assert found.sum() - exact.clean.sum() >= 0.9 * (exact.most.sum() - exact.clean.sum())
