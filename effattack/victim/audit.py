"""The audit: the MACs that a victim declares are those that its deployed path executes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from effattack.counting.joules import modelled_joules
from effattack.counting.macs import MacsCounter
from effattack.counting.origins import examine
from effattack.counting.sight import Known, Sight
from effattack.domains import Batch
from effattack.domains.parts import tensors
from effattack.errors import AuditError, ContractError
from effattack.victim.contract import Trace, Victim
from effattack.victim.rounding import margin_slack

_known: WeakKeyDictionary[nn.Module, Known] = WeakKeyDictionary()


class Audit(NamedTuple):
    """What the deployed path did, input by input."""

    logits: Tensor
    """(B, classes): from ``forward``, one input at a time; or other outputs, as the task has
    them."""
    macs: Tensor
    """(B,) float64: MACs counted while ``forward`` ran."""
    elementwise: Tensor
    """(B,) float64: elements multiplied one by one beside them; see :class:`MacsCounter`."""
    outside: tuple[dict[str, float], ...]
    """Per input, name -> seconds of the work declared by :func:`effattack.outside`."""
    modelled_joules: Tensor
    """(B,) float64: by :mod:`effattack.counting.joules` from what was counted."""
    knife_edge: Tensor
    """(B,) bool: a decision fell within rounding of its threshold; float64 paths agree there."""
    decisions: tuple[dict[str, Tensor], ...]
    """Per input, gate name -> (units,) bool: what ``trace`` computed."""


def audit(victim: Victim, batch: Batch) -> Audit:
    """Check that the MACs a victim declares are the ones it executes.

    Runs the deployed path input by input under the dispatch counter and compares with
    ``victim.trace(input).macs``: they must be equal, to the last MAC. Where a decision lies within
    rounding of its threshold (:func:`margin_slack`) and the two paths disagree, the same input is
    audited in float64; if it agrees there, or there is no such twin, the executed count stands, and
    the input is on a knife edge.

    Args:
        victim: in eval mode.
        batch: valid inputs: images (B, *input_shape) in [0, 1].

    Raises:
        AuditError: with the first input that differs, by how much, the module whose MACs are just
            that many, if there is one, where the MACs went, and which gates were open.
        UnseenWork: if what decides the logits was computed where the counter cannot see.
        ContractError: for an input on which nothing is multiplied.
    """
    outputs, counters, knife_edge, decisions = [], [], [], []
    known = _known.setdefault(victim, Known())
    for index, single in enumerate(victim.domain.singles(batch)):
        with torch.no_grad():
            counter, found = _executed(victim, single, known)
            outputs.append(found)
            trace = victim.trace(single)
        if not counter.total:
            raise ContractError(
                f"{victim.name}: {victim.domain.noun} {index}: forward multiplies nothing at all "
                "(0 MACs): make the deployed path compute with torch operators, or nothing was "
                "measured"
            )
        declared = trace.macs.item()
        agrees = declared == counter.total
        if not agrees and not _on_knife_edge(victim, single, trace):
            raise AuditError(_difference(victim, single, index, trace))
        counters.append(counter)
        knife_edge.append(not agrees)
        decisions.append({gate.name: gate.active.flatten().cpu() for gate in trace.gates})
    return Audit(
        logits=victim.task.join(outputs),
        macs=torch.tensor([c.total for c in counters], dtype=torch.float64),
        elementwise=torch.tensor([c.elementwise for c in counters], dtype=torch.float64),
        outside=tuple(dict(c.outside) for c in counters),
        modelled_joules=torch.tensor([*map(modelled_joules, counters)], dtype=torch.float64),
        knife_edge=torch.tensor(knife_edge),
        decisions=tuple(decisions),
    )


def _executed(victim: Victim, single: Batch, known: Known) -> tuple[MacsCounter, Tensor]:
    """What forward executes on one input, all of it in sight, and what it says."""
    sight = Sight(tensors(single), known)
    with MacsCounter(witness=sight) as counter:
        outputs = victim(single)
    sight.using("the logits", None, (outputs,), {})
    if sight.is_news:
        examine(victim.name, victim, single, known, victim.domain)
    return counter, outputs


def _on_knife_edge(victim: Victim, single: Batch, trace: Trace) -> bool:
    """Whether rounding alone may be why the paths of a victim differ on an input."""
    slack = margin_slack(trace.dtype)
    near = any(bool((gate.margin.abs() <= slack)[gate.reached].any()) for gate in trace.gates)
    proxies = any(gate.proxy for gate in trace.gates)
    if trace.dtype == torch.float64 or not (near or proxies):
        return False
    if (twin := victim.in_float64()) is None:
        return near
    single = victim.domain.place(single, victim.device, torch.float64)
    with torch.no_grad():
        with MacsCounter() as counter:
            twin(single)
        return twin.trace(single).macs.item() == counter.total


def _difference(victim: Victim, single: Batch, index: int, trace: Trace) -> str:
    with torch.no_grad(), MacsCounter(victim) as counter:
        victim(single)
    declared, executed = trace.macs.item(), counter.total
    by_module = {k: macs for k, macs in counter.by_module.items() if k != "Global"}
    suspects = [name for name, macs in by_module.items() if macs == abs(declared - executed)]
    largest = sorted(_own(by_module).items(), key=lambda item: -item[1])
    decided = [
        f"{gate.name} {int(gate.active.sum())} of {int(gate.reached.sum())} reached"
        for gate in trace.gates
    ]
    parts = [
        f"{victim.name}: {victim.domain.noun} {index}: trace declares {declared:,.0f} MACs, "
        f"forward executed {executed:,} ({declared - executed:+,.0f})",
        f"executed: {_listed(f'{name} {macs:,}' for name, macs in largest)}",
        victim.correction,
    ]
    if decided:
        parts.insert(-1, f"active gates: {_listed(decided)}")
    if suspects:
        parts.insert(1, f"the difference is exactly what {' or '.join(sorted(suspects)[:3])} costs")
    return "; ".join(parts)


def _own(by_module: Mapping[str, int]) -> dict[str, int]:
    """MACs of every module without those of the modules inside it; modules without any left out."""
    own = dict(by_module)
    for name, macs in by_module.items():
        outer = [other for other in by_module if name.startswith(f"{other}.")]
        if outer:
            own[max(outer, key=len)] -= macs
    return {name: macs for name, macs in own.items() if macs}


def _listed(parts: Iterable[str], most: int = 8) -> str:
    parts = list(parts)
    return ", ".join(parts[:most]) + f" and {len(parts) - most} more" * (len(parts) > most)
