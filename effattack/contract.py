"""The contract as checks: the invariants that every number of effattack rests on.

Each check takes a victim and a few images, raises :class:`~effattack.errors.ContractError` where
the contract is broken (with the gate, the image, by how much, and the remedy), and returns what is
lawful but limits an attack, as sentences. The victim is checked in eval mode and left as it was.

    for check in INVARIANTS:
        check(victim, images)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from effattack.attacks.base import undisturbed
from effattack.attacks.search import on_knife_edge
from effattack.errors import ContractError, GradientError
from effattack.measure.macs import count_macs
from effattack.victim import Gate, Opaque, Trace, Victim, audit, in_float64

Check = Callable[[Victim, Tensor], list[str]]

MARGIN_BOUND = 1.0
"""Margins are in units of decisions: none exceeds this where its gate is reached."""
QUANTIZED_TOLERANCE = 0.05
"""Allowed difference of int8 logits, relative to the largest: one rounding step further in."""


def check_declared(victim: Victim, images: Tensor | None = None) -> list[str]:
    """What the victim says of itself is complete, and both paths give what it says.

    Args:
        victim: any victim.
        images: (B, *input_shape) in [0, 1]; two grey ones where missing.
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
                f"{victim.name}: {attribute} = {value!r} must be {rule}: set it in __init__"
            )
    if images is None:
        images = torch.full((2, *victim.input_shape), 0.5, device=victim.device)
    with undisturbed(victim), torch.no_grad():
        trace = victim.trace(images)
        found = {"forward": victim(images), "trace().logits": trace.logits}
    shape = (len(images), victim.num_classes)
    for path, logits in found.items():
        if tuple(logits.shape) != shape or not logits.is_floating_point():
            raise ContractError(
                f"{victim.name}: {path} gives {tuple(logits.shape)} {logits.dtype}, expected "
                f"{shape} floats: return plain logits, or correct num_classes"
            )
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
    return []


def check_paths_agree(victim: Victim, images: Tensor) -> list[str]:
    """Invariant 1: ``forward`` and ``trace`` take the same decisions and give the same logits.

    In float64 always; in the victim's own precision on images whose every reached margin lies
    beyond ``MARGIN_SLACK``, unless a margin is a proxy. Quantized victims have no float64 and are
    held to ``QUANTIZED_TOLERANCE``. What ``forward`` decided shows in its logits and its MACs.
    """
    with undisturbed(victim), torch.no_grad():
        for at in _precisions(victim, images):
            trace = at.victim.trace(at.images)
            at.expect_close("forward and trace", at.victim(at.images), trace.logits, at.sure(trace))
            if at.exact:
                audit(at.victim, at.images)
    return []


def check_batch_independence(victim: Victim, images: Tensor) -> list[str]:
    """Invariant 2: an image alone gives the logits, decisions and MACs that it gives in a batch.

    In the precisions of :func:`check_paths_agree`. Skipped for victims that are batch-coupled by
    definition.
    """
    if victim.batch_coupled:
        return []
    with undisturbed(victim), torch.no_grad():
        for at in _precisions(victim, images):
            together, singles = at.victim.trace(at.images), at.images.split(1)
            alone = _concatenated([at.victim.trace(image) for image in singles])
            sure = at.sure(together) & at.sure(alone)
            _expect_same_decisions(victim, together, alone, sure)
            at.expect_close("trace alone and in a batch", alone.logits, together.logits, sure)
            deployed = torch.cat([at.victim(image) for image in singles])
            at.expect_close("forward alone and in a batch", deployed, at.victim(at.images), sure)
            if at.exact:
                batch = count_macs(at.victim, at.images)
                if (surplus := batch - sum(count_macs(at.victim, image) for image in singles)) > 0:
                    raise ContractError(
                        f"{victim.name}: forward executes {surplus:,} MACs more on {len(images)} "
                        "images together than one by one: an image must not pay for its mates "
                        f"(drop what has left from the batch), or {_DECLARE_COUPLED}"
                    )
    return []


def check_macs(victim: Victim, images: Tensor) -> list[str]:
    """Invariant 3: the MACs declared are the MACs executed, within (0, max]; constant ones rest.

    Raises:
        AuditError: a ContractError, from :func:`effattack.audit`.
    """
    with undisturbed(victim):
        macs = audit(victim, images).macs
    for index, spent in enumerate(macs.tolist()):
        if not spent > 0:
            raise ContractError(f"{victim.name}: image {index}: forward multiplies nothing at all")
        if spent > victim.max_macs:
            raise ContractError(
                f"{victim.name}: image {index}: executed {spent:,.0f} MACs, "
                f"{spent - victim.max_macs:,.0f} more than max_macs: declare the worst case"
            )
        if victim.constant and spent != macs[0]:
            raise ContractError(
                f"{victim.name} is declared constant, but image {index} executed {spent:,.0f} "
                f"MACs and image 0 {macs[0]:,.0f}: set constant=False and show the gates"
            )
    if victim.constant and macs[0] != victim.max_macs:
        raise ContractError(
            f"{victim.name} is constant at {macs[0]:,.0f} MACs, but declares max_macs = "
            f"{victim.max_macs:,.0f}: they must be equal"
        )
    return []


