"""Hooked: a user's own model as a victim, its decisions told by name.

The model stays as it is: it runs under forward hooks, one input at a time, and what it compares is
read where it compares it. Executed MACs come from a table of the decisions (see
:mod:`effattack.victim.hooked.patterns`), and are audited as those of every victim.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from math import isnan, nan
from typing import Any

import torch
from torch import Tensor, nn

from effattack.domains import Domain, Pixels
from effattack.tasks import Classes, Task
from effattack.victim.contract import Victim, either, set_mode
from effattack.victim.door import example_of
from effattack.victim.hooked.decision import Decision, openings
from effattack.victim.hooked.following import Followed, follow
from effattack.victim.hooked.given import check_given, listed
from effattack.victim.hooked.learning import learn, most_macs
from effattack.victim.hooked.passes import answer
from effattack.victim.hooked.patterns import ASK, Patterns
from effattack.victim.hooked.spares import Spares, check_idle, spares_of
from effattack.victim.hooked.trials import Trials, counted
from effattack.victim.rounding import margin_slack
from effattack.victim.trace import Gate, Trace

TRIALS = 4
"""How many inputs a model is tried on."""


class Hooked(Victim):
    """Your own model, whose decisions you name.

    One gate per decision. Decisions that another one hides (the exits behind the one that was
    taken) get their margins from a second run, in which those that have a ``threshold`` are forced
    open. Inputs run one by one, by both paths.

    Args:
        model: any module (B, *input_shape) -> logits (B, classes), or an object that has them as
            ``.logits``.
        decisions: one, or all in the order of evaluation.
        input_shape: (C, H, W) of one image.
        spares: of decisions without a ``threshold``, by name: dotted names of the modules that run
            only where nothing is saved; their MACs are what the decision is worth.
        macs: trace -> (B,) executed MACs; needed only where the decisions do not fix them.
        max_macs: structural worst case; by default what runs with every decision forced open.
        trial: (T, *input_shape) inputs to try the model on, where grey and noise do not do.
        name, family: how tables call it, and how it saves.
        domain: what inputs are, where they are no images; a smooth one, such as ``Series``.
        task: what the outputs say, where they are no logits.
        settings: ``dense_macs``, ``data``.

    Raises:
        UsageError: for a decision whose tensor or attribute does not exist, has another shape, or
            is none; naming it, with the remedy.
        GradientError: where no gradient from a decision reaches the input.
    """

    def __init__(
        self,
        model: nn.Module,
        decisions: Decision | Sequence[Decision],
        input_shape: tuple[int | None, ...] | None = None,
        *,
        spares: Mapping[str, Iterable[str]] | None = None,
        macs: Callable[[Trace], Tensor] | None = None,
        max_macs: float = nan,
        trial: Tensor | None = None,
        name: str | None = None,
        family: str = "hooked",
        domain: Domain | None = None,
        task: Task | None = None,
        **settings: Any,
    ) -> None:
        name = name or type(model).__name__
        known: Domain = either(name, "input_shape", input_shape, "domain", domain, Pixels)
        decisions = listed(decisions)
        check_given(model, decisions, known, macs)
        set_mode(model, False)
        trial = _trial(known) if trial is None else trial
        known.check(trial)
        trials = Trials(model, decisions, trial.to(example_of(model)))
        spared = spares_of(spares)
        learnt = learn(trials, spared)
        super().__init__(
            name=name,
            family=family,
            max_macs=most_macs(trials, learnt, spared) if isnan(max_macs) else max_macs,
            domain=known,
            task=task or Classes(trials.classes),
            **{"dense_macs": nan, **settings},
        )
        self.model = model
        self.decisions = decisions
        self.learnt = learnt
        self.spares: Spares = spared
        self.macs = macs

    def forward(self, images: Tensor) -> Tensor:
        return self.task.join([answer(self.model, image) for image in images.split(1)])

    def trace(self, images: Tensor) -> Trace:
        rows = [
            follow(self.model, self.decisions, self.learnt, image, self._in_a_row)
            for image in images.split(1)
        ]
        trace = Trace(
            logits=self.task.join([row.passed.logits for row in rows]),
            gates=tuple(self._gate(decision, rows) for decision in self.decisions),
            macs=torch.full((len(rows),), nan, dtype=torch.float64, device=images.device),
            stage_logits=self._stages(rows) if self._in_a_row else None,
        )
        if self.macs is not None:
            return trace._replace(macs=self.macs(trace))
        spent = map(self._spent, images.detach().split(1), rows)
        return trace._replace(macs=trace.macs.new_tensor([*spent]))

    @property
    def correction(self) -> str:
        if self.macs is not None:
            return "correct the function macs of the trace"
        return (
            "correct the rule or the threshold that the model does not compare; else its decisions "
            f"do not fix its MACs: {ASK}"
        )

    @cached_property
    def _patterns(self) -> Patterns:
        return Patterns(self.name, [decision.name for decision in self.decisions])

    @cached_property
    def _in_a_row(self) -> bool:
        """Every decision is taken on an answer of its own, and saving hides all that follow."""
        names = [decision.name for decision in self.decisions]
        return len(openings(self.decisions)) == len(names) and all(
            self.learnt[name].logits and self.learnt[name].hides == set(names[k + 1 :])
            for k, name in enumerate(names)
        )

    def _spent(self, image: Tensor, row: Followed) -> float:
        """MACs of an input: those of its pattern; counted where rounding may have decided."""

        def count() -> int:
            spent = counted(self.model, image, self.decisions).spent
            for name in () if near else saved:
                check_idle(name, spent, self.spares)
            return spent.macs

        reached = [each for each in self.decisions if row.reached(each.name)]
        saved = [each.name for each in reached if not row.open_units(each.name)]
        margins = [row.decided[each.name].margin for each in reached if not each.rule.proxy]
        near = any(bool((each.abs() <= margin_slack(each.dtype)).any()) for each in margins)
        if near:
            return count()
        units = tuple(row.open_units(each.name) for each in self.decisions)
        return self._patterns.macs((tuple(image.shape), units), count)

    def _gate(self, decision: Decision, rows: Sequence[Followed]) -> Gate:
        learnt = self.learnt[decision.name]
        parts = [row.gate(decision.name, learnt.units) for row in rows]
        margin, active, reached = (torch.cat(part) for part in zip(*parts, strict=True))
        return Gate(
            name=decision.name,
            margin=margin,
            active=active,
            reached=reached,
            cost=learnt.cost,
            proxy=decision.rule.proxy,
            pushed=any(decision.name in other.hides for other in self.learnt.values()),
        )

    def _stages(self, rows: Sequence[Followed]) -> Tensor:
        """(B, stages, classes): the answers that decisions are taken on, and the last one."""
        names = [decision.name for decision in self.decisions]
        answers = [
            [*(row.opened.tensors[name] for name in names), row.opened.logits] for row in rows
        ]
        return torch.cat([torch.stack(stages, dim=1) for stages in answers])


def _trial(domain: Domain) -> Tensor:
    """An input that means nothing, and the same under noise."""
    noisy = domain.disturbed(domain.example(TRIALS - 1), torch.Generator().manual_seed(0))
    return domain.join([domain.example(1), noisy])
