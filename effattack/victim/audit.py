"""The audit: the work that a victim declares is that which its deployed path does."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from effattack.counting.joules import modelled_joules
from effattack.counting.macs import MacsCounter
from effattack.counting.origins import examine
from effattack.counting.sight import Known, Sight
from effattack.domains import Batch
from effattack.domains.base import tensors
from effattack.errors import AuditError, ContractError
from effattack.victim.contract import Victim
from effattack.victim.parting import difference
from effattack.victim.rounding import margin_slack
from effattack.victim.trace import CANDIDATES, CAPPED, Ran, Trace

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
    counts: Mapping[str, Tensor] = {}
    """(B,) float64 each, by name: what ``forward`` told of ``Victim.counts``; of those that are not
    audited, what ``trace`` says."""
    as_twin: tuple[bool | None, ...] = ()
    """Per input, whether the twin of an artefact decides and answers alike; None without a twin."""
    capped: tuple[bool | None, ...] = ()
    """Per input, whether the cap ended the text that was written; None where no trace tells."""
    stages: tuple[Mapping[str, float], ...] = ()
    """Per input, name -> MACs of a stage, which add up to ``macs``; empty where no trace tells."""
    candidates: tuple[Tensor | None, ...] = ()
    """Per input, (n, 4): boxes before non-maximum suppression; None where no trace tells."""


def audit(victim: Victim, batch: Batch) -> Audit:
    """Check that the work a victim declares is what it does.

    Runs the deployed path input by input under the dispatch counter and compares with
    ``victim.trace(input)``: ``macs`` must be what was counted, to the last MAC, and ``also`` what
    was told by :func:`effattack.tally`. Where a decision lies within
    rounding of its threshold (:func:`margin_slack`) and the two paths disagree, the same input is
    audited in float64; if it agrees there, or there is no such twin, the executed count stands, and
    the input is on a knife edge. An artefact that no counter sees into is taken at its own record
    (:meth:`Victim.ran`).

    Args:
        victim: in eval mode.
        batch: valid inputs: images (B, *input_shape) in [0, 1].

    Raises:
        AuditError: with the first input that differs, by how much, the module whose MACs are just
            that many, if there is one, where the MACs went, and which gates were open; or with the
            count that differs, or that nobody declared.
        UnseenWork: if what decides the logits was computed where the counter cannot see.
        ContractError: for an input on which nothing is multiplied.
    """
    known = _known.setdefault(victim, Known())
    done = [
        _counted(victim, single, index, known) if ran is None else _recorded(ran)
        for index, single in enumerate(victim.domain.singles(batch))
        for ran in [victim.ran(single)]
    ]
    return Audit(
        logits=victim.task.join([one.outputs for one in done]),
        macs=torch.tensor([one.macs for one in done], dtype=torch.float64),
        elementwise=torch.tensor([one.elementwise for one in done], dtype=torch.float64),
        outside=tuple(dict(one.outside) for one in done),
        modelled_joules=torch.tensor([one.modelled_joules for one in done], dtype=torch.float64),
        knife_edge=torch.tensor([one.knife_edge for one in done]),
        decisions=tuple(dict(one.decisions) for one in done),
        counts={
            name: torch.tensor([one.counts[name] for one in done], dtype=torch.float64)
            for name in victim.counts
        },
        as_twin=tuple(one.as_twin for one in done),
        capped=tuple(one.capped for one in done),
        stages=tuple(one.stages for one in done),
        candidates=tuple(one.candidates for one in done),
    )


class _Done(NamedTuple):
    """What was done with one input; the fields of :class:`Audit`."""

    outputs: Tensor
    macs: float
    decisions: Mapping[str, Tensor]
    counts: Mapping[str, float]
    elementwise: float = nan
    outside: Mapping[str, float] = {}
    modelled_joules: float = nan
    knife_edge: bool = False
    as_twin: bool | None = None
    capped: bool | None = None
    stages: Mapping[str, float] = {}
    candidates: Tensor | None = None


def _recorded(ran: Ran) -> _Done:
    """By the artefact's own record."""
    return _Done(
        ran.outputs, ran.macs, ran.decisions, ran.counts, as_twin=ran.as_twin, capped=ran.capped
    )


