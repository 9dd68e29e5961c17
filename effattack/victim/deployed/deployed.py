"""Craft here, judge there: attacks see a differentiable twin, scores are the artefact's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from math import nan
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from effattack.counting.tallies import Count
from effattack.domains import Batch, Domain
from effattack.errors import UsageError
from effattack.tasks import Task
from effattack.victim.contract import Victim, set_mode
from effattack.victim.deployed.alike import alike
from effattack.victim.deployed.queried import Queried
from effattack.victim.deployed.told import (
    Decisions,
    asked,
    outputs_of,
    telling,
    work_of,
)
from effattack.victim.door import answered, copied, precision
from effattack.victim.leaf import Leaf
from effattack.victim.trace import Ran, Trace


class Deployed(Victim):
    """An artefact as it is shipped: exported, quantized, compiled, behind another runtime.

    Its answers, decisions, latency and work are what every row says; attacks see the twin, and
    choose their iterates by the twin's work, but for queries, which ask the artefact. The contract
    is checked on the twin. How far both decide alike is measured on every row, and stands first in
    the report; an artefact that shows no decisions is compared by its answer and its work.

    Without a twin an attacker sees answers and work: queries, ``Transfer`` and controls apply.

    Args:
        twin: the victim that the artefact was made from; None where there is none.
        run: a batch -> outputs, as the task reads them, or (outputs, {gate: (B, units) bool}), by
            the names of the twin's gates. It is what is timed. One that takes a single input runs
            in a loop.
        work: a batch -> executed MACs (B,), or ``{"macs": (B,)}`` with each of ``counts`` beside,
            and decisions by name of gate where the record of what ran shows them. Without it
            answers and latency are judged, and no savings are stated.
        name: how tables and files call it; by default the twin's, ``(deployed)`` behind it.
        family: of the twin, by default.
        domain, task: where there is no twin; beside one, what the artefact itself says of them.
        counts: work that is no MAC; ``work`` tells it.
        max_macs: worst case; by default the twin's, NaN without one.
        batch_coupled: an answer may depend on the batch mates of its input, as where int8 scales
            are taken over the batch; by default as the twin.
        data: see :class:`Victim`.

    Raises:
        UsageError: where neither a twin nor domain and task say what goes in and comes out, or the
            twin takes or answers something else.
        ContractError: where ``run`` or ``work`` raises, or returns something else.
    """

    def __init__(
        self,
        twin: Victim | None,
        run: Callable[[Any], Any],
        work: Callable[[Any], Any] | None = None,
        *,
        name: str | None = None,
        family: str | None = None,
        domain: Domain | None = None,
        task: Task | None = None,
        counts: Mapping[str, Count] | None = None,
        max_macs: float | None = None,
        batch_coupled: bool | None = None,
        data: str | None = None,
    ) -> None:
        if not (callable(run) and (work is None or callable(work))):
            raise UsageError(f"Deployed(run={run!r}, work={work!r}): give functions of a batch")
        name = name or (f"{twin.name} (deployed)" if isinstance(twin, Victim) else "deployed")
        inputs, answers = asked(name, twin, domain, task)
        counts, its = dict(counts or {}), Inherited.of(twin)
        unknown = work is None
        super().__init__(
            name=name,
            family=family or its.family,
            domain=inputs,
            task=answers,
            max_macs=its.max_macs if max_macs is None else max_macs,
            dense_macs=nan if unknown else its.dense_macs,
            constant=its.constant and not unknown,
            batch_coupled=its.batch_coupled if batch_coupled is None else batch_coupled,
            pads=its.pads,
            data=data or its.data,
            counts=counts,
            currency=its.currency if its.currency in counts else "macs",
        )
        self.twin, self.run, self.work = twin, run, work
        self.sees = "answers" if twin is None else twin.sees
        self.counted = not unknown
        if isinstance(run, nn.Module):
            set_mode(run, False)
        self.ran(self.example(1))

    @property
    def checked(self) -> Victim | None:
        """The twin."""
        return self.twin

    @property
    def queried(self) -> Victim:
        """The artefact, without what only its twin shows."""
        return self if self.twin is None else Queried(self, self.as_ran)

    def in_float64(self) -> None:
        """There is none: an artefact is judged as it is."""

    def forward(self, batch: Batch) -> Tensor:
        return self._run(batch)[0]

    def trace(self, batch: Batch, leaf: Leaf | None = None) -> Trace:
        """The twin's, in which counts of the artefact alone are NaN; without a twin, as it ran."""
        if self.twin is None:
            return self.as_ran(batch)
        traced: Callable[..., Trace] = self.twin.trace
        found = traced(batch) if leaf is None else traced(batch, leaf=leaf)
        unknown = torch.full_like(found.macs, nan)
        return found._replace(also={name: found.also.get(name, unknown) for name in self.counts})

    def ran(self, single: Batch) -> Ran:
        """What the artefact did with one input, and whether its twin decides and answers alike."""
        outputs, decisions, work = self._seen(single)
        same = None
        if self.twin is not None:
            with torch.no_grad():
                same = alike(self, self.twin.trace(single), outputs, decisions, work["macs"])
        return Ran(
            outputs=answered(outputs, precision(single, self.dtype)),
            macs=work["macs"].item(),
            counts={name: work[name].item() for name in self.counts},
            decisions={gate: units[0].cpu() for gate, units in decisions.items()},
            as_twin=same,
        )

    def as_ran(self, batch: Batch) -> Trace:
        """What the artefact shows from outside: answers and work, without gates and gradients."""
        parts = self.domain.singles(batch) if self.batch_coupled else [batch]
        outputs, _, works = zip(*map(self._seen, parts), strict=True)
        work = {name: torch.cat([each[name] for each in works]) for name in works[0]}
        return Trace(self.task.join(outputs), (), work.pop("macs"), also=work)

    def _seen(self, batch: Batch) -> tuple[Tensor, Decisions, dict[str, Tensor]]:
        """Outputs, decisions and work of a batch; decisions come from ``run``, else ``work``."""
        outputs, shown = self._run(copied(batch, self.dtype))
        work, recorded = self._work(copied(batch, self.dtype))
        return outputs, {**recorded, **shown}, work

    def _run(self, batch: Batch) -> tuple[Tensor, Decisions]:
        """Outputs and decisions of a batch; input by input where it takes no two."""
        if len(batch) > 1 and self.one_by_one:
            parts = [self._run(single) for single in self.domain.singles(batch)]
            outputs, shown = zip(*parts, strict=True)
            return self.task.join(outputs), _joined(shown)
        with telling(self, "run", batch):
            found = self.run(batch)
        return outputs_of(found, self, len(batch))

    def _work(self, batch: Batch) -> tuple[dict[str, Tensor], Decisions]:
        """(B,) each, MACs and counts of a batch, NaN where nobody knows; and recorded decisions."""
        if self.work is None:
            unknown = torch.full((len(batch),), nan, dtype=torch.float64, device=self.device)
            return dict.fromkeys(("macs", *self.counts), unknown), {}
        if len(batch) > 1 and self.one_by_one:
            parts = [self._work(single) for single in self.domain.singles(batch)]
            works, shown = zip(*parts, strict=True)
            return _joined(works), _joined(shown)
        with telling(self, "work", batch):
            found = self.work(batch)
        return work_of(found, self, len(batch))

    @cached_property
    def one_by_one(self) -> bool:
        """Whether the artefact takes one input at a time, as those exported for one do."""
        two = self.example(2)
        try:
            with torch.no_grad():
                outputs_of(self.run(copied(two, self.dtype)), self, 2)
                if self.work is not None:
                    work_of(self.work(copied(two, self.dtype)), self, 2)
        except Exception:  # whatever a runtime raises
            return True
        return False

    def lift(self, batch: Batch, places: Tensor) -> Leaf:
        """The twin's."""
        return super().lift(batch, places) if self.twin is None else self.twin.lift(batch, places)

    @property
    def lifts(self) -> bool:
        """Whether the twin does."""
        return self.twin is not None and self.twin.lifts

    def ceiling(self, batch: Batch, count: str = "macs") -> Tensor:
        """The twin's, unless the artefact declares a worst case of its own."""
        if self.twin is not None and count == "macs" and self.max_macs == self.twin.max_macs:
            return self.twin.ceiling(batch)
        return super().ceiling(batch, count)


class Inherited(NamedTuple):
    """What an artefact has from its twin."""

    family: str = "opaque"
    max_macs: float = nan
    dense_macs: float = nan
    constant: bool = False
    batch_coupled: bool = False
    pads: bool = False
    data: str | None = None
    currency: str = "macs"

    @classmethod
    def of(cls, twin: Victim | None) -> Inherited:
        return cls() if twin is None else cls(*(getattr(twin, field) for field in cls._fields))


def _joined(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Of a batch, from those of its inputs; what all of them tell."""
    shared = [name for name in parts[0] if all(name in part for part in parts)]
    return {name: torch.cat([part[name] for part in parts]) for name in shared}
