"""Finding, importing and making what another library has."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

from effattack.errors import MissingPackage, UsageError


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