def _counted(victim: Victim, single: Batch, index: int, known: Known) -> _Done:
    """By the counter, which the trace must agree with."""
    with torch.no_grad():
        counter, outputs = _executed(victim, single, known)
        trace, told = victim.trace(single), _told(victim, counter)
    if not counter.total:
        raise ContractError(
            f"{victim.name}: {victim.domain.noun} {index}: forward multiplies nothing at all "
            "(0 MACs): make the deployed path compute with torch operators, or nothing was "
            "measured"
        )
    agrees = _declares(victim, trace, counter, told)
    if not agrees and not _on_knife_edge(victim, single, trace):
        raise AuditError(difference(victim, single, index, trace, told))
    return _Done(
        outputs,
        counter.total,
        {gate.name: gate.active[0].cpu() for gate in trace.gates},
        {**{name: work.item() for name, work in trace.also.items()}, **told},
        counter.elementwise,
        counter.outside,
        modelled_joules(counter),
        not agrees,
        capped=bool(trace.aux[CAPPED]) if CAPPED in trace.aux else None,
        stages=_staged(victim, trace),
        candidates=_candidates(trace),
    )


def _staged(victim: Victim, trace: Trace) -> dict[str, float]:
    """The MACs of each stage of one input.

    Raises:
        ContractError: where they are not those of the trace, all together.
    """
    stages = {name: macs.item() for name, macs in trace.stages.items()}
    if stages and sum(stages.values()) != trace.macs.item():
        raise ContractError(
            f"{victim.name}: trace().stages add up to {sum(stages.values()):,.0f} MACs, macs says "
            f"{trace.macs.item():,.0f}: give all stages, each once"
        )
    return stages


def _candidates(trace: Trace) -> Tensor | None:
    if (boxes := trace.aux.get(CANDIDATES)) is None:
        return None
    return boxes[0][~boxes[0].isnan().any(1)].cpu()


def _executed(victim: Victim, single: Batch, known: Known) -> tuple[MacsCounter, Tensor]:
    """What forward executes on one input, all of it in sight, and what it says."""
    sight = Sight(tensors(single), known)
    with MacsCounter(witness=sight) as counter:
        outputs = victim(single)
    sight.using("the logits", None, (outputs,), {})
    if sight.is_news:
        examine(victim.name, victim, single, known, victim.domain)
    return counter, outputs


def _told(victim: Victim, counter: MacsCounter) -> dict[str, float]:
    """What was told of the audited counts of a victim: 0 where nothing was.

    Raises:
        ContractError: for a tally that the victim does not declare as audited.
    """
    audited = [name for name, count in victim.counts.items() if count.audited]
    if strange := sorted(set(counter.tallies) - set(audited)):
        raise ContractError(
            f"{victim.name}: forward tallies {', '.join(strange)}, which is no audited count of "
            "the victim: give it to Victim.__init__ as counts={name: Count(unit, ceiling)}"
        )
    return {name: float(counter.tallies.get(name, 0)) for name in audited}


def _declares(
    victim: Victim, trace: Trace, counter: MacsCounter, told: Mapping[str, float]
) -> bool:
    """Whether a trace of one input states the work that was done.

    Raises:
        ContractError: where it leaves a count out.
    """
    if missing := sorted(set(victim.counts) - set(trace.also)):
        raise ContractError(
            f"{victim.name}: trace().also leaves out {', '.join(missing)}: give (B,) float64 of "
            "each of the victim's counts"
        )
    same = all(trace.also[name].item() == work for name, work in told.items())
    return same and trace.macs.item() == counter.total


def _on_knife_edge(victim: Victim, single: Batch, trace: Trace) -> bool:
    """Whether rounding alone may be why the paths of a victim differ on an input."""
    slack = margin_slack(trace.dtype)
    near = any(bool((gate.margin.abs() <= slack)[gate.reached].any()) for gate in trace.gates)
    near |= trace.slack is not None and bool((trace.slack <= slack).any())
    proxies = any(gate.proxy for gate in trace.gates)
    if trace.dtype == torch.float64 or not (near or proxies):
        return False
    if (twin := victim.in_float64()) is None:
        return near
    single = victim.domain.place(single, victim.device, torch.float64)
    with torch.no_grad():
        with MacsCounter() as counter:
            twin(single)
        return _declares(twin, twin.trace(single), counter, _told(twin, counter))
