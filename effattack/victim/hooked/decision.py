"""Decision: where a model compares what with which threshold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from effattack.errors import UsageError, unknown_name
from effattack.victim.hooked.rules import Rule, Threshold

Reading = Callable[[nn.Module, tuple[Any, ...], Any], Tensor]
"""An intermediate, from what a forward hook is given: the module, its inputs, its output."""


@dataclass(frozen=True)
class Decision:
    """One place where a model decides how much to compute.

    Args:
        name: of the gate, as tables call it.
        tensor: the tensor that is compared: dotted name of the module whose output it is
            (``"exits.0"``), or that name and a function (module, inputs, output) -> tensor, as a
            forward hook has it, for an intermediate.
        rule: where work is saved: ``above(0.9, confidence)``; see
            :mod:`effattack.victim.hooked.rules`.
        threshold: dotted name of the attribute that the model compares with (``"threshold"``,
            ``"thresholds.0"``, ``"config.keep"``), which may be set while the model runs, so that
            the decision is forced; it is put back after each run.
    """

    name: str
    tensor: str | tuple[str, Reading]
    rule: Rule
    threshold: str | None = None

    @property
    def module(self) -> str:
        """Dotted name of the module that is watched."""
        return self.tensor if isinstance(self.tensor, str) else self.tensor[0]

    def read(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor:
        """The compared tensor; a copy, as the model may write into its own.

        Raises:
            UsageError: where the module gives no tensor.
        """
        found = output if isinstance(self.tensor, str) else self.tensor[1](module, inputs, output)
        if not isinstance(found, Tensor):
            raise UsageError(
                f"decision {self.name}: {self.module} gives a {type(found).__name__}, no tensor: "
                f"say which, tensor=({self.module!r}, lambda module, inputs, output: output[0])"
            )
        return found.clone()

    def __post_init__(self) -> None:
        """Refuse arguments of another kind.

        Raises:
            UsageError: saying what to give.
        """
        named = [self.name, self.module if _watches(self.tensor) else None]
        if self.threshold is not None:
            named.append(self.threshold)
        if not all(isinstance(name, str) and name for name in named):
            raise UsageError(
                f"decision {self.name!r}: tensor = {self.tensor!r}, threshold = {self.threshold!r}"
                ": give names, Decision('exit', tensor='exits.0', rule=..., threshold='sure'), or "
                "as tensor a name and a function (module, inputs, output) -> tensor"
            )
        if not hasattr(self.rule, "decide"):
            raise UsageError(
                f"decision {self.name}: rule = {self.rule!r}: give one of effattack.victim.hooked, "
                "such as above(0.9, confidence)"
            )

    def check(self, model: nn.Module) -> None:
        """Refuse what the model does not have.

        Raises:
            UsageError: naming it, with the nearest names.
        """
        modules = {name for name, _ in model.named_modules(remove_duplicate=False) if name}
        if self.module not in modules:
            raise unknown_name(f"module of {type(model).__name__}", self.module, modules)
        if self.threshold is None:
            return
        if not isinstance(self.rule, Threshold):
            raise UsageError(
                f"decision {self.name} has threshold={self.threshold!r}, but its rule compares "
                "with none: leave it out, and name the modules that it spares"
            )
        held = Attribute(model, self.threshold).value
        value = float(held.detach() if isinstance(held, Tensor) else held)
        if abs(value - self.rule.value) > 1e-6 * max(1.0, abs(value)):
            raise UsageError(
                f"decision {self.name}: {self.threshold} is {value:g}, but its rule says "
                f"{self.rule}: write the threshold that the model uses"
            )


def _watches(tensor: Any) -> bool:
    pair = isinstance(tensor, tuple) and len(tensor) == 2 and callable(tensor[1])
    return isinstance(tensor, str) or pair


def openings(decisions: Sequence[Decision]) -> dict[str, float]:
    """The decisions that can be forced -> the threshold at which they save nothing."""
    return {
        each.name: each.rule.open
        for each in decisions
        if each.threshold is not None and isinstance(each.rule, Threshold)
    }


class Attribute:
    """A number of a model that may be set for a while.

    Args:
        model: what it belongs to.
        path: dotted; parts of digits are places in a list.

    Raises:
        UsageError: if there is no such number, naming those nearby.
    """

    def __init__(self, model: nn.Module, path: str) -> None:
        self.path = path
        *parts, self.key = path.split(".")
        self.owner: Any = model
        for depth, part in enumerate(parts):
            self.owner = _part(self.owner, part, path, parts[:depth])
        self.value: Any = _part(self.owner, self.key, path, parts)
        if isinstance(self.owner, Tensor) and self.value.numel() == 1:
            self.value = self.value.item()
        if not _is_number(self.value):
            raise UsageError(
                f"threshold {path!r} is a {type(self.value).__name__}, not a number: name one, "
                f"such as {path + '.0'!r} for the first of a list"
            )

    def set(self, value: float) -> None:
        """Put a number in its place, as a tensor where it is one."""
        held: Any = value
        if isinstance(self.value, Tensor):
            held = torch.full_like(self.value.detach().float(), value)
            if isinstance(self.value, nn.Parameter):
                held = nn.Parameter(held, requires_grad=False)
        self._put(held)

    def restore(self) -> None:
        """Put back what was there."""
        self._put(self.value)

    def _put(self, value: Any) -> None:
        try:
            if isinstance(self.owner, list | Tensor):
                with torch.no_grad():
                    self.owner[int(self.key)] = value
            elif isinstance(self.owner, dict):
                self.owner[self.key] = value
            else:
                setattr(self.owner, self.key, value)
        except (AttributeError, TypeError) as error:
            raise UsageError(
                f"threshold {self.path!r} cannot be set ({error}): keep it in an attribute, or "
                "leave threshold= out and name the modules that are spared"
            ) from error


def _part(owner: Any, part: str, path: str, before: list[str]) -> Any:
    try:
        if isinstance(owner, list | tuple | Tensor):
            return owner[int(part)]
        return owner[part] if isinstance(owner, dict) else getattr(owner, part)
    except (AttributeError, IndexError, KeyError, ValueError) as error:
        raise unknown_name("threshold", path, _numbers(owner, before)) from error


def _numbers(owner: Any, before: list[str]) -> list[str]:
    """Paths of the numbers of an owner, which itself is found behind ``before``."""
    if isinstance(owner, list | tuple | Tensor):
        held: dict[str, Any] = {str(place): value for place, value in enumerate(owner)}
    elif isinstance(owner, dict):
        held = owner
    else:
        held = {**getattr(owner, "_buffers", {}), **getattr(owner, "_parameters", {})}
        own = getattr(owner, "__dict__", {})
        held |= {key: value for key, value in own.items() if key != "training"}
    return [".".join([*before, key]) for key, value in held.items() if _is_number(value)]


def _is_number(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1
    return isinstance(value, int | float) and not isinstance(value, bool)
