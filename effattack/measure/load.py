"""Competing load: processes that keep a core busy while something else is measured."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from effattack.errors import UsageError

BUSY = """
import os
parent = os.getppid()
print("busy", flush=True)
while os.getppid() == parent:
    sum(range(10_000))
"""
"""Ends by itself when its parent is gone, however that ended."""


@contextmanager
def competing(processes: int) -> Iterator[None]:
    """Run busy processes inside the ``with`` block; they are killed on the way out.

    Args:
        processes: how many, each on as much of a core as it can get.

    Raises:
        UsageError: for a negative number.
    """
    if processes < 0:
        raise UsageError(f"a load of {processes} processes: give 0 or more")
    with ExitStack() as stack:
        for _ in range(processes):
            command = [sys.executable, "-c", BUSY]
            busy = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
            stack.callback(busy.kill)
            assert busy.stdout is not None
            busy.stdout.readline()  # until it runs
        yield
