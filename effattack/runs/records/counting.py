"""What is counted on the clean inputs of a record and on its attacked ones: its claims."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd
from torch import Tensor

from effattack.attacks import Attack, Clean
from effattack.attacks.replayed import Replayed
from effattack.cells.attacking import run_attack
from effattack.cells.held import About, Held
from effattack.cells.performing import silent, threads
from effattack.cells.spec import CellSpec, Work
from effattack.domains import Batch
from effattack.inputs.readers import InMemory
from effattack.threats import Threat
from effattack.victim import Victim
from effattack.victim.undisturbed import undisturbed


def clean_rows(victim: Victim, inputs: Batch, labels: Tensor) -> pd.DataFrame:
    """The clean inputs on the deployed path, audited."""
    return _rows(Clean(victim), inputs, labels)


def claims(
    victim: Victim,
    clean: pd.DataFrame,
    inputs: Batch,
    labels: Tensor,
    threat: Threat,
    attacked: Batch,
) -> dict[str, list[Any]]:
    """What a record of attacked inputs may claim: column -> one value per input.

    Args:
        victim: on CPU.
        clean: what :func:`clean_rows` counted.
        inputs, labels: the clean ones.
        threat: bound to the domain of the victim.
        attacked: inside the threat.

    Raises:
        ContractError: if the victim does not do the work that it declares.
    """
    keys, packed = victim.domain.fingerprints(inputs), victim.domain.pack(attacked)
    stored = dict(zip(keys, packed, strict=True))
    rows = _rows(Replayed(victim, threat, stored), inputs, labels)
    found: dict[str, pd.Series] = {
        "label": rows.label,
        "prediction": rows.prediction,
        "clean_prediction": clean.prediction,
        "right": rows.right,
        "clean_right": clean.right,
        "same": rows.get("same", rows.prediction == clean.prediction),
    }
    for work in dict.fromkeys(("macs", victim.currency)):
        found |= {
            work: rows[work],
            f"clean_{work}": clean[work],
            f"max_{work}": rows[f"max_{work}"],
        }
    return {name: plain(column.tolist()) for name, column in found.items()}


def about(victim: Victim) -> dict[str, Any]:
    """What results tell of a victim, as JSON has it."""
    found: dict[str, Any] = plain(asdict(About.of(victim)))
    return found


def plain(value: Any) -> Any:
    """As JSON has it: whole numbers without a point, None where nothing is known."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() else value


def _rows(attack: Attack, inputs: Batch, labels: Tensor) -> pd.DataFrame:
    victim = attack.victim
    held = Held(victim, [attack], InMemory(inputs, labels))
    (digest,) = held.attacks
    spec = CellSpec(
        Work.ATTACK,
        victim=victim.name,
        attack=attack.name,
        attack_digest=digest,
        last=len(inputs),
    )
    with undisturbed(victim), threads(1):
        return run_attack(held, spec, silent)
