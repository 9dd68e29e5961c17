"""Work outside the thread that counts: refused while MACs are counted, unless it is declared.

Operators are seen in the thread that runs ``forward``, and in no other thread or process. So
starting one is refused there, and so is handing work to one that stands ready, as pools do. What
must run elsewhere is declared, and then its name and time stand with the score::

    with effattack.outside("decode"):
        boxes = torch.from_numpy(decode(heat.numpy()))
"""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from effattack.errors import UnseenWork

HANDOVERS = {
    "threading.Thread": ("start",),
    "threading.Condition": ("notify",),
    "concurrent.futures.thread.ThreadPoolExecutor": ("submit",),
    "concurrent.futures.process.ProcessPoolExecutor": ("submit",),
    "multiprocessing.process.BaseProcess": ("start",),
    "multiprocessing.pool.Pool": ("apply_async", "_map_async", "imap", "imap_unordered"),
    "multiprocessing.connection._ConnectionBase": ("send", "send_bytes"),
    "subprocess.Popen": ("__init__",),
    "os": ("fork", "posix_spawn", "posix_spawnp", "system"),
}
"""Where work leaves a thread: class (or module) -> methods. Pipes, events and queues included."""


class Counting(Protocol):
    """What counts in a thread: told of a declared block when it begins and when it ends, and of
    work that is no MAC."""

    def declared(self, name: str, seconds: float) -> None: ...

    def tallied(self, name: str, n: float) -> None: ...


class _Here(threading.local):
    """Of one thread: who counts in it, and how deep in declared blocks it is."""

    def __init__(self) -> None:
        self.counting: list[Counting] = []
        self.declared = 0


_here = _Here()
_lock = threading.Lock()
_guards = 0
_originals: list[tuple[object, str, Any]] = []


def counting_here() -> tuple[Counting, ...]:
    """Who counts in this thread."""
    return tuple(_here.counting)


def is_counting() -> bool:
    """Whether MACs are counted in this thread."""
    return bool(_here.counting)


@contextmanager
def outside(name: str) -> Iterator[None]:
    """Declare work that the MACs counter cannot see: numpy, threads, processes, host values.

    Its name and its time stand beside the score, its MACs nowhere; torch operators inside it are
    counted as ever. Values that come out of it may become tensors.

    Args:
        name: what the work is, as the report tells it: ``"decode"``.
    """
    _tell(name, 0.0)
    started = time.perf_counter()
    _here.declared += 1
    try:
        yield
    finally:
        _here.declared -= 1
        _tell(name, time.perf_counter() - started)


def _tell(name: str, seconds: float) -> None:
    for counting in _here.counting:
        counting.declared(name, seconds)


@contextmanager
def alone(counting: Counting) -> Iterator[None]:
    """Refuse, in this thread, to hand work to other threads and processes.

    Raises:
        UnseenWork: inside the block, where work is handed over outside a declared block.
    """
    _guard()
    _here.counting.append(counting)
    try:
        yield
    finally:
        _here.counting.remove(counting)
        _unguard()


def _guard() -> None:
    global _guards
    with _lock:
        _guards += 1
        if _guards > 1:
            return
        for owner, names in HANDOVERS.items():
            if (target := _loaded(owner)) is not None:
                for name in names:
                    if (original := target.__dict__.get(name)) is not None:
                        _originals.append((target, name, original))
                        setattr(target, name, _guarded(original, owner.split(".")[-1], name))


def _unguard() -> None:
    global _guards
    with _lock:
        _guards -= 1
        if not _guards:
            while _originals:
                setattr(*_originals.pop())


def _loaded(owner: str) -> Any:
    """A module, or a class of one; None if nothing imported it, or this platform has none."""
    module, _, name = owner.rpartition(".")
    return getattr(sys.modules.get(module), name, None) if module else sys.modules.get(owner)


def _guarded(original: Callable[..., Any], owner: str, name: str) -> Callable[..., Any]:
    @functools.wraps(original)
    def handover(*args: Any, **kwargs: Any) -> Any:
        if _here.counting and not _here.declared and not _wakes_nobody(name, args):
            raise UnseenWork(
                f"forward hands work to another thread or process ({owner}.{name}), which the MACs "
                "counter cannot see: run it in this thread with torch operators, or declare it by "
                '`with effattack.outside("its name"):`'
            )
        return original(*args, **kwargs)

    return handover


def _wakes_nobody(name: str, args: tuple[Any, ...]) -> bool:
    """Of a condition that no thread waits for."""
    return name == "notify" and not args[0]._waiters
