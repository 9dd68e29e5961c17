"""Stored inputs and a victim -> Evaluation, by forward passes alone.

Nothing is attacked: what was worst for one victim is judged on another, or on the same one changed.
The work of the clean inputs is the new victim's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from effattack.attacks import Attack
from effattack.attacks.controls import Clean
from effattack.attacks.replayed import Replayed
from effattack.budgets import at_budget
from effattack.cells.held import Held
from effattack.cells.performing import threads
from effattack.cells.plan import Plan
from effattack.cells.planning import SLICE, listed
from effattack.cells.spec import UNTIMED
from effattack.cells.store import Memory
from effattack.domains import Batch
from effattack.errors import UsageError
from effattack.inputs.corpus import Corpus
from effattack.inputs.readers import InMemory
from effattack.results.currency import expect_audited, unit, with_work
from effattack.results.evaluation import Evaluation
from effattack.runs.choosing import expect_fit
from effattack.runs.executors.in_process import InProcess
from effattack.runs.run import give_up, run
from effattack.threats import Threat, parse_threat
from effattack.victim import Victim
from effattack.victim.checks import check_declared

Place = tuple[Corpus, int]
"""One stored input."""
Stored = dict[Threat, dict[str, Place]]
"""Threat -> fingerprint of a clean input -> what is stored for it."""


def replay(victim: Victim, corpora: Sequence[Corpus], by: str | None = None) -> Evaluation:
    """Judge a victim on stored inputs.

    Args:
        victim: in eval mode.
        corpora: of inputs that it takes; see :func:`effattack.runs.choosing.chosen`.
        by: an audited count that judges in place of the victim's own currency.

    Returns:
        rows of the clean inputs and of the ``replayed`` ones; ``meta["replayed"]`` tells what the
        latter cost when they were recorded, and now.

    Raises:
        UsageError: for inputs that are not the victim's, or lie outside the budget that they name.
        ContractError: if the victim breaks the contract.
    """
    for corpus in corpora:
        expect_fit(victim, corpus)
    if by is not None:
        expect_audited(victim.name, by, {name: c.audited for name, c in victim.counts.items()})
    stored = _by_threat(victim, corpora)
    with threads(1):  # as cells that were attacked
        found = Evaluation.concat(_evaluated(victim, stored))
    found = found if by is None else found.judged_by(by)
    told = [_told(found, victim, threat, [*own.values()]) for threat, own in stored.items()]
    found.meta["replayed"] = told
    return found


def stored_inputs(victim: Victim, corpora: Sequence[Corpus]) -> tuple[Batch, Tensor]:
    """The clean inputs of corpora, each once, and their labels.

    Raises:
        UsageError: for inputs that are not the victim's.
    """
    for corpus in corpora:
        expect_fit(victim, corpus)
    places = {key: (c, row) for c in corpora for row, key in enumerate(c.keys)}
    return _clean(victim, [*places.values()])


def _by_threat(victim: Victim, corpora: Iterable[Corpus]) -> Stored:
    """Of each threat the inputs that are stored for it, by fingerprint; of several for one clean
    input, the one that took back most."""
    threats: dict[str, Threat] = {}
    found: Stored = {}
    for corpus in corpora:
        text = corpus.about.threat
        if text not in threats:
            threats[text] = parse_threat(text).on(victim.domain)
        own = found.setdefault(threats[text], {})
        for row, key in enumerate(corpus.keys):
            if key not in own or _factor(corpus, row) > _factor(*own[key]):
                own[key] = corpus, row
    return found


def _factor(corpus: Corpus, row: int) -> float:
    """Attacked over clean work, as recorded."""
    return float(corpus.work[row] / corpus.clean_work[row])


def _evaluated(victim: Victim, stored: Stored) -> list[Evaluation]:
    """One evaluation per set of threats, of the inputs that are stored for just these; under all
    of them the contract is checked once."""
    shelf, parts = Memory(), list[Evaluation]()
    contract, first = None, 0
    for threats, places in _groups(stored).items():
        plan = _planned(victim, {threat: stored[threat] for threat in threats}, places)
        contract = contract or plan.contract
        plan = replace(plan, cells=(contract, *plan.attacks))
        part = run([plan], shelf, InProcess(), give_up)[0]
        samples = part.samples.assign(sample=part.samples["sample"] + first)
        parts.append(Evaluation(samples, part.meta))
        first += len(places)
    return parts


def _groups(stored: Stored) -> dict[tuple[Threat, ...], dict[str, Place]]:
    """Threats -> the inputs that are stored for all of these, and for no other."""
    found: dict[tuple[Threat, ...], dict[str, Place]] = {}
    for own in stored.values():
        for key, place in own.items():
            threats = tuple(threat for threat in stored if key in stored[threat])
            found.setdefault(threats, {}).setdefault(key, place)
    return found


def _planned(victim: Victim, stored: Stored, places: dict[str, Place]) -> Plan:
    """The cells of inputs that are stored for all of these threats."""
    clean, labels = _clean(victim, [*places.values()])
    attacks: list[Attack] = [Clean(victim)]
    for threat, own in stored.items():
        attacked = {key: own[key][0].attacked[own[key][1]] for key in places}
        _expect_inside(victim, threat, clean, attacked, [own[key] for key in places])
        attacks.append(Replayed(victim, threat, attacked))
    held = Held(victim, attacks, InMemory(clean, labels))
    notes = check_declared(victim.checked or victim)
    return listed(held, held, skipped=(), notes=notes, size=SLICE, timed=UNTIMED)


def _clean(victim: Victim, places: Sequence[Place]) -> tuple[Batch, Tensor]:
    """The clean inputs of these places, on CPU, and their labels."""
    domain, like = victim.domain, victim.domain.example(1)
    inputs = domain.join([domain.unpack([c.clean[row]], like) for c, row in places])
    labels = [torch.from_numpy(c.labels[row : row + 1]) for c, row in places]
    domain.check(inputs)
    victim.task.check(joined := victim.task.join(labels), len(inputs))
    return inputs, joined


def _expect_inside(
    victim: Victim,
    threat: Threat,
    clean: Batch,
    attacked: dict[str, bytes],
    places: Sequence[Place],
) -> None:
    """Refuse stored inputs that are none of the budget.

    Raises:
        UsageError: naming the file, and what is wrong.
    """
    domain = victim.domain
    for one, row, (corpus, index) in zip(
        domain.singles(clean), attacked.values(), places, strict=True
    ):
        if flaw := threat.flaw(domain.unpack([row], one), one):
            raise UsageError(
                f"{corpus.name}, {domain.noun} {index}: {flaw}: the file was altered; record it "
                "again"
            )


def _told(evaluation: Evaluation, victim: Victim, threat: Threat, places: Sequence[Place]) -> str:
    """What stored inputs cost when they were recorded, and now."""
    samples = with_work(evaluation.samples)
    rows = samples[(samples.threat == threat.name) & (samples.eps == threat.eps)]
    now = rows.work.sum() / rows.clean_work.sum()
    before = sum(c.work[r] for c, r in places) / sum(c.clean_work[r] for c, r in places)
    names = " and ".join(dict.fromkeys(corpus.about.victim for corpus, _ in places))
    of = "" if names == victim.name else f" of {names}"
    currency = rows.currency.iloc[0]
    recorded = {corpus.about.currency for corpus, _ in places} == {currency}
    told = f"×{before:.2f} {unit(rows.iloc[0])} when recorded, ×{now:.2f} now"
    return (
        f"{victim.name} at {at_budget(threat.name, threat.eps)}: {len(places)} worst "
        f"{victim.domain.nouns}{of}: {told if recorded else f'×{now:.2f} {currency} now'}"
    )
