"""The journal of a store: one line of JSON per cell that finished or failed, only ever appended.

It decides nothing: the files do. It tells why a cell is run again, and how long cells took.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from effattack.cells.spec import CellSpec


class Journal:
    """Lines that any number of processes append to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, spec: CellSpec, state: str, **facts: Any) -> None:
        """One line, in one system call; a line that was torn before never takes this one along."""
        here = {"time": time.time(), "node": platform.node(), "pid": os.getpid()}
        entry = {"state": state, **facts, **here, "spec": asdict(spec)}
        file = os.open(self.path, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
        try:
            os.write(file, f"\n{json.dumps(entry)}\n".encode())
        finally:
            os.close(file)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """All whole lines, oldest first; none of a file that cannot be read."""
        if not self.path.is_file():
            return
        with suppress(OSError), self.path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                with suppress(ValueError, RecursionError):
                    if isinstance(entry := json.loads(line), dict):
                        yield entry


def changes(journal: Journal, wanted: list[CellSpec]) -> dict[str, int]:
    """Why cells are run again although some like them were finished: reason -> how many.

    A cell was there before if one finished with the same work, victim, attack, budget, seed and
    slice; the reason is what else differs.
    """
    before: dict[tuple[Any, ...], dict[str, Any]] = {}
    for entry in journal:
        with suppress(KeyError, TypeError, AttributeError):  # it decides nothing
            if entry["state"] == "done":
                before[_place(entry["spec"])] = entry["spec"]
    reasons: dict[str, int] = {}
    for spec in map(asdict, wanted):
        if (old := before.get(_place(spec))) is not None and old != spec:
            differ = [key for key in _WORDS if old.get(key) != spec[key]]
            reason = ", ".join(f"{_WORDS[key]} ({old.get(key)} → {spec[key]})" for key in differ)
            reasons[reason] = reasons.get(reason, 0) + 1
    return reasons


_PLACE = ("work", "victim", "options", "eps", "seed", "first", "last")
_WORDS = {
    "code": "the code of effattack changed",
    "torch": "torch changed",
    "victim_digest": "the victim changed",
    "attack_digest": "the attack changed",
    "data_digest": "the data changed",
    "kept": "other images are timed",
    "device": "the device changed",
    "threads": "the thread count changed",
}


def _place(spec: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(spec[key] for key in _PLACE)
