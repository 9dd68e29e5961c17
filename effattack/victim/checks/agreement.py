"""Both paths take the same decisions, alone and in a batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from effattack.counting.macs import MacsCounter, count_macs
from effattack.errors import ContractError
from effattack.victim import Trace, Victim, audit, in_float64
from effattack.victim.checks.blame import DECLARE_COUPLED, first_of, per_image
from effattack.victim.rounding import on_knife_edge
from effattack.victim.twins import quantized
from effattack.victim.undisturbed import undisturbed

QUANTIZED_TOLERANCE = 0.05
"""Allowed difference of int8 logits, relative to the largest: one rounding step further in."""


def check_paths_agree(victim: Victim, images: Tensor) -> list[str]:
    """Invariant 1: ``forward`` and ``trace`` take the same decisions and give the same logits.

    In float64 where there is such a twin; in the victim's own precision on images whose every
    reached margin lies beyond :func:`~effattack.victim.margin_slack`, unless a margin is a proxy.
    Quantized weights are held to ``QUANTIZED_TOLERANCE``. What ``forward`` decided shows in its
    logits and its MACs; the logits are the same twice, and while the MACs are counted.
    Batch-coupled victims, which are scored one by one, are compared so.
    """
    with undisturbed(victim), torch.no_grad():
        for at in _precisions(victim, images):
            if at.exact:
                audit(at.victim, at.images)
            batches = at.images.split(1 if victim.batch_coupled else len(at.images))
            trace = _concatenated([at.victim.trace(batch) for batch in batches])
            logits, again = (torch.cat([at.victim(batch) for batch in batches]) for _ in range(2))
            with MacsCounter():
                counted = torch.cat([at.victim(batch) for batch in batches])
            sure = at.sure(trace)
            at.expect_close("forward, run twice,", again, logits, sure)
            at.expect_close("forward, counted and not,", counted, logits, sure)
            at.expect_close("forward and trace", logits, trace.logits, sure)
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
                        f"(drop what has left from the batch), or {DECLARE_COUPLED}"
                    )
    return []


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
            index = first_of(wrong)
            raise ContractError(
                f"{self.victim.name}: image {index}: the logits of {what} differ by "
                f"{gap[index]:.3g} in {found.dtype} (rounding allows {allowed[index]:.3g}): take "
                "every decision in one policy that both paths call, draw nothing at random, and "
                f"let no image see its batch mates (or {DECLARE_COUPLED})"
            )


def _precisions(victim: Victim, images: Tensor) -> Iterator[_Precision]:
    if (twin := in_float64(victim)) is not None:
        yield _Precision(twin, images.double(), True, math.sqrt(torch.finfo(torch.float64).eps))
    with torch.no_grad():
        own = victim.trace(images[:1]).dtype or victim.dtype
    rounding = QUANTIZED_TOLERANCE if quantized(victim) else math.sqrt(torch.finfo(own).eps)
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
    return Trace(logits=logits, gates=gates, macs=macs, dtype=traces[0].dtype)


def _expect_same_decisions(victim: Victim, together: Trace, alone: Trace, sure: Tensor) -> None:
    for gate, single in zip(together.gates, alone.gates, strict=True):
        for field in ("reached", "active"):
            differ = per_image(getattr(gate, field) != getattr(single, field)).sum(1)
            if (differ * sure).any():
                index = first_of(differ * sure)
                raise ContractError(
                    f"{victim.name}: gate {gate.name}: image {index}: {differ[index]} decisions "
                    f"({field}) are others in a batch than alone: compute per image, without "
                    f"statistics over the batch, or {DECLARE_COUPLED}"
                )
    moved = sure & (together.macs != alone.macs)
    if moved.any():
        index = first_of(moved)
        raise ContractError(
            f"{victim.name}: image {index}: trace declares {together.macs[index]:,.0f} MACs in a "
            f"batch and {alone.macs[index]:,.0f} alone: compute them per image, or "
            f"{DECLARE_COUPLED}"
        )
