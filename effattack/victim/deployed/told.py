"""What an artefact tells, in the form that is promised: outputs, decisions and work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from effattack.domains import Domain
from effattack.errors import (
    ContractError,
    EffattackError,
    MeasurementError,
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
    if twin is None:
        if domain is None or task is None:
            raise UsageError(
                f"{name} has no twin to say what it takes and answers: give domain=..., such as "
                "Pixels((3, 32, 32)), and task=..., such as Classes(10)"
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
def telling(what: str) -> Iterator[None]:
    """Say in one line what an artefact raised, and where.

    Raises:
        MeasurementError: of whatever is no error of ours, and no lack of memory.
    """
    try:
        yield
    except (EffattackError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a runtime raises
        raise MeasurementError(
            f"{what} raised {type(error).__name__}: {first_line(error)}"
        ) from error


def outputs_of(found: Any, victim: Victim, count: int) -> tuple[Tensor, Decisions | None]:
    """The outputs of ``count`` inputs and, where the artefact shows them, the decisions.

    Raises:
        ContractError: for anything else.
    """
    outputs, decisions = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    expected = f"return outputs, or (outputs, {{gate name: bool}}); expected {victim.task.form(1)}"
    if isinstance(outputs, np.ndarray):
        outputs = torch.tensor(outputs)
    if not isinstance(outputs, Tensor):
        raise ContractError(f"{victim.name}: run returned {_kind(found)}: {expected}")
    if not victim.task.fits(outputs, count):
        raise ContractError(
            f"{victim.name}: run returned {tuple(outputs.shape)} {outputs.dtype} for {count} "
            f"{victim.domain.nouns}, expected {victim.task.form(count)}; is its twin the model "
            "that the artefact was made from?"
        )
    outputs = outputs.detach().to(victim.device)
    if decisions is None:
        return outputs, None
    if not isinstance(decisions, Mapping):
        raise ContractError(
            f"{victim.name}: run returned {_kind(decisions)} beside the outputs: {expected}"
        )
    return outputs, {gate: _decided(victim, gate, each, count) for gate, each in decisions.items()}


def _decided(victim: Victim, gate: str, found: Any, count: int) -> Tensor:
    units = torch.tensor(found) if isinstance(found, np.ndarray) else found
    if not isinstance(units, Tensor) or units.dtype != torch.bool or len(units) != count:
        raise ContractError(
            f"{victim.name}: run returned {_kind(found)} as decisions of gate {gate!r}: give "
            f"({count}, units) bool, True where it was computed"
        )
    return units.to(victim.device).reshape(count, -1)


def work_of(found: Any, victim: Victim, count: int) -> dict[str, Tensor]:
    """(B,) float64 of MACs and of each count of a victim, by name.

    Raises:
        ContractError: where one is missing, of another length, negative, NaN or infinite.
    """
    told = dict(found) if isinstance(found, Mapping) else {"macs": found}
    expected = {"macs", *victim.counts}
    if told.keys() != expected:
        raise ContractError(
            f"{victim.name}: work returned {sorted(told)}: give {sorted(expected)}, each (B,)"
        )
    work = {name: _numbers(victim, name, each, count) for name, each in told.items()}
    if not bool((work["macs"] > 0).all()):
        raise ContractError(
            f"{victim.name}: work returned {work['macs'].min():g} macs: every input takes some; "
            "where they are unknown, leave work out"
        )
    return work


def _numbers(victim: Victim, name: str, found: Any, count: int) -> Tensor:
    try:
        numbers = torch.as_tensor(found, dtype=torch.float64).to(victim.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ContractError(
            f"{victim.name}: work returned {_kind(found)} as {name}: give numbers ({count},)"
        ) from error
    if tuple(numbers.shape) != (count,):
        raise ContractError(
            f"{victim.name}: work returned {name} of shape {tuple(numbers.shape)} for {count} "
            f"{victim.domain.nouns}: give one number each, ({count},)"
        )
    if not bool((torch.isfinite(numbers) & (numbers >= 0)).all()):
        raise ContractError(
            f"{victim.name}: work returned {name} = {numbers.tolist()}: give numbers of 0 or more"
        )
    return numbers


def _kind(found: Any) -> str:
    if isinstance(found, Tensor | np.ndarray):
        return f"{tuple(found.shape)} {found.dtype}"
    return "None" if found is None else f"a {type(found).__name__}"
