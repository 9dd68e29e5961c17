"""Finding, importing and making what another library has, and telling where it fails."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from effattack.errors import EffattackError, LibraryError, MissingPackage, UsageError, first_line
from effattack.victim.door import in_words

LIBRARIES = {
    *("foolbox", "eagerpy", "torchattacks", "numba", "scipy"),
    *("torch", "torchao", "torchvision", "timm", "bitsandbytes"),
}
"""Whose errors are told in our words; those of the user's own code are left as they are."""


def classes(module: Any) -> dict[str, type]:
    """The public classes of a module, by name."""
    return {name: thing for name, thing in vars(module).items() if inspect.isclass(thing)}


def imported(module: str, remedy: str) -> Any:
    """A library, imported on first use.

    Raises:
        MissingPackage: with the remedy.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingPackage(f"{module} does not import ({error}): {remedy}") from error


@contextmanager
def telling(attack: str, victim: str, shape: tuple[int, ...]) -> Iterator[None]:
    """Tell the errors of other libraries in one line, with what they were asked to do.

    Args:
        attack: its name.
        victim: its name.
        shape: of the attacked images, (B, C, H, W).

    Raises:
        LibraryError: in place of what a library raised.
    """
    try:
        with in_words(f"{attack} on {victim}"):
            yield
    except EffattackError:
        raise
    except Exception as error:  # whatever a library raises
        if (library := _origin(error)) not in LIBRARIES:
            raise
        raise LibraryError(
            f"{attack} on {victim}, images of shape {shape}: {library} failed with "
            f"{type(error).__name__}: {first_line(error)}; use other options or images, or "
            "another attack"
        ) from error


def _origin(error: Exception) -> str:
    """The package in whose code an error was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    name = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__", ""))
    return name.partition(".")[0]


def construct(cls: Any, name: str, *arguments: Any, **options: Any) -> Any:
    """An attack of a library, made.

    Raises:
        UsageError: with its signature, if it takes no such options.
    """
    try:
        return cls(*arguments, **options)
    except TypeError as error:
        raise UsageError(
            f"{name} cannot be made with {options}: {error}; its signature is "
            f"{cls.__name__}{inspect.signature(cls)}"
        ) from error
