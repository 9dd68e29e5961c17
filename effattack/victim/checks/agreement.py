"""Both paths take the same decisions and give the same answers, alone and in a batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from effattack.counting.macs import MacsCounter, count_macs
from effattack.domains import Batch
from effattack.errors import ContractError
from effattack.tasks import Task
from effattack.victim import Trace, Victim, audit
from effattack.victim.checks.blame import DECLARE_COUPLED, first_of, per_image
from effattack.victim.rounding import on_knife_edge
from effattack.victim.twins import quantized
from effattack.victim.undisturbed import undisturbed

QUANTIZED_TOLERANCE = 0.05
"""Allowed difference of int8 outputs, relative to the largest: one rounding step further in."""


def check_paths_agree(victim: Victim, batch: Batch) -> list[str]:
    """Invariant 1: ``forward`` and ``trace`` take the same decisions and give the same outputs.

    In float64 where there is such a twin; in the victim's own precision on inputs whose every
    reached margin lies beyond :func:`~effattack.victim.margin_slack`, unless a margin is a proxy.
    Quantized weights are held to ``QUANTIZED_TOLERANCE``. What ``forward`` decided shows in its
    outputs and its MACs; the outputs are the same twice, and while the MACs are counted.
    Batch-coupled victims, which are scored one by one, are compared so.
    """
    with undisturbed(victim), torch.no_grad():
        for at in _precisions(victim, batch):
            if at.exact:
                audit(at.victim, at.batch)
            parts = victim.domain.singles(at.batch) if victim.batch_coupled else [at.batch]
            trace = _joined(victim.task, [at.victim.trace(part) for part in parts])
            outputs, again = (at.forward(parts) for _ in range(2))
            with MacsCounter():
                counted = at.forward(parts)
            sure = at.sure(trace)
            at.expect_close("forward, run twice,", again, outputs, sure)
            at.expect_close("forward, counted and not,", counted, outputs, sure)
            at.expect_close("forward and trace", outputs, trace.logits, sure)
    return []


def check_batch_independence(victim: Victim, batch: Batch) -> list[str]:
    """Invariant 2: an input alone gives the outputs, decisions and MACs that it gives in a batch.

    In the precisions of :func:`check_paths_agree`. Alone, an input has no padding. Skipped for
    victims that are batch-coupled by definition; of those that pad, the MACs of a whole batch are
    no matter.
    """
    if victim.batch_coupled:
        return []
    nouns, noun = victim.domain.nouns, victim.domain.noun
    with undisturbed(victim), torch.no_grad():
        for at in _precisions(victim, batch):
            together, singles = at.victim.trace(at.batch), victim.domain.singles(at.batch)
            alone = _joined(victim.task, [at.victim.trace(single) for single in singles])
            sure = at.sure(together) & at.sure(alone)
            _expect_same_decisions(victim, together, alone, sure)
            at.expect_close("trace alone and in a batch", alone.logits, together.logits, sure)
            deployed, mixed = at.forward(singles), at.victim(at.batch)
            at.expect_close("forward alone and in a batch", deployed, mixed, sure)
            if at.exact and not victim.pads:
                apart = sum(count_macs(at.victim, single) for single in singles)
                if (surplus := count_macs(at.victim, at.batch) - apart) > 0:
                    raise ContractError(
                        f"{victim.name}: forward executes {surplus:,} MACs more on {len(batch)} "
                        f"{nouns} together than one by one: an {noun} must not pay for its mates "
                        f"(drop what has left from the batch), or {DECLARE_COUPLED}"
                    )
    return []


class _Precision(NamedTuple):
    """A victim and inputs in one precision, and what may be demanded there."""

    victim: Victim
    batch: Batch
    exact: bool
    """Decisions must agree everywhere, near thresholds and behind proxies included."""
    tolerance: float
    """Of outputs, relative to the largest of the input, or to 1 if that is smaller."""

    def forward(self, parts: Sequence[Batch]) -> Tensor:
        """The outputs of one batch after the other."""
        return self.victim.task.join([self.victim(part) for part in parts])

    def sure(self, trace: Trace) -> Tensor:
        """(B,) bool: inputs whose decisions rounding cannot flip."""
        if self.exact:
            return torch.ones(len(trace.logits), dtype=torch.bool, device=trace.logits.device)
        return ~on_knife_edge(trace) & (not any(gate.proxy for gate in trace.gates))

    def expect_close(self, what: str, found: Tensor, expected: Tensor, sure: Tensor) -> None:
        """Compare the outputs of the inputs that are sure."""
        task, noun = self.victim.task, self.victim.domain.noun
        wrong = sure & ~task.close(found, expected, self.tolerance)
        if wrong.any():
            index = first_of(wrong)
            gap = task.gap(found, expected)[index]
            raise ContractError(
                f"{self.victim.name}: {noun} {index}: the logits of {what} differ by "
                f"{gap:.3g} in {found.dtype} (rounding allows {self.tolerance:.3g}): take "
                "every decision in one policy that both paths call, draw nothing at random, and "
                f"let no {noun} see its batch mates (or {DECLARE_COUPLED})"
            )


def _precisions(victim: Victim, batch: Batch) -> Iterator[_Precision]:
    if (twin := victim.in_float64()) is not None:
        doubles = victim.domain.place(batch, victim.device, torch.float64)
        yield _Precision(twin, doubles, True, math.sqrt(torch.finfo(torch.float64).eps))
    with torch.no_grad():
        own = victim.trace(batch[:1]).dtype or victim.dtype
    rounding = QUANTIZED_TOLERANCE if quantized(victim) else math.sqrt(torch.finfo(own).eps)
    yield _Precision(victim, batch, False, rounding)


def _joined(task: Task, traces: Sequence[Trace]) -> Trace:
    """One trace of many inputs from traces of some each."""
    gates = tuple(
        first._replace(
            margin=torch.cat([t.gates[k].margin for t in traces]),
            active=torch.cat([t.gates[k].active for t in traces]),
            reached=torch.cat([t.gates[k].reached for t in traces]),
        )
        for k, first in enumerate(traces[0].gates)
    )
    logits, macs = task.join([t.logits for t in traces]), torch.cat([t.macs for t in traces])
    return Trace(logits=logits, gates=gates, macs=macs, dtype=traces[0].dtype)


def _expect_same_decisions(victim: Victim, together: Trace, alone: Trace, sure: Tensor) -> None:
    noun = victim.domain.noun
    for gate, single in zip(together.gates, alone.gates, strict=True):
        for field in ("reached", "active"):
            differ = per_image(getattr(gate, field) != getattr(single, field)).sum(1)
            if (differ * sure).any():
                index = first_of(differ * sure)
                raise ContractError(
                    f"{victim.name}: gate {gate.name}: {noun} {index}: {differ[index]} decisions "
                    f"({field}) are others in a batch than alone: compute per {noun}, without "
                    f"statistics over the batch, or {DECLARE_COUPLED}"
                )
    moved = sure & (together.macs != alone.macs)
    if moved.any():
        index = first_of(moved)
        raise ContractError(
            f"{victim.name}: {noun} {index}: trace declares {together.macs[index]:,.0f} MACs in a "
            f"batch and {alone.macs[index]:,.0f} alone: compute them per {noun}, or "
            f"{DECLARE_COUPLED}"
        )
