"""The file of a record: one line of seal, one of JSON, and the compressed changes behind them.

    effattack record 1 <SHA-256 of all that follows>
    {"victim": "digits_vit_ats", "threat": "linf:8/255", "attack": "AutoSlow", ...}
    <zlib>

``head -2`` shows what it claims. The seal tells damage; a claim that is sealed anew is found by
counting.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from effattack.errors import RecordError, UsageError
from effattack.results.currency import with_work
from effattack.results.files import regular, replaced
from effattack.results.frame import KNOWLEDGE, arranged, completed
from effattack.results.rows import Rows
from effattack.runs.records.changes import compressed, decompressed
from effattack.threats import parse_threat

KIND, FORMAT = b"effattack record", 1
SUFFIX = ".record"
TEXTS = ("label", "prediction", "clean_prediction")
FLAGS = ("right", "clean_right", "same")
"""Claims beside the work: answers as the task writes them, and what they are worth."""
ABOUT = {"name", "family", "dense_macs", "constant", "currency", "domain"}
"""What it must tell of its victim."""
MOST = 2**30
"""Bytes of changes in one record: more is refused before it is unpacked."""


@dataclass(frozen=True)
class Record:
    """Attacked inputs of a victim, and what was counted on them.

    Attributes:
        victim: a registered name, or what ``--victim`` is to be given.
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
        """One per victim and threat: ``digits_vit_ats.linf-8-255.record``."""
        plain = "".join(c if c.isalnum() or c in "._" else "-" for c in self.threat)
        return f"{Path(self.about['name']).name}.{plain}{SUFFIX}"

    def save(self, path: Path) -> Path:
        """Write it, in place of what was there."""
        replaced(path, self.sealed())
        return path

    def sealed(self) -> bytes:
        """The file."""
        told = asdict(self)
        rows = told.pop("changes")
        told["sizes"] = [len(row) for row in rows]
        text = json.dumps(told, ensure_ascii=True, allow_nan=False, separators=(", ", ": "))
        body = text.encode() + b"\n" + compressed(rows)
        return _seal(body) + body

    @classmethod
    def load(cls, path: Path) -> Record:
        """Read what :meth:`save` wrote.

        Raises:
            UsageError: if it is no record, or one of another format.
            RecordError: if it was changed since it was sealed.
        """
        try:
            data = regular(path).read_bytes()
        except OSError as error:
            raise UsageError(f"cannot read {path} ({error.strerror}): name a record") from error
        first, _, body = data.partition(b"\n")
        if not first.startswith(KIND):
            raise UsageError(f"{path} is no record: benchmarks/records.py makes them")
        if not first.startswith(b"%s %d " % (KIND, FORMAT)):
            version = first.removeprefix(KIND).split()[:1]
            raise UsageError(
                f"{path} is a record of format {b''.join(version).decode(errors='replace')!r}, and "
                f"this effattack reads {FORMAT}: use the version that made it, or make it again"
            )
        if first + b"\n" != _seal(body):
            raise RecordError(f"{path} was changed since it was sealed: take the original file")
        head, _, packed = body.partition(b"\n")
        try:
            return cls(**_fields(json.loads(head), packed))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise UsageError(f"{path} is no record that can be read: {error}") from error

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


def _seal(body: bytes) -> bytes:
    return b"%s %d %s\n" % (KIND, FORMAT, hashlib.sha256(body).hexdigest().encode())


def _fields(told: Any, packed: bytes) -> dict[str, Any]:
    """The fields of a record, each of its kind, all columns of one length.

    Raises:
        ValueError: naming what is not.
    """
    kinds = {"str": str, "Mapping": dict, "tuple": list}
    expected = {f.name: kinds[str(f.type).partition("[")[0]] for f in fields(Record)}
    expected["sizes"] = expected.pop("changes")
    if not isinstance(told, dict) or told.keys() != expected.keys():
        raise ValueError(f"its fields are not {', '.join(expected)}")
    for name, kind in expected.items():
        if not isinstance(told[name], kind):
            raise ValueError(f"{name} is no {kind.__name__}")
    count = len(told["indices"])
    columns = {"indices": told["indices"], "digests": told["digests"], **told["claims"]}
    for name, column in {**columns, "sizes": told["sizes"]}.items():
        if not isinstance(column, list) or len(column) != count or not count:
            raise ValueError(f"{name} are not one per input")
    if told["knowledge"] not in KNOWLEDGE or not told["about"].keys() >= ABOUT:
        raise ValueError(f"it lacks knowledge or one of {', '.join(sorted(ABOUT))}")
    _check_claims(told["claims"])
    for name in ("indices", "sizes"):
        if not all(type(value) is int and 0 <= value < 2**63 for value in told[name]):
            raise ValueError(f"{name} are no whole numbers from 0 on")
    if len(set(told["indices"])) < count:
        raise ValueError("an input stands in it twice")
    sizes = told.pop("sizes")
    if sum(sizes) > MOST:
        raise ValueError(f"its changes take {sum(sizes):,} bytes, and {MOST:,} are the most")
    told |= {name: tuple(told[name]) for name in ("indices", "digests")}
    return {**told, "changes": decompressed(packed, sizes)}


def _check_claims(claims: Mapping[str, list[Any]]) -> None:
    """Refuse columns that no score can be made from.

    Raises:
        ValueError: naming one.
    """
    works = {name for name in claims if f"clean_{name}" in claims and f"max_{name}" in claims}
    numbers = {of + name for name in works for of in ("", "clean_", "max_")}
    if "macs" not in works or claims.keys() - numbers != {*TEXTS, *FLAGS}:
        raise ValueError("its claims are not those of a record")
    kinds: dict[str, tuple[type, ...]] = dict.fromkeys(TEXTS, (str, int))
    kinds |= dict.fromkeys(FLAGS, (bool,)) | dict.fromkeys(numbers, (int, float, type(None)))
    for name, column in claims.items():
        if not all(type(value) in kinds[name] for value in column):
            raise ValueError(f"{name} holds a value of another kind")
