"""A local worker: runs the cells whose tickets come in, and tells what became of each.

Started as ``python -m effattack.executors.worker STORE``. It ends with its driver: once its input
is closed, even in the middle of a cell.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from queue import SimpleQueue


def main(folder: str) -> None:
    """Serve until the input ends."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a victim prints is no reply
    tickets: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_listen, args=(tickets,), daemon=True).start()

    from effattack.executors.replies import reply
    from effattack.store import Store

    store = Store(Path(folder))
    print(json.dumps({"state": "ready"}), file=replies)
    while True:
        print(reply(tickets.get(), store), file=replies)


def _listen(tickets: SimpleQueue[str]) -> None:
    for line in sys.stdin:
        tickets.put(line)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
