"""Things by name: entry points of a group, or ``module:factory``.

Names need no torch; what they stand for may, once it is loaded. Nothing of the current folder is
imported before a module of it is asked for.
"""

from __future__ import annotations

import ast
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Collection, Sequence
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points
from importlib.util import module_from_spec
from typing import Any

from effattack.errors import UsageError, unknown_name
from effattack.moved import END
from effattack.registry.borders import blaming, staying

VICTIMS = "effattack.victims"
"""A group of entry points; the others: effattack.{attacks, threats, scores, domains}."""


def entries(group: str) -> dict[str, EntryPoint]:
    """Everything registered in a group: name -> entry point."""
    return {entry.name: entry for entry in entry_points(group=group)}


def outside(group: str, ours: Collection[str]) -> list[str]:
    """Names that other packages register in a group, in order."""
    return sorted(name for name in entries(group) if name not in ours)


def named(group: str, text: str) -> Any:
    """What a registered name stands for, or what stands at ``package.module:name``.

    Raises:
        UsageError: if the name is unknown, or the path does not import.
        ExitError: if what is imported would end the process.
    """
    if ":" in text:
        return import_factory(text)
    known = entries(group)
    if text not in known:
        kind = group.rpartition(".")[2].removesuffix("s")
        raise unknown_name(kind, text, known)
    with staying(text):
        return known[text].load()


def read_name(text: str) -> tuple[str, dict[str, Any]]:
    """``"mine.attacks:Mine(steps=20)"`` -> (``"mine.attacks:Mine"``, ``{"steps": 20}``).

    Only literals are read, none run.

    Raises:
        UsageError: if it is neither a name nor NAME(option=value, ...).
    """
    name, opened, rest = text.strip().partition("(")
    if not opened:
        return text, {}
    try:
        call = ast.parse(f"name({rest}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError("options are given as option=value")
        options = {word.arg: _literal(word.value) for word in call.keywords if word.arg}
        if len(options) < len(call.keywords):
            raise ValueError("options are given as option=value, each once")
    except (SyntaxError, ValueError) as error:
        raise UsageError(
            f"cannot read {text!r} ({error}): write NAME(option=value, ...) with plain values, "
            "such as Slowdown(keep_prediction=True) or Slowdown(threat='l2:1.0')"
        ) from error
    return name.strip(), options


def _literal(value: ast.expr) -> Any:
    try:
        return ast.literal_eval(value)
    except ValueError:
        raise ValueError(f"{ast.unparse(value)} is no plain value") from None


def __getattr__(name: str) -> object:
    if name != "load_victim":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(
        "effattack.registry.load_victim is now effattack.victim.load_victim; the old path ends "
        f"with version {END}",
        DeprecationWarning,
        stacklevel=2,
    )
    return import_module("effattack.victim").load_victim


def is_file(name: str) -> bool:
    """Whether a victim's name is the path of an exported model."""
    return name.endswith(".onnx")


def expect_twinned(names: Sequence[str], twin: str) -> None:
    """Refuse a twin where no victim is a file.

    Raises:
        UsageError: with the remedy.
    """
    if twin and not any(map(is_file, names)):
        raise UsageError(
            f"twin {twin!r} is of no victim: it stands beside an exported file, as in --victim "
            f"model.onnx --twin {twin}; name the file, or leave the twin out"
        )


def import_factory(path: str) -> Callable[[], Any]:
    """The callable at ``package.module:factory``.

    The module is looked for in the current folder first. What it imports comes from there only
    where nothing of that name is installed.

    Raises:
        UsageError: naming the part that could not be found.
        ExitError: if the module would end the process.
    """
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise UsageError(f"{path!r} is no factory path: write package.module:factory")
    with blaming(module_name):
        try:
            with staying(module_name):
                _look_here(module_name.partition(".")[0])
                factory = getattr(import_module(module_name), attribute, None)
        except ModuleNotFoundError as error:
            missing = error.name or module_name
            remedy = (
                "run from the folder that contains it, or install it"
                if module_name == missing or module_name.startswith(f"{missing}.")
                else f"{module_name} needs {missing}: install it"
            )
            raise UsageError(f"cannot import {missing!r} for {path!r}: {remedy}") from error
    if not callable(factory):
        raise UsageError(f"{module_name} has no callable {attribute!r}: {path!r} names nothing")
    return factory


def _look_here(package: str) -> None:
    """Import a package of the current folder; the folder goes last on the import path."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)
    spec = PathFinder.find_spec(package, [here]) if package not in sys.modules else None
    if spec is None or spec.loader is None or spec.origin is None:  # a folder of no package
        return
    sys.modules[package] = module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(package, None)
        raise


def call(factory: Callable[[], Any], name: str) -> Any:
    """What a user's factory returns.

    Raises:
        UsageError: if it needs arguments, naming them.
        FactoryError: if it raises; its own error is the cause.
        ExitError: if it would end the process.
    """
    if needed := _needed(factory):
        raise UsageError(
            f"{name} needs arguments ({', '.join(needed)}), and is called without any: write a "
            "function that needs none and returns what it makes, and name that"
        )
    with blaming(name), staying(name):
        return factory()


def _needed(factory: Callable[..., Any]) -> list[str]:
    """The arguments that have no default."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # of some built-in functions nothing is known
        return []
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in several]
