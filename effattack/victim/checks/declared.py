"""What a victim says of itself, and the shapes of what it returns."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import chain

import torch
from torch import Generator, Tensor

from effattack.counting.tallies import Count
from effattack.domains import Batch, Domain, check_domain
from effattack.errors import ContractError
from effattack.tasks import Task, check_task
from effattack.victim import Trace, Victim
from effattack.victim.door import noticing, without_numbers
from effattack.victim.opaque import ONE_LOGIT
from effattack.victim.undisturbed import undisturbed


def check_declared(victim: Victim, batch: Batch | None = None) -> list[str]:
    """What the victim says of itself is complete, and both paths give what it says.

    Args:
        victim: any victim.
        batch: valid inputs; two of noise where missing.

    Returns:
        which paths write into their input: they are given copies.
    """
    if not isinstance(victim, Victim):
        raise ContractError(
            f"{type(victim).__name__} is no effattack.Victim: wrap a model that cannot be opened "
            "as effattack.Opaque(model, input_shape)"
        )
    for attribute, (rule, holds) in _DECLARED.items():
        value = getattr(victim, attribute, None)
        if not holds(value):
            raise ContractError(
                f"{victim.name}: {attribute} = {value!r} must be {rule}: "
                f"{ONE_LOGIT if (attribute, value) == ('num_classes', 1) else 'set it in __init__'}"
            )
    if any(held.is_meta for held in chain(victim.parameters(), victim.buffers())):
        raise ContractError(without_numbers(victim.name))
    check_domain(victim.domain)
    check_task(victim.task)
    if batch is None:
        batch = victim.domain.disturbed(victim.example(2), Generator().manual_seed(0))
    with undisturbed(victim), torch.no_grad(), noticing() as writers:
        trace = victim.trace(batch)
        found = {"forward": victim(batch), "trace().logits": trace.logits}
    _check_answers(victim, trace, found, len(batch))
    return [f"{victim.name}: {' and '.join(writers)} wrote into its input: copies were given"] * (
        len(writers) > 0
    )


def _check_answers(victim: Victim, trace: Trace, found: dict[str, Tensor], count: int) -> None:
    """The outputs of both paths, and what a trace declares, are of the form that is promised."""
    expected = victim.task.form(count)
    for path, outputs in found.items():
        if not isinstance(outputs, Tensor):
            raise ContractError(f"{victim.name}: {path} is no tensor: give {expected}")
        if not victim.task.fits(outputs, count):
            raise ContractError(
                f"{victim.name}: {path} gives {tuple(outputs.shape)} {outputs.dtype}, expected "
                f"{expected}"
            )
    _check_work(victim, "macs", trace.macs, count)
    if set(trace.also) != set(victim.counts):
        raise ContractError(
            f"{victim.name}: trace().also has {sorted(trace.also)}, the victim counts "
            f"{sorted(victim.counts)}: give each of its counts, and no other"
        )
    for name, work in trace.also.items():
        _check_work(victim, f"also[{name!r}]", work, count)
    if trace.slack is not None and tuple(trace.slack.shape) != (count,):
        raise ContractError(
            f"{victim.name}: trace().slack is {tuple(trace.slack.shape)}, expected ({count},)"
        )
    stages, classes = trace.stage_logits, (count, victim.num_classes)
    if stages is not None and (stages.dim() != 3 or (stages.shape[0], stages.shape[2]) != classes):
        raise ContractError(
            f"{victim.name}: trace().stage_logits is {tuple(stages.shape)}, expected (B, stages, "
            "classes)"
        )
    if trace.gates and math.isnan(victim.max_macs):
        raise ContractError(
            f"{victim.name}: max_macs is NaN, but there are gates: declare the structural worst "
            "case, all of them open"
        )


def _check_work(victim: Victim, what: str, work: object, count: int) -> None:
    if not isinstance(work, Tensor):
        raise ContractError(f"{victim.name}: trace().{what} is no tensor: give float64 ({count},)")
    if tuple(work.shape) != (count,) or work.dtype != torch.float64:
        raise ContractError(
            f"{victim.name}: trace().{what} is {tuple(work.shape)} {work.dtype}, expected "
            f"({count},) torch.float64 (float32 cannot hold large counts)"
        )


def _is_count(value: object, least: int = 1) -> bool:
    return isinstance(value, int) and value >= least


def _is_macs(value: object) -> bool:
    return isinstance(value, int | float) and (math.isnan(value) or 0 < value < math.inf)


_DECLARED: dict[str, tuple[str, Callable[[object], bool]]] = {
    "name": ("a name", lambda v: isinstance(v, str) and bool(v)),
    "family": ("a family such as 'early exit'", lambda v: isinstance(v, str) and bool(v)),
    "domain": ("an effattack.domains.Domain", lambda v: isinstance(v, Domain)),
    "task": ("an effattack.tasks.Task", lambda v: isinstance(v, Task)),
    "input_shape": (
        "a tuple (C, H, W)",
        lambda v: isinstance(v, tuple) and all(size is None or _is_count(size) for size in v),
    ),
    "num_classes": ("a number of classes, 2 or more", lambda v: _is_count(v, 0) and v != 1),
    "max_macs": ("the structural worst case in MACs, or NaN", _is_macs),
    "dense_macs": ("the MACs without the mechanism, or NaN", _is_macs),
    "constant": ("True or False", lambda v: isinstance(v, bool)),
    "batch_coupled": ("True or False", lambda v: isinstance(v, bool)),
    "pads": ("True or False", lambda v: isinstance(v, bool)),
    "counts": (
        "a mapping of names to effattack.counting.tallies.Count",
        lambda v: isinstance(v, dict) and all(isinstance(count, Count) for count in v.values()),
    ),
    "data": (
        "'module:factory' or None",
        lambda v: v is None or (isinstance(v, str) and ":" in v),
    ),
}
