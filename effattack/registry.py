"""Victims by name: entry points of the group ``effattack.victims``, or ``module:factory``.

Names need no torch; a victim does, once it is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from effattack.errors import EffattackError, FactoryError, UsageError, unknown_name

if TYPE_CHECKING:
    from effattack.victim import Victim

GROUP = "effattack.victims"


def registered() -> dict[str, EntryPoint]:
    """Every registered victim: name -> entry point."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def load_victim(name: str) -> Victim:
    """The victim of a registered name, or what the factory at ``package.module:factory`` returns.

    Raises:
        UsageError: if the name is unknown, the path does not import, or no Victim comes back.
    """
    from effattack.victim import Victim

    if ":" in name:
        factory = import_factory(name)
    else:
        known = registered()
        if name not in known:
            raise unknown_name("victim", name, known)
        factory = known[name].load()
    victim = call(factory, name)
    if not isinstance(victim, Victim):
        raise UsageError(
            f"{name} returned {type(victim).__name__}, not an effattack.Victim: wrap a model that "
            "cannot be opened as effattack.Opaque(model, input_shape), or use one of the wrappers "
            "in effattack.models_zoo"
        )
    return victim


def import_factory(path: str) -> Callable[[], Any]:
    """The callable at ``package.module:factory``.

    Raises:
        UsageError: naming the part that could not be found.
    """
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise UsageError(f"{path!r} is no factory path: write package.module:factory")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        remedy = (
            "run from the folder that contains it, or install it"
            if module_name == missing or module_name.startswith(f"{missing}.")
            else f"{module_name} needs {missing}: install it"
        )
        raise UsageError(f"cannot import {missing!r} for {path!r}: {remedy}") from error
    except Exception as error:
        raise _raised(module_name, error) from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise UsageError(f"{module_name} has no callable {attribute!r}: {path!r} names nothing")
    return factory


def call(factory: Callable[[], Any], name: str) -> Any:
    """What a user's factory returns.

    Raises:
        FactoryError: if it raises; its own error is the cause.
    """
    try:
        return factory()
    except EffattackError:
        raise
    except Exception as error:
        raise _raised(name, error) from error


def _raised(what: str, error: Exception) -> FactoryError:
    line = (str(error).splitlines() or [""])[0]
    return FactoryError(f"{what} raised {type(error).__name__}: {line}: correct it there")
