"""What strength tables on prompts share: rows that are stored one by one, and how they print."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import pandas as pd
import torch
from torch import Tensor

from effattack.attacks import build
from effattack.attacks.effort import metered
from effattack.registry import call, import_factory
from effattack.threats import Threat
from effattack.victim import Victim, audit

STEPS = 50
"""Gradients' worth of effort: 150 prompts through the model."""
EFFORT = 3 * STEPS


class Row(TypedDict, total=False):
    """What is known of one attack under one threat."""

    attack: str
    threat: str
    success: float
    agreement: float
    capped: float
    """Share of the prompts whose text the cap ended."""
    tokens: float
    """Through the model per prompt, while it was attacked."""


class Asked:
    """The first test prompts of a victim, under one threat.

    Args:
        victim: one that knows its data.
        threat: bound to its domain.
        count: of the prompts.
        store: folder of the finished rows.
    """

    def __init__(self, victim: Victim, threat: Threat, count: int, store: Path) -> None:
        assert victim.data is not None
        self.victim, self.threat, self.store = victim, threat, store
        prompts, labels = call(import_factory(victim.data), victim.data)
        self.clean, self.labels = prompts[:count], labels[:count]
        self.before = executed(victim, self.clean)
        self.room = victim.ceiling(threat.largest(self.clean), victim.currency) - self.before

    def row(self, name: str, make: Callable[[], Row]) -> Row:
        """A row from the store, else made and stored."""
        told = f"{self.victim.name}-{self.threat}-{name}.json"
        path = self.store / told.replace(":", "").replace(" ", "_")
        if not path.exists():
            row = make() | Row(attack=name, threat=str(self.threat))
            path.write_text(json.dumps(row), encoding="utf-8")
            print(f"{self.victim.name} {self.threat} {name}: {row['success']:.3f}", flush=True)
        found: Row = json.loads(path.read_text(encoding="utf-8"))
        return found

    def attacked(self, spelled: str) -> Row:
        """What an attack by name finds, judged by the deployed path."""
        victim, effort = metered(self.victim)
        found = build(spelled, victim, self.threat, seed=0)(self.clean, self.labels)
        return self.judged(found) | Row(tokens=effort.tokens / len(found))

    def judged(self, found: Tensor) -> Row:
        """What prompts of the budget reach."""
        victim = self.victim
        answer, again = (victim.task.answer(victim(each)) for each in (self.clean, found))
        kept = victim.task.agree(answer, again, victim.domain.kept(found, self.clean))
        row = self.of_work(executed(victim, found)) | Row(agreement=kept.double().mean().item())
        with torch.no_grad():
            capped = victim.trace(found).aux.get("capped")
        return row if capped is None else row | Row(capped=capped.double().mean().item())

    def of_work(self, spent: Tensor) -> Row:
        """What work (B,) is as attack success."""
        return Row(success=((spent - self.before).sum() / self.room.sum()).item())


def executed(victim: Victim, prompts: Tensor) -> Tensor:
    """(B,) float64: counted work of the deployed path, in the victim's currency."""
    found = audit(victim, prompts)
    return found.macs if victim.currency == "macs" else found.counts[victim.currency]


def grid(rows: Sequence[Mapping[str, Any]], share: str) -> pd.DataFrame:
    """Attacks by threats: attack success, and a share in brackets."""
    frame = pd.DataFrame(rows).reindex(columns=["attack", "threat", "success", share])
    frame["cell"] = [
        f"{success:.3f}" + (f" ({part:.0%})" if part == part else "")
        for success, part in zip(frame.success, frame[share], strict=True)
    ]
    found = frame.pivot(index="attack", columns="threat", values="cell")
    return found.reindex(frame.attack.unique())[[*frame.threat.unique()]].fillna("").reset_index()
