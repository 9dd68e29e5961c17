"""Reading ``meta``, of which every key may be missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from effattack.reporting.words import missing

Meta = Mapping[str, Any]


def section(meta: Meta, key: str) -> dict[str, Any]:
    """A mapping of ``meta``, empty where it is missing."""
    value = meta.get(key)
    return dict(value) if isinstance(value, Mapping) else {}


def items(meta: Meta, key: str, *fields: str) -> list[dict[str, str]]:
    """A list of records of ``meta``, each with these fields as text; empty where it is missing."""
    records = [item for item in meta.get(key) or () if isinstance(item, Mapping)]
    return [{field: str(item.get(field) or "") for field in fields} for item in records]


def skipped(meta: Meta) -> list[dict[str, str]]:
    """What was skipped: victim, attack, reason."""
    return items(meta, "skipped", "victim", "attack", "reason")


def limits(meta: Meta) -> list[dict[str, str]]:
    """How the limits stand, crossed ones first: victim, limit, result, message."""
    order = ("failed", "not measured", "passed")
    found = items(meta, "limits", "victim", "limit", "result", "message")
    known = [limit for limit in found if limit["result"] in order]
    return sorted(known, key=lambda limit: order.index(limit["result"]))


def checks(meta: Meta) -> list[dict[str, str]]:
    """The self-checks, failed ones first: victim, check, message, result."""
    records = [item for item in meta.get("checks") or () if isinstance(item, Mapping)]
    texts = items(meta, "checks", "victim", "check", "message")
    for text, record in zip(texts, records, strict=True):
        passed = record.get("passed")
        text["result"] = "not applicable" if missing(passed) else "passed" if passed else "failed"
    order = ("failed", "not applicable", "passed")
    return sorted(texts, key=lambda text: order.index(text["result"]))


def merged(records: list[dict[str, str]], field: str) -> list[dict[str, str]]:
    """Records that differ in one field only become one, with the values of that field joined."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for record in records:
        rest = tuple(value for key, value in record.items() if key != field)
        groups.setdefault(rest, []).append(record[field])
    keys = [key for key in records[0] if key != field] if records else []
    return [
        {**dict(zip(keys, rest, strict=True)), field: ", ".join(values)}
        for rest, values in groups.items()
    ]
