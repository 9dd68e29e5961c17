"""What a victim says of itself, and the shapes of what it returns."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import chain

import torch
from torch import Generator, Tensor

from effattack.errors import ContractError
from effattack.victim import Trace, Victim
from effattack.victim.door import noticing, without_numbers
from effattack.victim.opaque import ONE_LOGIT
from effattack.victim.undisturbed import undisturbed


def check_declared(victim: Victim, images: Tensor | None = None) -> list[str]:
    """What the victim says of itself is complete, and both paths give what it says.

    Args:
        victim: any victim.
        images: (B, *input_shape) in [0, 1]; two of noise where missing.

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
    if images is None:
        images = torch.rand((2, *victim.input_shape), generator=Generator().manual_seed(0))
        images = images.to(victim.device)
    with undisturbed(victim), torch.no_grad(), noticing() as writers:
        trace = victim.trace(images)
        found = {"forward": victim(images), "trace().logits": trace.logits}
    _check_answers(victim, trace, found, len(images))
    return [f"{victim.name}: {' and '.join(writers)} wrote into its input: copies were given"] * (
        len(writers) > 0
    )


def _check_answers(victim: Victim, trace: Trace, found: dict[str, Tensor], images: int) -> None:
    """The logits of both paths, and what a trace declares, are of the form that is promised."""
    shape = (images, victim.num_classes)
    for path, logits in found.items():
        if not isinstance(logits, Tensor):
            raise ContractError(f"{victim.name}: {path} is no tensor: give logits {shape}")
        if tuple(logits.shape) != shape or not logits.is_floating_point():
            raise ContractError(
                f"{victim.name}: {path} gives {tuple(logits.shape)} {logits.dtype}, expected "
                f"{shape} floats: return plain logits, or correct num_classes"
            )
    if not isinstance(trace.macs, Tensor):
        raise ContractError(f"{victim.name}: trace().macs is no tensor: give float64 {shape[:1]}")
    if tuple(trace.macs.shape) != shape[:1] or trace.macs.dtype != torch.float64:
        raise ContractError(
            f"{victim.name}: trace().macs is {tuple(trace.macs.shape)} {trace.macs.dtype}, "
            f"expected {shape[:1]} torch.float64 (float32 cannot hold large counts)"
        )
    stages = trace.stage_logits
    if stages is not None and (stages.dim() != 3 or (stages.shape[0], stages.shape[2]) != shape):
        raise ContractError(
            f"{victim.name}: trace().stage_logits is {tuple(stages.shape)}, expected (B, stages, "
            "classes)"
        )
    if trace.gates and math.isnan(victim.max_macs):
        raise ContractError(
            f"{victim.name}: max_macs is NaN, but there are gates: declare the structural worst "
            "case, all of them open"
        )


def _is_count(value: object, least: int = 1) -> bool:
    return isinstance(value, int) and value >= least


def _is_macs(value: object) -> bool:
    return isinstance(value, int | float) and (math.isnan(value) or 0 < value < math.inf)


_DECLARED: dict[str, tuple[str, Callable[[object], bool]]] = {
    "name": ("a name", lambda v: isinstance(v, str) and bool(v)),
    "family": ("a family such as 'early exit'", lambda v: isinstance(v, str) and bool(v)),
    "input_shape": (
        "a tuple (C, H, W)",
        lambda v: isinstance(v, tuple) and bool(v) and all(map(_is_count, v)),
    ),
    "num_classes": ("a number of classes, 2 or more", lambda v: _is_count(v, 2)),
    "max_macs": ("the structural worst case in MACs, or NaN", _is_macs),
    "dense_macs": ("the MACs without the mechanism, or NaN", _is_macs),
    "constant": ("True or False", lambda v: isinstance(v, bool)),
    "batch_coupled": ("True or False", lambda v: isinstance(v, bool)),
    "data": (
        "'module:factory' or None",
        lambda v: v is None or (isinstance(v, str) and ":" in v),
    ),
}