def check_gradients(victim: Victim, images: Tensor) -> list[str]:
    """Invariant 4: gradients reach the pixels from the logits and from every gate.

    Returns:
        one warning for each of them whose gradient is zero over the whole batch. (An ``Opaque``
        model without a gradient is one, too: query attacks need none.)

    Raises:
        GradientError: a ContractError, where the gradient is missing, NaN or infinite.
    """
    warnings = []
    with undisturbed(victim):
        pixels = images.detach().clone().requires_grad_()
        trace = victim.trace(pixels)
        everything = torch.ones_like(trace.logits, dtype=torch.bool)
        sources = [("the logits", trace.logits, everything)]
        sources += [(f"gate {g.name}", g.margin, g.reached) for g in trace.gates]
        for source, values, reached in sources:
            gradient = _mixed_gradient(values, reached, pixels)
            if gradient is None and isinstance(victim, Opaque):
                warnings.append(f"{victim.name}: no gradient: only query attacks apply")
            elif gradient is None:
                raise GradientError(
                    f"{victim.name}: no gradient from {source} reaches the pixels: compute it in "
                    "trace() without detach, no_grad or integer kernels (quantized layers need a "
                    "straight-through estimator)"
                )
            elif not torch.isfinite(gradient).all():
                index = _first(~torch.isfinite(gradient))
                raise GradientError(
                    f"{victim.name}: image {index}: the gradient from {source} is NaN or infinite: "
                    "look for 0 * log 0, a norm at 0 or a division by 0 in trace()"
                )
            elif reached.any() and not gradient.any():
                warnings.append(
                    f"{victim.name}: the gradient from {source} is zero over all {len(images)} "
                    "images: attacks through it are blind; bound margins without saturating them"
                )
    return warnings


def check_gates(victim: Victim, images: Tensor) -> list[str]:
    """Gates are well formed, and their margins tell the decisions.

    Shapes and dtypes agree, names are unique, costs positive; margins are finite, and within
    ``MARGIN_BOUND`` where reached; active implies reached; and, except for proxies, margin > 0
    equals active wherever reached.
    """
    with undisturbed(victim), torch.no_grad():
        gates = victim.trace(images).gates
    names = [gate.name for gate in gates]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ContractError(f"{victim.name}: gates {twice} share names: number them")
    for gate in gates:
        _check_form(victim, gate, len(images))
        wrong = (gate.margin > 0) != gate.active
        size = gate.margin.abs().nan_to_num(nan=math.inf)
        rules = {
            "its margin is NaN or infinite: it must be finite even where not reached": size.isinf(),
            f"its margin exceeds {MARGIN_BOUND:g} by {(size - MARGIN_BOUND).max():.3g}: bound it, "
            "as m / (1 + |m|) or by clipping": gate.reached & (size > MARGIN_BOUND),
            "it is active, but was not reached: active includes upstream decisions": gate.active
            & ~gate.reached,
            f"its margin is up to {(size * wrong).max():.3g} on the wrong side of its decision: "
            "margin > 0 must equal active, or declare proxy=True": gate.reached
            & wrong
            & (not gate.proxy),
        }
        for complaint, broken in rules.items():
            if broken.any():
                raise ContractError(
                    f"{victim.name}: gate {gate.name}: image {_first(broken)}: {complaint}"
                )
    return []


INVARIANTS: tuple[Check, ...] = (
    check_declared,
    check_gates,
    check_paths_agree,
    check_batch_independence,
    check_macs,
    check_gradients,
)
"""All of them, cheapest first. A victim that passes can be measured."""


_DECLARE_COUPLED = "declare batch_coupled=True if the mechanism is coupled by definition"


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


