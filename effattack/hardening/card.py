"""What a hardening traded: held-out figures before and after, and how it was done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from math import nan
from typing import Any, NamedTuple

import torch
from torch import Tensor

from effattack.attacks import AutoSlow
from effattack.threats import ArrayThreat
from effattack.victim import Victim
from effattack.victim.undisturbed import undisturbed

BATCH = 256


class Figures(NamedTuple):
    """What a victim does with held-out inputs, by its trace."""

    accuracy: float
    work: float
    """Clean, per input, in the victim's currency."""
    ceiling: float
    """Most, per input."""
    attacked_work: float
    """Per attacked input, under AutoSlow."""
    retained: float
    """Savings retained on the attacked inputs; NaN where none are saved on clean ones."""
    attacked_accuracy: float
    onward: float
    """Share of clean inputs that go on past the first decision."""


def figures(
    victim: Victim,
    inputs: Tensor,
    labels: Tensor,
    threat: ArrayThreat,
    *,
    attacked: int = 64,
    seed: int = 0,
) -> Figures:
    """Figures of a victim on held-out inputs, the first ``attacked`` of which are attacked."""
    right, work, onward = _runs(victim, inputs, labels)
    some, their = inputs[:attacked], labels[:attacked]
    found = AutoSlow(victim, threat=threat, seed=seed)(some, their)
    attacked_right, spent, _ = _runs(victim, found, their)
    ceiling = victim.ceiling(some, victim.currency).cpu()
    saved = (ceiling - work[: len(some)]).sum().item()
    return Figures(
        right.double().mean().item(),
        work.mean().item(),
        ceiling.mean().item(),
        spent.mean().item(),
        (ceiling - spent).sum().item() / saved if saved > 0 else nan,
        attacked_right.double().mean().item(),
        onward.double().mean().item(),
    )


def _runs(victim: Victim, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Whether answers are right, work, and whether any unit of the first gate is open: (B,)."""
    right, work, onward = [], [], []
    with undisturbed(victim), torch.no_grad():
        for some, truth in zip(inputs.split(BATCH), labels.split(BATCH), strict=True):
            trace = victim.trace(victim.domain.place(some, victim.device))
            answers = victim.task.answer(trace.logits)
            right.append(victim.task.right(answers, truth.to(answers.device)).cpu())
            work.append(victim.spent(trace).cpu())
            onward.append(trace.gates[0].active.any(1).cpu())
    return torch.cat(right), torch.cat(work), torch.cat(onward)


@dataclass(frozen=True)
class Card:
    """What was traded, readable by people and programs."""

    victim: str
    threat: str
    """What is to be withstood; figures are at it."""
    trained_at: str
    method: str
    settings: dict[str, Any]
    heldout: int
    """Inputs of accuracy and clean work,"""
    attacked: int
    """of which so many were attacked."""
    before: Figures
    after: Figures
    thresholds: float | tuple[float, ...] | None
    """Of the hardened victim; None: it has none, or shows none."""
    thresholds_before: float | tuple[float, ...] | None
    seconds: float
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        found = asdict(self)
        found["before"], found["after"] = self.before._asdict(), self.after._asdict()
        return found

    @classmethod
    def of(cls, found: dict[str, Any]) -> Card:
        """A card from plain values."""
        figures = {key: Figures(**found[key]) for key in ("before", "after")}
        tuples = {
            key: tuple(found[key])
            for key in ("notes", "thresholds", "thresholds_before")
            if isinstance(found[key], list)
        }
        return cls(**{**found, **figures, **tuples})

    def rows(self) -> list[tuple[str, str, str]]:
        """What is compared, before, after."""
        return [
            (name, form(self.before), form(self.after))
            for name, form in (
                ("accuracy", lambda f: f"{f.accuracy:.1%}"),
                ("clean work, of max", lambda f: f"{f.work / f.ceiling:.1%}"),
                ("attacked work, of max", lambda f: f"{f.attacked_work / f.ceiling:.1%}"),
                ("savings retained", lambda f: f"{f.retained:.1%}"),
                ("accuracy under AutoSlow", lambda f: f"{f.attacked_accuracy:.1%}"),
                ("past the first decision", lambda f: f"{f.onward:.1%}"),
            )
        ] + [("thresholds", _told(self.thresholds_before), _told(self.thresholds))]

    def __str__(self) -> str:
        lines = [
            f"# {self.victim}, hardened against {self.threat}",
            "",
            f"Method {self.method}, trained at {self.trained_at}, {self.seconds:.0f} s; "
            f"{self.heldout} held-out inputs, {self.attacked} of them under AutoSlow.",
            "",
            "| | before | after |",
            "|---|--:|--:|",
            *(f"| {' | '.join(row)} |" for row in self.rows()),
        ]
        return "\n".join([*lines, *_listed(self.notes)]) + "\n"


def _listed(notes: Iterable[str]) -> list[str]:
    listed = [f"* {note}" for note in notes]
    return ["", *listed] if listed else []


def _told(thresholds: float | tuple[float, ...] | None) -> str:
    if thresholds is None:
        return "none"
    each = thresholds if isinstance(thresholds, tuple) else (thresholds,)
    return ", ".join(f"{value:.3g}" for value in each)
