"""Craft here, judge there: attacks see a differentiable twin, scores are the artefact's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import nan
from typing import Any, NamedTuple

import torch
from torch import Tensor

from effattack.counting.tallies import Count
from effattack.domains import Batch, Domain
from effattack.errors import ContractError, EffattackError, UsageError, first_line
from effattack.tasks import Task
from effattack.victim.contract import Victim
from effattack.victim.trace import Ran, Trace

Outputs = Any
"""What a task reads answers from, (B, ...): a tensor, or what ``torch.as_tensor`` takes."""
Decisions = Mapping[str, Any]
"""Gate name -> (B, units) bool."""
Run = Callable[[Batch], Outputs | tuple[Outputs, Decisions]]
Counted = Mapping[str, Any]
"""``"macs"``, and each of the victim's counts -> (B,)."""


class Deployed(Victim):
    """An artefact as it is shipped: exported, quantized, compiled, behind another runtime.

    Its answers, decisions, latency and work are what every row says; attacks see the twin, choose
    their iterates by the twin's work, and never the artefact. The invariants are checked on the
    twin. How far both decide alike is measured on every row, and stands first in the report.

    Without a twin an attacker sees answers and work: queries, transfer and controls apply.

    Args:
        twin: the victim that the artefact was made from; None where there is none.
        run: a batch -> outputs, or (outputs, {gate: (B, units) bool}). It is what is timed.
        work: a batch -> MACs (B,), or ``{"macs": (B,)}`` with each of ``counts`` beside, and
            decisions by name of gate where the record of what ran shows them. Without it answers
            and latency are judged, and no savings are stated.
        name: how tables and files call it; by default the twin's, ``(deployed)`` behind it.
        family: of the twin, by default.
        domain, task: where there is no twin.
        counts: work that is no MAC; ``work`` tells it.
        max_macs: worst case; by default the twin's, NaN without one.
        data: see :class:`Victim`.

    Raises:
        UsageError: where neither a twin nor domain and task say what goes in and comes out.
    """

    def __init__(
        self,
        twin: Victim | None,
        run: Run,
        work: Callable[[Batch], Counted | Tensor] | None = None,
        *,
        name: str | None = None,
        family: str | None = None,
        domain: Domain | None = None,
        task: Task | None = None,
        counts: Mapping[str, Count] | None = None,
        max_macs: float | None = None,
        data: str | None = None,
    ) -> None:
        if twin is not None and not isinstance(twin, Victim):
            raise UsageError(
                f"Deployed(twin={type(twin).__name__}): give the effattack.Victim that the "
                "artefact was made from, or twin=None with domain= and task="
            )
        if twin is None and (domain is None or task is None):
            raise UsageError(
                "Deployed without a twin: give domain=, such as Pixels((3, 224, 224)), and task=, "
                "such as Classes(1000)"
            )
        most = nan if twin is None else twin.max_macs
        super().__init__(
            name=name or (f"{twin.name} (deployed)" if twin is not None else "deployed"),
            family=family or ("opaque" if twin is None else twin.family),
            domain=domain if twin is None else twin.domain,
            task=task if twin is None else twin.task,
            max_macs=most if max_macs is None else max_macs,
            dense_macs=nan if twin is None or work is None else twin.dense_macs,
            constant=twin is not None and work is not None and twin.constant,
            counts=counts,
            data=data or (None if twin is None else twin.data),
        )
        self.twin, self.run, self.work = twin, run, work
        self.sees = "answers" if twin is None else twin.sees  # type: ignore[misc]

    @property
    def checked(self) -> Victim | None:
        return self.twin

    def in_float64(self) -> None:
        """There is none: an artefact is judged as it is."""

    def forward(self, batch: Batch) -> Tensor:
        return self._run(batch).outputs

    def trace(self, batch: Batch) -> Trace:
        """The twin's; without one, what the artefact tells."""
        if self.twin is not None:
            return self.twin.trace(batch)
        singles = [self.ran(single) for single in self.domain.singles(batch)]
        return Trace(
            logits=self.task.join([one.outputs for one in singles]),
            gates=(),
            macs=torch.tensor([one.macs for one in singles], dtype=torch.float64),
            also={
                name: torch.tensor([one.counts[name] for one in singles], dtype=torch.float64)
                for name in self.counts
            },
        )

    def ran(self, single: Batch) -> Ran:
        """What the artefact did with one input, and whether its twin decides and answers alike."""
        found, told = self._run(single), self._told(single)
        counted = self._counted(told)
        recorded = _first({name: told[name] for name in told if name not in counted})
        found = found._replace(decisions={**recorded, **found.decisions})
        macs = counted.pop("macs")
        return Ran(
            found.outputs, macs, counted, found.decisions, self._as_twin(single, found, macs)
        )

    def _as_twin(self, single: Batch, found: _Found, macs: float) -> bool | None:
        """Whether the twin takes the same decisions, or does as much work where none are shown."""
        if self.twin is None:
            return None
        with torch.no_grad():
            trace = self.twin.trace(single)
        answers = (self.task.answer(each) for each in (trace.logits, found.outputs))
        if not bool(self.task.agree(*answers)):
            return False
        if not found.decisions:
            return macs != macs or macs == trace.macs.item()
        taken = {gate.name: gate.active[0].cpu() for gate in trace.gates}
        self._expect_gates(taken, found.decisions)
        return all(torch.equal(taken[name], found.decisions[name]) for name in found.decisions)

    def _expect_gates(self, taken: Mapping[str, Tensor], shown: Mapping[str, Tensor]) -> None:
        for name, decision in shown.items():
            if name not in taken:
                raise ContractError(
                    f"{self.name}: run shows a gate {name!r}, which its twin lacks: name them as "
                    f"the twin does ({', '.join(taken) or 'it has none'})"
                )
            if decision.shape != taken[name].shape:
                raise ContractError(
                    f"{self.name}: run gives {tuple(decision.shape)} decisions of gate {name} for "
                    f"one {self.domain.noun}, its twin takes {tuple(taken[name].shape)}: give "
                    "(B, units) bool"
                )

    def _run(self, batch: Batch) -> _Found:
        found = self._asked("run", self.run, batch)
        outputs, decisions = found if isinstance(found, tuple) else (found, {})
        try:
            outputs = torch.as_tensor(outputs)
            shown = _first(decisions)
        except (AttributeError, IndexError, TypeError, ValueError, RuntimeError) as error:
            raise ContractError(
                f"{self.name}: run returned {_kind(found)}: return outputs (B, ...), or (outputs, "
                "{gate: (B, units) bool})"
            ) from error
        if len(outputs) != len(batch) or (
            self.num_classes and outputs.shape[-1] != self.num_classes
        ):
            raise ContractError(
                f"{self.name}: run gave outputs {tuple(outputs.shape)} for {len(batch)} "
                f"{self.domain.nouns} of {self.num_classes} classes: is this the artefact of "
                f"{'that task' if self.twin is None else self.twin.name}?"
            )
        return _Found(outputs.to(self.device), shown)

    def _told(self, single: Batch) -> Mapping[str, Any]:
        """What the record of one input says."""
        if self.work is None:
            return {}
        told = self._asked("work", self.work, single)
        return told if isinstance(told, Mapping) else {"macs": told}

    def _counted(self, told: Mapping[str, Any]) -> dict[str, float]:
        """MACs and counts of one input; NaN MACs where nobody tells."""
        names = ["macs", *self.counts]
        if self.work is None:
            return dict.fromkeys(names, nan)
        if missing := [name for name in names if name not in told]:
            raise ContractError(
                f"{self.name}: work leaves out {', '.join(missing)}: return {{'macs': (B,)}}, and "
                "each of the victim's counts"
            )
        try:
            found = {name: float(torch.as_tensor(told[name]).double().reshape(1)) for name in names}
        except (RuntimeError, TypeError, ValueError) as error:
            raise ContractError(
                f"{self.name}: work returned {_kind(told['macs'])} for one {self.domain.noun}: "
                "return (B,) numbers"
            ) from error
        if wrong := [name for name, value in found.items() if not value >= 0]:
            raise ContractError(
                f"{self.name}: work says {found[wrong[0]]} {wrong[0]}: return what was executed, "
                "or leave work out where it is unknown"
            )
        return found

    def _asked(self, what: str, function: Callable[[Batch], Any], batch: Batch) -> Any:
        """What a user's callable says, without gradients."""
        try:
            with torch.no_grad():
                return function(batch)
        except EffattackError:
            raise
        except Exception as error:  # whatever a runtime raises
            raise ContractError(
                f"{self.name}: {what} raised {type(error).__name__} on {len(batch)} "
                f"{self.domain.nouns} ({first_line(error)}): an artefact must take what its twin "
                "takes; loop over the batch where it takes one at a time"
            ) from error


class _Found(NamedTuple):
    """Outputs of a batch, and the decisions of its first input."""

    outputs: Tensor
    decisions: dict[str, Tensor]


def _first(decisions: Decisions) -> dict[str, Tensor]:
    """Those of the first input of a batch."""
    return {
        name: torch.as_tensor(taken)[0].cpu().bool().view(-1) for name, taken in decisions.items()
    }


def _kind(value: object) -> str:
    shape = getattr(value, "shape", None)
    return type(value).__name__ + (f" {tuple(shape)}" if shape is not None else "")
