"""A local worker: runs the cells whose tickets come in, and tells what became of each.

Started as ``python -m effattack.runs.executors.worker STORE``. It ends with its driver: once its
input is closed, even in the middle of a cell. Tickets and replies have descriptors of their own: a
victim that reads finds the end of its input, and what it prints is no reply.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from os import _exit  # as it is, whatever a victim's border makes of it
from pathlib import Path
from queue import SimpleQueue
from typing import TextIO


def main(folder: str) -> None:
    """Serve until the input ends."""
    try:
        _serve(folder)
    except BaseException:
        traceback.print_exc()
        _exit(1)  # threads that a victim left do not keep it


def _serve(folder: str) -> None:
    replies = os.fdopen(os.dup(1), "w", buffering=1, encoding="ascii")
    os.dup2(2, 1)
    source = os.fdopen(os.dup(0), encoding="ascii")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    tickets: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_listen, args=(source, tickets), daemon=True).start()

    from effattack.cells.store import Store
    from effattack.runs.executors.wire import reply

    store = Store(Path(folder))
    print(json.dumps({"state": "ready"}), file=replies)
    while True:
        print(reply(tickets.get(), store), file=replies)


def _listen(source: TextIO, tickets: SimpleQueue[str]) -> None:
    for line in source:
        tickets.put(line)
    _exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