class _Precision(NamedTuple):
    """A victim and images in one precision, and what may be demanded there."""

    victim: Victim
    images: Tensor
    exact: bool
    """Decisions must agree everywhere, near thresholds and behind proxies included."""
    tolerance: float
    """Of logits, relative to the largest of the image, or to 1 if that is smaller."""

    def sure(self, trace: Trace) -> Tensor:
        """(B,) bool: images whose decisions rounding cannot flip."""
        if self.exact:
            return torch.ones(len(trace.logits), dtype=torch.bool, device=trace.logits.device)
        return ~on_knife_edge(trace) & (not any(gate.proxy for gate in trace.gates))

    def expect_close(self, what: str, found: Tensor, expected: Tensor, sure: Tensor) -> None:
        """Compare logits (B, classes) of the images that are sure."""
        gap = (found - expected).abs().amax(1)
        allowed = self.tolerance * expected.abs().amax(1).clamp_min(1)
        wrong = sure & ~(gap <= allowed)
        if wrong.any():
            index = _first(wrong)
            raise ContractError(
                f"{self.victim.name}: image {index}: the logits of {what} differ by "
                f"{gap[index]:.3g} in {found.dtype} (rounding allows {allowed[index]:.3g}): take "
                "every decision in one policy that both paths call, and let no image see its "
                f"batch mates (or {_DECLARE_COUPLED})"
            )


def _precisions(victim: Victim, images: Tensor) -> Iterator[_Precision]:
    if (twin := in_float64(victim)) is not None:
        yield _Precision(twin, images.double(), True, math.sqrt(torch.finfo(torch.float64).eps))
    quantized = victim.family == "quantization"
    rounding = QUANTIZED_TOLERANCE if quantized else math.sqrt(torch.finfo(images.dtype).eps)
    yield _Precision(victim, images, False, rounding)


def _concatenated(traces: list[Trace]) -> Trace:
    """One trace of many images from traces of one image each."""
    gates = tuple(
        first._replace(
            margin=torch.cat([t.gates[k].margin for t in traces]),
            active=torch.cat([t.gates[k].active for t in traces]),
            reached=torch.cat([t.gates[k].reached for t in traces]),
        )
        for k, first in enumerate(traces[0].gates)
    )
    logits, macs = torch.cat([t.logits for t in traces]), torch.cat([t.macs for t in traces])
    return Trace(logits=logits, gates=gates, macs=macs)


def _expect_same_decisions(victim: Victim, together: Trace, alone: Trace, sure: Tensor) -> None:
    for gate, single in zip(together.gates, alone.gates, strict=True):
        for field in ("reached", "active"):
            differ = _per_image(getattr(gate, field) != getattr(single, field)).sum(1)
            if (differ * sure).any():
                index = _first(differ * sure)
                raise ContractError(
                    f"{victim.name}: gate {gate.name}: image {index}: {differ[index]} decisions "
                    f"({field}) are others in a batch than alone: compute per image, without "
                    f"statistics over the batch, or {_DECLARE_COUPLED}"
                )
    moved = sure & (together.macs != alone.macs)
    if moved.any():
        index = _first(moved)
        raise ContractError(
            f"{victim.name}: image {index}: trace declares {together.macs[index]:,.0f} MACs in a "
            f"batch and {alone.macs[index]:,.0f} alone: compute them per image, or "
            f"{_DECLARE_COUPLED}"
        )


def _check_form(victim: Victim, gate: Gate, images: int) -> None:
    shape = tuple(gate.margin.shape)
    problems = {
        "it has no name": not gate.name,
        f"margin is {shape} {gate.margin.dtype}, expected floats, (B,) or (B, units)": len(shape)
        not in (1, 2)
        or shape[0] != images
        or not gate.margin.is_floating_point(),
        f"active {tuple(gate.active.shape)} {gate.active.dtype} and reached "
        f"{tuple(gate.reached.shape)} {gate.reached.dtype} must be bool and {shape} as margin": any(
            flag.dtype != torch.bool or tuple(flag.shape) != shape
            for flag in (gate.active, gate.reached)
        ),
        f"cost = {gate.cost} must be positive and finite: the MACs that opening one unit makes "
        "possible": not _positive(gate.cost),
    }
    for problem, present in problems.items():
        if present:
            raise ContractError(f"{victim.name}: gate {gate.name!r}: {problem}")


def _positive(cost: Tensor | float) -> bool:
    costs = torch.as_tensor(cost, dtype=torch.float64)
    return bool(((costs > 0) & torch.isfinite(costs)).all())


def _mixed_gradient(values: Tensor, reached: Tensor, pixels: Tensor) -> Tensor | None:
    """Gradient of a random mixture of the reached values; a plain sum may be constant (Σ s = 1)."""
    if not values.requires_grad:
        return None
    generator = torch.Generator().manual_seed(0)
    weights = 0.5 + torch.rand(values.shape, generator=generator).to(values)
    mixture = (values * weights * reached).sum()
    return torch.autograd.grad(mixture, pixels, retain_graph=True, allow_unused=True)[0]


def _first(broken: Tensor) -> int:
    """Index of the first image with anything broken."""
    return int(_per_image(broken).any(1).nonzero()[0])


def _per_image(values: Tensor) -> Tensor:
    """(B,) or (B, ...) -> (B, n)."""
    return values.reshape(len(values), -1)
