"""What a record is: attacked inputs of a victim as changes of clean ones, and what it claims."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from effattack.results.currency import with_work
from effattack.results.files import replaced
from effattack.results.frame import arranged, completed
from effattack.results.records import layout
from effattack.results.rows import Rows
from effattack.threats import parse_threat

SUFFIX = ".record"


@dataclass(frozen=True)
class Record:
    """Attacked inputs of a victim, and what was counted on them.

    Attributes:
        victim: a registered name, or what ``--victim`` is to be given.
        twin: of a victim that is a file, the registered name of what it was exported from.
        through: the steps inside its door, as text; empty: none.
        weights: digest of its weights (:func:`effattack.victim.digests.weights_digest`).
        about: what results tell of it (:class:`effattack.cells.held.About`).
        threat: what was allowed to change, as text: ``"linf:8/255"``.
        attack: who found the inputs.
        knowledge: what that attacker sees of the victim.
        data: where the clean inputs come from, as ``--data`` names it.
        indices: of the clean inputs in these data.
        digests: of the clean inputs, as their domain tells them apart.
        claims: column -> one value per input: answers, and each work clean, attacked and at most.
        made: by whom, when, with which versions and command; for people.
        changes: of each input, byte by byte; see :mod:`.changes`.
    """

    victim: str
    twin: str
    through: str
    weights: str
    about: Mapping[str, Any]
    threat: str
    attack: str
    knowledge: str
    data: str
    indices: tuple[int, ...]
    digests: tuple[str, ...]
    claims: Mapping[str, list[Any]]
    made: Mapping[str, str]
    changes: tuple[bytes, ...]

    @property
    def file_name(self) -> str:
        """One per victim and threat."""
        return file_name(self.about["name"], self.threat)

    def save(self, path: Path) -> Path:
        """Write it, in place of what was there."""
        replaced(path, self.sealed())
        return path

    def sealed(self) -> bytes:
        """The file."""
        return layout.written({f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, path: Path) -> Record:
        """Read what :meth:`save` wrote.

        Raises:
            UsageError: if it is no record, or one of another format.
            RecordError: if it was changed since it was sealed.
        """
        return cls(**layout.read(path))

    def samples(self) -> pd.DataFrame:
        """What it claims as rows of the per-sample frame: the clean inputs, and the attacked."""
        threat = parse_threat(self.threat)
        told = {key: self.about[key] for key in ("family", "dense_macs", "constant", "currency")}
        rows = pd.DataFrame(dict(self.claims)).assign(
            **told,
            victim=self.about["name"],
            attack=self.attack,
            kind="compute",
            threat=threat.name,
            eps=threat.eps,
            seed=0,
            sample=list(self.indices),
            knowledge=self.knowledge,
        )
        work = [column for column in rows if f"clean_{column}" in rows and f"max_{column}" in rows]
        numbers = [of + name for name in work for of in ("", "clean_", "max_")] + ["dense_macs"]
        rows[numbers] = rows[numbers].astype(float)
        as_clean = {name: rows[f"clean_{name}"] for name in (*work, "prediction", "right")}
        clean = rows.assign(
            attack="clean", kind="control", threat="none", eps=0.0, same=True, knowledge="nothing",
            **as_clean,
        )  # fmt: skip
        both = pd.concat([clean, rows], ignore_index=True)
        return arranged(both.drop(columns="clean_right"))

    @property
    def rows(self) -> Rows:
        """Of the attacked inputs: attack success and savings retained are made from them."""
        samples = with_work(completed(self.samples()))
        return Rows(samples[samples.kind == "compute"])


def file_name(victim: str, threat: str) -> str:
    """What the record of a victim in a threat is called: ``digits_vit_ats.linf-8-255.record``."""
    parts = [re.sub(r"[^\w.]", "-", text) for text in (victim, threat)]
    return f"{'.'.join(parts)}{SUFFIX}"
