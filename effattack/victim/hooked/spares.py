"""What decisions without a threshold spare, as their user says, and whether the model does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from effattack.errors import UsageError, unknown_name
from effattack.victim.hooked.trials import Spent, Trials

Spares = Mapping[str, tuple[str, ...]]
"""Name of a decision -> dotted names of the modules that run only where it is open."""


def spares_of(given: Mapping[str, Iterable[str]] | None) -> Spares:
    """What a user gave.

    Raises:
        UsageError: where it is no mapping of names to lists of names.
    """
    found = {} if given is None else given
    if not isinstance(found, Mapping) or not all(map(_names, found.values())):
        raise UsageError(
            f"spares = {given!r}: give the dotted names of modules by decision, "
            "{'exit': ['stages.1', 'exits.1']}"
        )
    return {decision: tuple(modules) for decision, modules in found.items()}


def _names(modules: object) -> bool:
    return isinstance(modules, list | tuple | set) and all(isinstance(m, str) for m in modules)


def check_spares(trials: Trials, spares: Spares) -> None:
    """Refuse spares that the model does not have, or of a decision that is none of its own.

    Raises:
        UsageError: naming them, or the decision of which nothing is known.
    """
    names = [decision.name for decision in trials.decisions]
    modules = {name for name, _ in trials.model.named_modules(remove_duplicate=False) if name}
    for name, spared in spares.items():
        if name not in names:
            raise unknown_name("decision in spares", name, names)
        for module in spared:
            if module not in modules:
                raise unknown_name(f"module of {type(trials.model).__name__}", module, modules)
    for name in names:
        if name not in trials.forcible and not spares.get(name):
            raise UsageError(
                f"decision {name}: what it saves is not known: name the attribute that forces it, "
                "threshold=, or the modules that run only where nothing is saved, "
                f"spares={{{name!r}: [...]}}"
            )


def check_idle(name: str, spent: Spent, spares: Spares) -> None:
    """Refuse what ran although a decision that is to spare it saved.

    Args:
        name: of the decision.
        spent: the MACs of a run in which it saved all that it can.
        spares: by decision.

    Raises:
        UsageError: naming the module and the decision.
    """
    for module in spares.get(name, ()):
        if spent.under(module):
            raise UsageError(
                f"decision {name} saves, but {module}, which it is to spare, runs: name only "
                "modules that run where nothing is saved, or correct its rule"
            )
