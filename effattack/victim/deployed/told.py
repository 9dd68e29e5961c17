"""What an artefact tells, in the form that is promised: outputs, decisions and work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from effattack.domains import Batch, Domain
from effattack.domains.base import tensors
from effattack.errors import (
    ContractError,
    EffattackError,
    UsageError,
    first_line,
)
from effattack.tasks import Task
from effattack.victim.contract import Victim

Decisions = Mapping[str, Tensor]
"""Gate name -> (B, units) bool."""


def asked(
    name: str, twin: Victim | None, domain: Domain | None, task: Task | None
) -> tuple[Domain, Task]:
    """What the inputs and answers of an artefact are: its twin's, or what is said in its place.

    Raises:
        UsageError: where neither says it, or both say different things.
    """
    if twin is not None and not isinstance(twin, Victim):
        raise UsageError(
            f"Deployed(twin={type(twin).__name__}): give the effattack.Victim that the artefact "
            "was made from, or twin=None with domain= and task="
        )
    if twin is None:
        if domain is None or task is None:
            raise UsageError(
                "Deployed without a twin: give domain=, such as Pixels((3, 224, 224)), and task=, "
                "such as Classes(1000)"
            )
        return domain, task
    inputs, answers = domain or twin.domain, task or twin.task
    for what, own, its in (
        ("takes", inputs.describe(), twin.domain.describe()),
        ("answers", _described(answers), _described(twin.task)),
    ):
        if own != its:
            raise UsageError(
                f"{name} {what} {_apart(own, its)}, its twin {twin.name} {_apart(its, own)}: give "
                "the model that the artefact was made from"
            )
    return inputs, answers


def _described(task: Task) -> dict[str, Any]:
    return {"task": type(task).__name__, "classes": getattr(task, "count", None)}


def _apart(own: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {v}" for k, v in own.items() if other.get(k) != v)


@contextmanager
def telling(victim: Victim, what: str, batch: Batch) -> Iterator[None]:
    """Run a user's callable without gradients, and say in one line what it raised.

    Raises:
        ContractError: of whatever is no error of ours, and no lack of memory.
    """
    try:
        with torch.no_grad():
            yield
    except (EffattackError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a runtime raises
        shapes = " and ".join(f"{tuple(part.shape)}" for part in tensors(batch))
        raise ContractError(
            f"{victim.name}: {what} raised {type(error).__name__} on {victim.domain.nouns} of "
            f"shape {shapes} ({first_line(error)}): an artefact must take what its twin takes"
        ) from error


def outputs_of(found: Any, victim: Victim, count: int) -> tuple[Tensor, Decisions]:
    """The outputs of ``count`` inputs, and the decisions that the artefact shows.

    Raises:
        ContractError: for anything else.
    """
    outputs, decisions = found if isinstance(found, tuple) and len(found) == 2 else (found, {})
    tensor = _tensor(outputs)
    if tensor is None or not isinstance(decisions, Mapping):
        raise ContractError(
            f"{victim.name}: run returned {_kind(found)}: return outputs (B, ...), or (outputs, "
            "{gate: (B, units) bool})"
        )
    if not victim.task.fits(tensor, count):
        raise ContractError(
            f"{victim.name}: run returned {_kind(tensor)} for {count} {victim.domain.nouns}, "
            f"expected {victim.task.form(count)}; is its twin the model that it was made from?"
        )
    shown = {gate: _decided(victim, gate, each, count) for gate, each in decisions.items()}
    return tensor.detach().to(victim.device), shown


def work_of(found: Any, victim: Victim, count: int) -> tuple[dict[str, Tensor], Decisions]:
    """(B,) float64 of MACs and of each count of a victim, by name; and decisions beside them.

    Raises:
        ContractError: where one is missing, of another length, negative, NaN or infinite.
    """
    told = dict(found) if isinstance(found, Mapping) else {"macs": found}
    names = ("macs", *victim.counts)
    if missing := [name for name in names if name not in told]:
        raise ContractError(
            f"{victim.name}: work leaves out {', '.join(missing)}: return {{'macs': (B,)}}, and "
            "each of the victim's counts"
        )
    work = {name: _numbers(victim, name, told.pop(name), count) for name in names}
    if not bool((work["macs"] > 0).all()):
        raise ContractError(
            f"{victim.name}: work says {work['macs'].min():g} macs: every input takes some; leave "
            "work out where they are unknown"
        )
    return work, {gate: _decided(victim, gate, each, count) for gate, each in told.items()}


def _decided(victim: Victim, gate: str, found: Any, count: int) -> Tensor:
    units = _tensor(found)
    if units is None or units.dtype != torch.bool or units.dim() == 0 or len(units) != count:
        raise ContractError(
            f"{victim.name}: {_kind(found)} were returned as decisions of {gate!r}: give "
            f"({count}, units) bool by the name of a gate, True where it was computed"
        )
    return units.to(victim.device).reshape(count, -1)


def _numbers(victim: Victim, name: str, found: Any, count: int) -> Tensor:
    numbers = _tensor(found)
    if numbers is None or tuple(numbers.shape) != (count,):
        raise ContractError(
            f"{victim.name}: work returned {_kind(found)} as {name} of {count} "
            f"{victim.domain.nouns}: give one number each, ({count},)"
        )
    numbers = numbers.to(victim.device, torch.float64)
    if not bool((torch.isfinite(numbers) & (numbers >= 0)).all()):
        raise ContractError(
            f"{victim.name}: work says {name} = {numbers.tolist()}: give what was executed, 0 or "
            "more, or leave work out where it is unknown"
        )
    return numbers


def _tensor(found: Any) -> Tensor | None:
    """As a tensor, where it is one, or an array, or a list of numbers."""
    if isinstance(found, Tensor):
        return found
    try:
        return torch.tensor(found)
    except (TypeError, ValueError, RuntimeError):
        return None


def _kind(found: Any) -> str:
    if isinstance(found, Tensor | np.ndarray):
        return f"{tuple(found.shape)} {found.dtype}"
    return "None" if found is None else f"a {type(found).__name__}"
