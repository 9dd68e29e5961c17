"""From a victim that loses its savings to one that keeps them, at a stated price."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from effattack.attacks.base import as_threat
from effattack.errors import HardeningError, NotApplicable, UsageError, expect_least
from effattack.hardening.card import Card, Figures, figures
from effattack.hardening.fitting import Epoch
from effattack.hardening.learning import Schedule, learner, learning_parts, train
from effattack.hardening.methods import Method, method_of
from effattack.hardening.thresholds import Choice, Wanted, choose, expect_thresholds, rule_of
from effattack.tasks import Classes
from effattack.threats import ArrayThreat, Linf, Threat
from effattack.threats.arrays import on_arrays
from effattack.victim import Victim
from effattack.victim.digests import digest
from effattack.victim.undisturbed import glance

HELD_OUT = 0.2
"""Share of the inputs that chooses thresholds and judges, where none are given for it."""


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


@dataclass(frozen=True)
class Terms:
    """What a hardening may cost, and how it is judged; all on held-out inputs.

    Args:
        allowed: accuracy that may be lost, as a share of the inputs. Thresholds are chosen to lose
            half of it, where that can be done: the rest is for inputs that nobody has seen.
        onward: share of clean inputs that go on past the first stage of a victim whose thresholds
            are chosen, or as many as did before where those were fewer. A cascade that never
            escalates is a static model.
        attacked: held-out inputs that are attacked, before and after.
    """

    allowed: float = 0.01
    onward: float = 0.02
    attacked: int = 64

    def __post_init__(self) -> None:
        for name in ("allowed", "onward"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} = {getattr(self, name)}: give a share in [0, 1)")
        expect_least("attacked", self.attacked, 1)


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
    method = method_of(method) if isinstance(method, str) else method
    schedule, terms = schedule or Schedule(), terms or Terms()
    judged = _threat(threat, victim)
    trained = judged if train_at is None else _threat(train_at, victim)
    _check(victim, method)
    _check_data(victim, inputs, labels)
    groups = labels if groups is None else _checked_groups(groups, labels)
    learn, held = _split(inputs, labels, groups, heldout, schedule.seed)
    _check_data(victim, *held)
    held = victim.domain.place(held[0], victim.device), held[1].to(victim.device)
    copied, notes = _copy(victim), []
    which = [] if method.losses is None else learning_parts(copied, parts)

    def measured(victim: Victim) -> Figures:
        return figures(victim, *held, judged, attacked=terms.attacked, seed=schedule.seed)

    before = measured(victim)
    if method.losses is not None:
        what = (victim, method, *learn, str(trained), schedule, parts and tuple(parts))
        path = checkpoints and Path(checkpoints) / f"hardening-{digest(what)}.pt"
        train(
            learner(copied, parts),
            method,
            learn[:2],
            trained,
            schedule,
            parts=which,
            groups=learn[2],
            checkpoint=path or None,
            told=told,
        )
    rule = rule_of(copied)
    shipped = None if rule is None else rule.thresholds
    if rule is not None:
        notes += _choose(copied, held, judged, before, terms, schedule.seed)
    after = measured(copied)
    if after.onward == 0:
        notes.append("no clean input goes on past the first decision: it is a static model now")
    card = Card(
        victim.name,
        threat=str(judged),
        trained_at=str(trained) if method.losses is not None else "not trained",
        method=str(method.losses or "thresholds"),
        settings={
            "epochs": schedule.epochs,
            "rate": schedule.rate,
            "batch": schedule.batch,
            "seed": schedule.seed,
            "allowed": terms.allowed,
        },
        heldout=len(held[1]),
        attacked=min(terms.attacked, len(held[1])),
        before=before,
        after=after,
        thresholds=None if rule is None else rule.thresholds,
        thresholds_before=shipped,
        seconds=time.monotonic() - started,
        notes=tuple(notes),
        versions={"torch": torch.__version__},
    )
    hardened = Hardened(copied, card)
    if reason := refusal(before, after, terms):
        raise HardeningError(f"{victim.name} stays as it was: {reason}", hardened)
    return hardened


def refusal(before: Figures, after: Figures, terms: Terms) -> str | None:
    """Why a hardened victim is not handed out; None if it is."""
    lost = before.accuracy - after.accuracy
    if lost > terms.allowed + 1e-9:
        return (
            f"it lost {100 * lost:.1f} points of accuracy ({before.accuracy:.1%} to "
            f"{after.accuracy:.1%}), and {100 * terms.allowed:g} are allowed: train for longer, "
            "against a smaller budget, or allow more"
        )
    if after.work > before.work * (1 + 1e-9):
        return (
            f"its clean work rose from {before.work / before.ceiling:.1%} to "
            f"{after.work / after.ceiling:.1%} of max: put a weight on the margins, as in "
            "'both(margins=0.1)', or allow more accuracy to be lost"
        )
    if after.attacked_work >= before.attacked_work:
        return (
            f"it won nothing: under AutoSlow it does {after.attacked_work / after.ceiling:.1%} of "
            f"max, and did {before.attacked_work / before.ceiling:.1%}: take another method, or "
            "train for longer"
        )
    return None


def _choose(
    victim: Victim,
    held: tuple[Tensor, Tensor],
    threat: ArrayThreat,
    before: Figures,
    terms: Terms,
    seed: int,
) -> list[str]:
    """Choose thresholds by the terms, the strictest that can be met; what is to be said of it."""
    onward = min(terms.onward, before.onward)
    for lost, least in ((0.5, onward), (1.0, onward), (0.5, 0.0), (1.0, 0.0)):
        wanted = Wanted(before.accuracy - lost * terms.allowed, before.work, least)
        if choice := choose(victim, *held, threat, wanted, attacked=terms.attacked, seed=seed):
            return [_told(choice)]
    return [
        "no thresholds keep accuracy and clean work as allowed on held-out inputs: they are as "
        "they were"
    ]


def _told(choice: Choice) -> str:
    return (
        f"thresholds are the best of {choice.tried:,} on held-out inputs after {choice.rounds} "
        "rounds of attacks"
    )


def _threat(threat: Threat | str | float, victim: Victim) -> ArrayThreat:
    given = Linf(threat) if isinstance(threat, int | float) else as_threat(threat)
    return on_arrays(given.on(victim.domain))


def _check(victim: Victim, method: Method) -> None:
    if not isinstance(victim.task, Classes):
        raise NotApplicable(
            f"{victim.name} is asked for {victim.task.noun}: hardening trains classifiers"
        )
    method.check(glance(victim), victim)
    if method.losses is None:
        expect_thresholds(victim)


def _check_data(victim: Victim, inputs: Tensor, labels: Tensor) -> None:
    victim.domain.check(inputs)
    victim.task.check(labels, len(inputs))


def _checked_groups(groups: Tensor, labels: Tensor) -> Tensor:
    whole = isinstance(groups, Tensor) and groups.dtype in (torch.int64, torch.int32)
    if not whole or groups.shape != (len(labels),) or groups.min() < 0:
        raise UsageError(f"groups must be whole numbers from 0 on, one for each of {len(labels)}")
    return groups.long()


def _split(
    inputs: Tensor,
    labels: Tensor,
    groups: Tensor,
    heldout: tuple[Tensor, Tensor] | None,
    seed: int,
) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """What is trained on, with its groups, and what is held out."""
    if heldout is not None:
        return (inputs, labels, groups), heldout
    count = int(HELD_OUT * len(inputs))
    if count < 1:
        raise UsageError(
            f"{len(inputs)} inputs: give at least {round(1 / HELD_OUT)}, a fifth of which is held "
            "out, or heldout=(inputs, labels)"
        )
    order = torch.randperm(len(inputs), generator=Generator().manual_seed(seed))
    held, learn = order[:count], order[count:]
    return (inputs[learn], labels[learn], groups[learn]), (inputs[held], labels[held])


def _copy(victim: Victim) -> Victim:
    try:
        found: Any = copy.deepcopy(victim)
    except Exception as error:  # whatever a model raises that was never meant to be copied
        raise NotApplicable(
            f"{victim.name} cannot be copied ({type(error).__name__}: {error}), and hardening "
            "works on a copy: keep what cannot be copied out of the victim's attributes"
        ) from error
    return found
