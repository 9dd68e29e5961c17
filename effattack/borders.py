"""Where a user's own code is called: it may raise, but not end the process that measures it.

``sys.exit(0)`` in a factory would end a run as if it had passed. Where a border stands around a
call, whatever would end the process is an error that names the place. Imports no torch.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from effattack.errors import ExitError


class _Exit(SystemExit):
    """``os._exit`` was called."""


@contextmanager
def staying(what: str) -> Iterator[None]:
    """Turn whatever would end this process while inside into an error; Ctrl-C passes.

    Args:
        what: is called, as the user knows it.

    Raises:
        ExitError: for ``sys.exit``, ``os._exit``, and exceptions that are no ``Exception``.
    """
    leave = os._exit
    os._exit = _refusing()  # type: ignore[assignment]
    try:
        yield
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise ExitError(_said(what, error)) from error
    finally:
        os._exit = leave


def _refusing() -> object:
    """In place of ``os._exit``, which nothing could notice; forked children end by it."""
    here, leave = os.getpid(), os._exit

    def refused(status: int) -> NoReturn:
        if os.getpid() != here:
            leave(status)
        raise _Exit(status)

    return refused


def _said(what: str, error: BaseException) -> str:
    if isinstance(error, SystemExit):
        did = f"called {'os._exit' if isinstance(error, _Exit) else 'sys.exit'}({error.code!r})"
    else:
        did = f"raised {type(error).__name__}"
    called = traceback.extract_tb(error.__traceback__)
    place = next(call for call in reversed(called) if not _between(call.filename))
    return (
        f"{what} {did} at {Path(place.filename).name}, line {place.lineno}: nothing that is "
        "measured may end the process; raise an Exception there"
    )


def _between(file: str) -> bool:
    """Whether it is no user's code: this file, or the standard library (``argparse``, ``exit``)."""
    library = f"{os.path.dirname(os.__file__)}{os.sep}"
    ours = file == __file__ or file.startswith("<frozen")
    return ours or (file.startswith(library) and "site-packages" not in file)
