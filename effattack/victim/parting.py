"""Where the two paths of a victim part, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from effattack.counting.macs import MacsCounter
from effattack.domains import Batch
from effattack.victim.contract import Victim
from effattack.victim.trace import Trace


def difference(
    victim: Victim, single: Batch, index: int, trace: Trace, told: Mapping[str, float]
) -> str:
    """By how much a trace and the deployed path part on one input, and why, as far as it shows.

    Args:
        victim: whose paths they are.
        single: the input.
        index: where it stands in its batch.
        trace: of it.
        told: what ``forward`` told of the victim's audited counts.
    """
    what = f"{victim.name}: {victim.domain.noun} {index}: trace declares"
    for name, work in told.items():
        if (declared := trace.also[name].item()) != work:
            return (
                f"{what} {declared:,.0f} {name}, forward told {work:,.0f} "
                f"({declared - work:+,.0f}): correct also in {type(victim).__name__}.trace, or "
                "call effattack.tally where the work is done"
            )
    return f"{what} {_macs_apart(victim, single, trace)}"


def _macs_apart(victim: Victim, single: Batch, trace: Trace) -> str:
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
        f"{declared:,.0f} MACs, forward executed {executed:,} ({declared - executed:+,.0f})",
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
