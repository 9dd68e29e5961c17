"""Where the time of a cell goes: work marks itself as a part of it, for the journal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_spent: ContextVar[dict[str, float] | None] = ContextVar("spent", default=None)


@contextmanager
def marking() -> Iterator[dict[str, float]]:
    """Collect the seconds of all parts that are marked inside: name -> seconds."""
    spent: dict[str, float] = {}
    before = _spent.set(spent)
    try:
        yield spent
    finally:
        _spent.reset(before)


@contextmanager
def marked(part: str) -> Iterator[None]:
    """The seconds inside are those of one part of a cell; free while nobody collects."""
    started = time.perf_counter()
    try:
        yield
    finally:
        if (spent := _spent.get()) is not None:
            spent[part] = spent.get(part, 0.0) + time.perf_counter() - started
