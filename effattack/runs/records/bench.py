"""What records are counted on: victims and clean inputs, loaded once for all that share them.

Nothing that a record names runs because it stands there: victims must be registered by an installed
package or be named by the user, and so must data that are not the victim's own.
"""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd
from torch import Tensor

from effattack.cells.by_name import fresh
from effattack.domains import Batch
from effattack.errors import RecordError, UsageError
from effattack.inputs.source import source_of
from effattack.registry import VICTIMS, entries
from effattack.results.records.record import Record
from effattack.runs.records.counting import clean_rows
from effattack.victim import Victim


class Clean(NamedTuple):
    """The clean inputs of a record, where the victim is, and what was counted on them."""

    inputs: Batch
    labels: Tensor
    rows: pd.DataFrame


class Bench:
    """Loads what records need.

    Args:
        victim: its name, in place of the one that a record tells.
        twin: that of its twin, likewise.
        data: where the clean inputs are, in place of what a record tells.
    """

    def __init__(
        self, victim: str | None = None, twin: str | None = None, data: str | None = None
    ) -> None:
        self.named, self.twin, self.data = victim, twin, data
        self._victim: tuple[tuple[str, ...], Victim] | None = None
        self._clean: dict[tuple[object, ...], Clean] = {}

    def victim(self, record: Record) -> Victim:
        """The victim of a record; the latest one is kept.

        Raises:
            UsageError: if it cannot be loaded, or would have to be by a name that the file tells.
        """
        name = _name("victim", self.named, record.victim)
        twin = _name("twin", self.twin, record.twin)
        key = name, twin, record.through
        if self._victim is None or self._victim[0] != key:
            self._victim = key, fresh(*key)
            self._clean.clear()
        return self._victim[1]

    def clean(self, record: Record) -> Clean:
        """The clean inputs of a record, the same as when it was made.

        Raises:
            RecordError: if they differ.
            UsageError: if they are not there, with how to get them.
        """
        key = record.data, record.indices, record.digests
        if key not in self._clean:
            victim = self.victim(record)
            inputs, labels = self._inputs(record, victim)
            self._clean[key] = Clean(inputs, labels, clean_rows(victim, inputs, labels))
        return self._clean[key]

    def _inputs(self, record: Record, victim: Victim) -> tuple[Batch, Tensor]:
        if self.data is None and record.data != victim.data:
            raise UsageError(
                f"its inputs come from {record.data!r}, which is not the victim's own data: get "
                f"them and give --data {record.data}"
            )
        domain, data = victim.domain, source_of(self.data, victim).open(victim.domain)
        if max(record.indices) >= len(data):
            raise RecordError(
                f"it names {domain.noun} {max(record.indices)}, and {self.data or record.data} "
                f"holds {len(data)}"
            )
        inputs, labels = data.rows(record.indices)
        domain.check(inputs)
        clean = domain.snap(domain.place(inputs, victim.device))
        pairs = zip(record.indices, record.digests, domain.fingerprints(clean), strict=True)
        if others := [index for index, told, found in pairs if told != found]:
            raise RecordError(
                f"{len(others)} of {len(record.indices)} clean {domain.nouns} are not those that "
                f"it was made from ({domain.noun} {others[0]} first)"
            )
        return clean, labels.to(victim.device)


def _name(what: str, given: str | None, told: str) -> str:
    """What the user gave, or a registered name that a record tells.

    Raises:
        UsageError: for any other name.
    """
    if given or not told or told in entries(VICTIMS):
        return given or told
    raise UsageError(
        f"its {what} {told!r} is registered by no package that is installed here: install that, or "
        f"name it yourself, --{what} {told}; nothing runs because a file names it"
    )
