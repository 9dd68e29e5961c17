"""From a victim that loses its savings to one that keeps them, at a stated price."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effattack import __version__
from effattack.attacks.base import as_threat
from effattack.errors import (
    HardeningError,
    MeasurementError,
    NotApplicable,
)
from effattack.hardening.card import Card, Figures, figures
from effattack.hardening.data import divided
from effattack.hardening.fitting import Epoch
from effattack.hardening.learning import Schedule, learner, learning_parts, train
from effattack.hardening.methods import Method, method_of
from effattack.hardening.terms import Terms, choose_by, refusal
from effattack.hardening.thresholds import expect_thresholds, rule_of
from effattack.results.files import writable
from effattack.tasks import Classes
from effattack.threats import ArrayThreat, Linf, Threat
from effattack.threats.arrays import on_arrays
from effattack.victim import Victim
from effattack.victim.digests import digest
from effattack.victim.undisturbed import glance


def unwatched(epoch: Epoch) -> None:
    """Of a training that nobody watches."""


@dataclass(frozen=True)
class Hardened:
    """What a hardening made.

    Attributes:
        victim: a copy, hardened; the one that was given is as it was.
        card: what was traded.
    """

    victim: Victim
    card: Card

    @property
    def state(self) -> dict[str, Tensor]:
        """Weights and buffers, by name."""
        return dict(self.victim.state_dict())


def harden(
    victim: Victim,
    inputs: Tensor,
    labels: Tensor,
    threat: Threat | str | float,
    method: Method | str = "answers",
    *,
    train_at: Threat | str | float | None = None,
    schedule: Schedule | None = None,
    terms: Terms | None = None,
    heldout: tuple[Tensor, Tensor] | None = None,
    groups: Tensor | None = None,
    parts: Sequence[str] | None = None,
    checkpoints: str | Path | None = None,
    told: Callable[[Epoch], None] = unwatched,
) -> Hardened:
    """Harden a victim against slowdown: a trained copy, its thresholds chosen under attack.

    Accuracy, clean work and savings retained under AutoSlow are compared on held-out inputs, before
    and after; a copy that lost more than the terms allow, or won nothing, is not handed out.

    Args:
        victim: any classifier with gates whose ``trace`` is differentiable in its weights; early
            exits, cascades, token-dropping transformers, gated networks.
        inputs: (B, ...), to train on, floats of its domain.
        labels: (B,) class indices.
        threat: what is to be withstood: a threat, its text (``"l2:1.0"``), or an l-inf radius.
        method: how, or its name with options, ``"both(steps=5)"``: :data:`.methods.METHODS`.
        train_at: another threat to train against; a budget half as large again helps at this one.
        schedule: how long is trained.
        terms: what it may cost.
        heldout: inputs and labels that choose thresholds and judge; by default a fifth of the
            given ones, drawn by the seed, which are then not trained on.
        groups: (B,) group of each input, from 0 on, for methods that weigh them; by default labels.
        parts: names of the modules that learn; by default all models of a cascade but the last,
            else the whole victim.
        checkpoints: a folder: training is stored there after each epoch, and the same call goes on.
        told: called after each epoch.

    Raises:
        NotApplicable: for a victim that the method cannot apply to.
        UsageError: for inputs, labels or settings that cannot be used.
        HardeningError: where more was lost than allowed, or nothing won; its ``hardened`` tells.
        MeasurementError: where nothing is saved on clean inputs.
    """
    started = time.monotonic()
    called = str(method)
    method = method_of(method) if isinstance(method, str) else method
    schedule, terms = schedule or Schedule(), terms or Terms()
    judged = _threat(threat, victim)
    trained = judged if train_at is None else _threat(train_at, victim)
    _check(victim, method, parts)
    data = divided(victim, inputs, labels, groups, heldout, schedule.seed)
    copied, notes = _copy(victim), [*data.notes]

    def measured(victim: Victim) -> Figures:
        return figures(victim, *data.held, judged, attacked=terms.attacked, seed=schedule.seed)

    before = measured(victim)
    if isnan(before.retained):
        raise MeasurementError(
            f"{victim.name} saves nothing on clean inputs: there is nothing to keep under attack"
        )
    if method.losses is not None:
        folder = None if checkpoints is None else writable(Path(checkpoints))
        what = (victim, method, data[:3], str(trained), schedule, parts and tuple(parts))
        train(
            learner(copied, parts),
            method,
            data,
            trained,
            schedule,
            parts=learning_parts(copied, parts),
            checkpoint=folder and folder / f"hardening-{digest(what)}.pt",
            told=told,
        )
    rule = rule_of(copied)
    shipped = None if rule is None else rule.thresholds
    if rule is not None:
        notes += choose_by(terms, copied, data.held, judged, before, schedule.seed)
    after = measured(copied)
    if after.onward == 0:
        notes.append("no clean input goes on past the first decision: it is a static model now")
    card = Card(
        victim.name,
        threat=str(judged),
        trained_at=str(trained) if method.losses is not None else "not trained",
        method=called,
        settings={
            "losses": str(method.losses),
            **schedule.told(),
            "allowed": terms.allowed,
            "onward": terms.onward,
        },
        heldout=len(data.held[1]),
        attacked=min(terms.attacked, len(data.held[1])),
        before=before,
        after=after,
        thresholds=None if rule is None else rule.thresholds,
        thresholds_before=shipped,
        seconds=time.monotonic() - started,
        notes=tuple(notes),
        versions={"effattack": __version__, "torch": torch.__version__},
    )
    hardened = Hardened(copied, card)
    if reason := refusal(before, after, terms):
        raise HardeningError(f"{victim.name} stays as it was: {reason}", hardened)
    return hardened


def _threat(threat: Threat | str | float, victim: Victim) -> ArrayThreat:
    given = Linf(threat) if isinstance(threat, int | float) else as_threat(threat)
    return on_arrays(given.on(victim.domain))


def _check(victim: Victim, method: Method, parts: Sequence[str] | None) -> None:
    if not isinstance(victim.task, Classes):
        raise NotApplicable(
            f"{victim.name} is asked for {victim.task.noun}: hardening trains classifiers"
        )
    method.check(glance(victim), victim)
    if method.losses is None:
        expect_thresholds(victim)
    else:
        learning_parts(victim, parts)


def _copy(victim: Victim) -> Victim:
    try:
        found: Any = copy.deepcopy(victim)
    except Exception as error:  # whatever a model raises that was never meant to be copied
        raise NotApplicable(
            f"{victim.name} cannot be copied ({type(error).__name__}: {error}), and hardening "
            "works on a copy: keep what cannot be copied out of the victim's attributes"
        ) from error
    return found
