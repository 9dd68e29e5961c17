"""Giving up what takes too long in this process."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

from effattack.errors import MeasurementError, UsageError

AGAIN = 1.0
"""Seconds after which code that took no notice is interrupted again."""


class _Late(BaseException):
    """Raised wherever the main thread is, once the time is over."""


def check_timeout(seconds: float | None) -> None:
    """Refuse what is no time.

    Raises:
        UsageError: naming it.
    """
    if seconds is not None and not 0 < seconds < inf:
        raise UsageError(f"timeout = {seconds:g}: it must be positive, and a number of seconds")


@contextmanager
def within(seconds: float | None, what: str) -> Iterator[None]:
    """Interrupt what is done inside after so many seconds; None: never. In the main thread only.

    Raises:
        MeasurementError: if it took longer.
    """
    if seconds is None:
        yield
        return
    late = []

    def interrupt(*_: object) -> None:
        late.append(True)
        raise _Late

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    except BaseException:
        if not late:
            raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if late:
        raise MeasurementError(f"{what} took longer than the timeout of {seconds:g} s")
