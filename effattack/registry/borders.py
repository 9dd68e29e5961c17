"""Where a user's own code is called: it may raise, but not end the process that measures it.

``sys.exit(0)`` in a factory would end a run as if it had passed. Where a border stands around a
call, whatever would end the process is an error that names the place. Imports no torch.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from effattack.errors import EffattackError, ExitError, FactoryError
from effattack.streams import on_one_line

LEAVING = ("_exit", "execv", "execve")
"""Functions of ``os`` that end this program at once; all of ``exec*`` goes through these two."""


class _Exit(SystemExit):
    """One of them was called: with what, stands in its code."""


@contextmanager
def staying(what: str) -> Iterator[None]:
    """Turn whatever would end this process while inside into an error; Ctrl-C passes.

    Args:
        what: is called, as the user knows it.

    Raises:
        ExitError: for ``sys.exit``, ``os._exit``, ``os.exec*``, and exceptions that are no
            ``Exception``.
    """
    before = {name: getattr(os, name) for name in LEAVING}
    for name, leave in before.items():
        setattr(os, name, _refusing(name, leave))
    try:
        yield
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise ExitError(_said(what, error)) from error
    finally:
        for name, leave in before.items():
            setattr(os, name, leave)


@contextmanager
def blaming(what: str) -> Iterator[None]:
    """Let it fail with its name, and with its own error as the cause.

    Args:
        what: is called, as the user knows it.

    Raises:
        FactoryError: for whatever it raises, our own errors aside.
    """
    try:
        yield
    except EffattackError:
        raise
    except Exception as error:
        line = (str(error).splitlines() or [""])[0]
        raise FactoryError(
            f"{what} raised {type(error).__name__}: {on_one_line(line)}: correct it there"
        ) from error


def _refusing(name: str, leave: Callable[..., NoReturn]) -> Callable[..., NoReturn]:
    """In place of what nothing could notice; forked children end by it."""
    here = os.getpid()

    def refused(*given: Any) -> NoReturn:
        if os.getpid() != here:
            leave(*given)
        raise _Exit(f"os.{name}({', '.join(map(repr, given))})")

    return refused


def _said(what: str, error: BaseException) -> str:
    if isinstance(error, SystemExit):
        call = error.code if isinstance(error, _Exit) else f"sys.exit({error.code!r})"
        did = f"called {call}"
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
