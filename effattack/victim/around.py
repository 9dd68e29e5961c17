"""What a victim around another one has from it."""

from __future__ import annotations

from typing import Any

from effattack.victim.contract import Victim

DECLARED = (
    *("name", "family", "domain", "task", "max_macs", "dense_macs", "constant", "batch_coupled"),
    *("pads", "data", "counts", "currency"),
)


def declared(victim: Victim, **others: Any) -> dict[str, Any]:
    """What a victim told its constructor, with what is to be said otherwise in its place."""
    return {field: getattr(victim, field) for field in DECLARED} | others
