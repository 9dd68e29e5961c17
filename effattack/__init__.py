"""effattack: how much of an efficient model's savings can an attacker take back?

The names below load on first use (PEP 562), so that importing the package, and with it the
pytest plugin, does not import torch; ``__init__.pyi`` tells them to type checkers.
"""

from __future__ import annotations

from importlib import import_module

from effattack.moved import forward

__version__ = "0.2.0"

_HOME = {
    "Audit": "victim",
    "Decision": "victim.hooked",
    "Evaluation": "results.evaluation",
    "Gate": "victim",
    "Hooked": "victim.hooked",
    "Opaque": "victim",
    "Score": "results.score",
    "Trace": "victim",
    "Victim": "victim",
    "audit": "victim",
    "evaluate": "runs.evaluate",
    "outside": "counting.outside",
    "tally": "counting.tallies",
}
forward()
__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"effattack.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
