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
from pathlib import Path
from typing import Any

from effattack.errors import RecordError, UsageError
from effattack.inputs.changes import compressed, decompressed
from effattack.results.files import regular
from effattack.results.frame import KNOWLEDGE
from effattack.threats.by_name import names

KIND, FORMAT = b"effattack record", 1
KINDS: Mapping[str, type] = {
    **dict.fromkeys(("victim", "twin", "through", "weights"), str),
    **dict.fromkeys(("threat", "attack", "knowledge", "data"), str),
    **dict.fromkeys(("indices", "digests", "sizes"), list),
    **dict.fromkeys(("about", "claims", "made"), dict),
}
"""What stands in the line of JSON."""
ABOUT = {"name", "family", "dense_macs", "constant", "currency", "domain"}
"""What it must tell of its victim."""
TEXTS = ("label", "prediction", "clean_prediction")
FLAGS = ("right", "clean_right", "same")
"""Claims beside the work: answers as the task writes them, and what they are worth."""
MOST = 2**30
"""Bytes of changes in one record: more is refused before it is unpacked."""


def written(told: Mapping[str, Any]) -> bytes:
    """The file of a record, from its fields by name."""
    rows = told["changes"]
    head = {key: value for key, value in told.items() if key != "changes"}
    head["sizes"] = [len(row) for row in rows]
    text = json.dumps(head, allow_nan=False, separators=(", ", ": "))
    body = text.encode() + b"\n" + compressed(rows)
    return _seal(body) + body


def read(path: Path) -> dict[str, Any]:
    """The fields of the record in a file.

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
        version = b"".join(first.removeprefix(KIND).split()[:1]).decode(errors="replace")
        raise UsageError(
            f"{path} is a record of format {version!r}, and this effattack reads {FORMAT}: use the "
            "version that made it, or make it again"
        )
    if first + b"\n" != _seal(body):
        raise RecordError(f"{path} was changed since it was sealed: take the original file")
    head, _, packed = body.partition(b"\n")
    try:
        return _fields(json.loads(head), packed)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no record that can be read: {error}") from error


def _seal(body: bytes) -> bytes:
    return b"%s %d %s\n" % (KIND, FORMAT, hashlib.sha256(body).hexdigest().encode())


def _fields(told: Any, packed: bytes) -> dict[str, Any]:
    """The fields of a record, each of its kind, all columns of one length.

    Raises:
        ValueError: naming what is not.
    """
    if not isinstance(told, dict) or told.keys() != KINDS.keys():
        raise ValueError(f"its fields are not {', '.join(KINDS)}")
    for name, kind in KINDS.items():
        if not isinstance(told[name], kind):
            raise ValueError(f"{name} is no {kind.__name__}")
    count = len(told["indices"])
    columns = {"indices": told["indices"], "digests": told["digests"], **told["claims"]}
    for name, column in {**columns, "sizes": told["sizes"]}.items():
        if not isinstance(column, list) or len(column) != count or not count:
            raise ValueError(f"{name} are not one per input")
    if told["knowledge"] not in KNOWLEDGE or not told["about"].keys() >= ABOUT:
        raise ValueError(f"it lacks knowledge or one of {', '.join(sorted(ABOUT))}")
    if not _is_registered(told["threat"]):
        raise ValueError(f"no package that is installed registers its threat {told['threat']!r}")
    _check_claims(told["claims"])
    for name in ("indices", "sizes"):
        if not all(type(value) is int and 0 <= value < 2**63 for value in told[name]):
            raise ValueError(f"{name} are no whole numbers from 0 on")
    if any(len(set(map(str, told[name]))) < count for name in ("indices", "digests")):
        raise ValueError("an input stands in it twice")
    sizes = told.pop("sizes")
    if sum(sizes) > MOST:
        raise ValueError(f"its changes take {sum(sizes):,} bytes, and {MOST:,} are the most")
    told |= {name: tuple(told[name]) for name in ("indices", "digests")}
    return {**told, "changes": decompressed(packed, sizes)}


def _is_registered(threat: str) -> bool:
    """Whether a threat, or that of each part, goes by a registered name: no file imports code."""
    known, parts = names(), [part.split(":") for part in threat.split("+")]
    return all(part[0] in known or (part[1:2] and part[1] in known) for part in parts)


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
