"""A deployed artefact, judged in place of the differentiable model that it was made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from math import nan
from typing import Any

import torch
from torch import Tensor, nn

from effattack.counting.tallies import Count
from effattack.domains import Batch, Domain
from effattack.errors import UsageError
from effattack.tasks import Task
from effattack.victim.contract import Victim, set_mode
from effattack.victim.deployed.alike import alike
from effattack.victim.deployed.told import Decisions, asked, outputs_of, telling, work_of
from effattack.victim.door import answered, copied, precision
from effattack.victim.leaf import Leaf
from effattack.victim.trace import Ran, Trace


class Deployed(Victim):
    """What ships: attacks see its twin; answers, decisions, work and latency are the artefact's.

    The contract is checked on the twin. Between twin and artefact, the share of inputs on which
    both take the same decisions and give the same answer is measured, and stands first in every
    report. An artefact that shows no decisions is compared by its answer and its work.

    Args:
        twin: the model that the artefact was made from, or one like it; None: nothing is known of
            the inside. Queries, plain controls and ``Transfer`` from a surrogate apply then.
        run: the artefact: a batch -> outputs, as the task reads them; or (outputs, decisions), the
            decisions as {gate name: (B, units) bool}, by the names of the twin's gates. Those that
            were not reached are False. One that takes a single input runs in a loop.
        work: a batch -> the MACs that running it executed, (B,); or {"macs": (B,), ...} with every
            count of the twin and of ``counts`` beside. None: unknown. Then only answers and latency
            are judged, and no savings are stated.
        name: how tables and files call it.
        domain: what inputs are, and
        task: what is asked for, where there is no twin that says so.
        counts: work of the artefact alone that is no MAC, beside the twin's counts.
        max_macs: worst case of the artefact; by default the twin's.
        batch_coupled: an answer may depend on the batch mates of its input, as where int8 scales
            are taken over the batch; by default as the twin.
        data: see :class:`Victim`.

    Raises:
        UsageError: for a twin of other inputs or answers than ``domain`` and ``task`` say, or
            without any of the three.
        ContractError: where ``run`` or ``work`` return something else.
        MeasurementError: where one of them raises.
    """

    def __init__(
        self,
        twin: Victim | None,
        run: Callable[[Any], Any],
        work: Callable[[Any], Any] | None = None,
        *,
        name: str | None = None,
        domain: Domain | None = None,
        task: Task | None = None,
        counts: Mapping[str, Count] | None = None,
        max_macs: float | None = None,
        batch_coupled: bool | None = None,
        data: str | None = None,
    ) -> None:
        if not (callable(run) and (work is None or callable(work))):
            raise UsageError(f"run = {run!r}, work = {work!r}: give functions of a batch")
        if name is None:
            called = str(getattr(run, "__name__", type(run).__name__))
            name = called if twin is None else f"{twin.name}_deployed"
        inputs, answers = asked(name, twin, domain, task)
        most = nan if twin is None else twin.max_macs
        coupled = twin is not None and twin.batch_coupled
        super().__init__(
            name=name,
            family="deployed" if twin is None else twin.family,
            domain=inputs,
            task=answers,
            max_macs=most if max_macs is None else max_macs,
            dense_macs=nan if twin is None else twin.dense_macs,
            constant=twin is not None and twin.constant and work is not None,
            batch_coupled=coupled if batch_coupled is None else batch_coupled,
            pads=twin is not None and twin.pads,
            data=data or getattr(twin, "data", None),
            counts={**getattr(twin, "counts", {}), **(counts or {})},
            currency=getattr(twin, "currency", "macs"),
        )
        self.twin, self.run, self.work = twin, run, work
        self.sees = "answers" if twin is None else twin.sees
        self.counted = work is not None
        if isinstance(run, nn.Module):
            set_mode(run, False)
        with torch.no_grad():
            self.ran(self.example(1))

    @property
    def checked(self) -> Victim | None:
        """The twin."""
        return self.twin

    @property
    def queried(self) -> Victim:
        """The artefact, without what only its twin shows."""
        return self if self.twin is None else Queried(self)

    def forward(self, batch: Batch) -> Tensor:
        return self._told(batch)[0]

    def trace(self, batch: Batch, leaf: Leaf | None = None) -> Trace:
        """The twin's, in which counts of the artefact alone are NaN; without a twin, as it ran."""
        if self.twin is None:
            return self.as_ran(batch)
        traced: Callable[..., Trace] = self.twin.trace
        found = traced(batch) if leaf is None else traced(batch, leaf=leaf)
        unknown = torch.full_like(found.macs, nan)
        return found._replace(also={**dict.fromkeys(self.counts, unknown), **found.also})

    def ran(self, single: Batch) -> Ran:
        """What the artefact says of one input, what its own record says of that run, and whether
        its twin decides and answers alike."""
        outputs, decisions, work = self._seen(single)
        macs, outputs = work.pop("macs"), answered(outputs, precision(single, self.dtype))
        same = None
        if self.twin is not None:
            same = alike(self, self.twin.trace(single), outputs, decisions, {"macs": macs, **work})
        counts = {name: float(each) for name, each in work.items()}
        return Ran(outputs, float(macs), decisions, counts, same)

    def as_ran(self, batch: Batch) -> Trace:
        """What the artefact shows from outside: answers and work, without gates and gradients."""
        parts = self.domain.singles(batch) if self.batch_coupled else [batch]
        with torch.no_grad():
            outputs, _, works = zip(*map(self._seen, parts), strict=True)
        work = {name: torch.cat([each[name] for each in works]) for name in works[0]}
        return Trace(self.task.join(outputs), (), work.pop("macs"), also=work)

    def _seen(self, batch: Batch) -> tuple[Tensor, Decisions | None, dict[str, Tensor]]:
        """Outputs, decisions and work of a batch, as it is."""
        outputs, decisions = self._told(copied(batch, self.dtype))
        return outputs, decisions, self._spent(copied(batch, self.dtype))

    def _told(self, batch: Batch) -> tuple[Tensor, Decisions | None]:
        """Outputs and decisions of a batch; input by input where it takes no two."""
        if len(batch) == 1 or not self.one_by_one:
            with telling(f"{self.name}: run"):
                found = self.run(batch)
            return outputs_of(found, self, len(batch))
        outputs, decisions = zip(*map(self._told, self.domain.singles(batch)), strict=True)
        joined = self.task.join(outputs)
        if any(each is None for each in decisions):
            return joined, None
        gates = decisions[0]
        return joined, {gate: torch.cat([each[gate] for each in decisions]) for gate in gates}

    def _spent(self, batch: Batch) -> dict[str, Tensor]:
        """(B,) each: MACs and counts of a batch; NaN where nobody knows them."""
        if self.work is None:
            unknown = torch.full((len(batch),), nan, dtype=torch.float64, device=self.device)
            return dict.fromkeys(("macs", *self.counts), unknown)
        if len(batch) == 1 or not self.one_by_one:
            with telling(f"{self.name}: work"):
                found = self.work(batch)
            return work_of(found, self, len(batch))
        each = [self._spent(single) for single in self.domain.singles(batch)]
        return {name: torch.cat([one[name] for one in each]) for name in each[0]}

    @cached_property
    def one_by_one(self) -> bool:
        """Whether the artefact takes one input at a time, as those exported for one do."""
        two = copied(self.example(2), self.dtype)
        try:
            outputs_of(self.run(two), self, 2)
            if self.work is not None:
                work_of(self.work(two), self, 2)
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
        """The twin's, up to the worst case that the artefact declares."""
        own = super().ceiling(batch, count)
        if self.twin is None or count != "macs" or self.max_macs != self.twin.max_macs:
            return own
        return self.twin.ceiling(batch)

    def in_float64(self) -> None:
        """There is none: what ships is judged as it is."""


class Queried(Victim):
    """An artefact as those see it who only query it: answers and work, no gates, no gradients."""

    sees = "answers"

    def __init__(self, deployed: Deployed) -> None:
        told = ("name", "family", "domain", "task", "counts", "currency", "batch_coupled", "pads")
        super().__init__(
            **{what: getattr(deployed, what) for what in told},
            max_macs=deployed.max_macs,
            constant=deployed.constant,
        )
        self.deployed = deployed
        self.counted = deployed.counted

    def forward(self, batch: Batch) -> Tensor:
        return self.deployed(batch)

    def trace(self, batch: Batch) -> Trace:
        return self.deployed.as_ran(batch)

    def ceiling(self, batch: Batch, count: str = "macs") -> Tensor:
        return self.deployed.ceiling(batch, count)
