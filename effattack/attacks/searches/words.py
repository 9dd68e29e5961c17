"""How attacks on prompts look: the gradient of words names candidates, executed work judges them.

Coordinate gradient is that of Zou et al., "Universal and Transferable Adversarial Attacks on
Aligned Language Models", 2023 (arXiv 2307.15043), algorithm 1: of the linearised gain of every word
in every place, some candidates are drawn, each with one word replaced, and all are run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor

from effattack.attacks.objectives import Goal, Objective
from effattack.attacks.searches.best import Acceptance, Best, Rank, ranked, unfinished
from effattack.attacks.searches.climbing import Climb
from effattack.attacks.searches.projected import input_gradient
from effattack.attacks.searches.squares import RandomSearch
from effattack.attacks.searches.untried import Untried
from effattack.domains.tokens import padded
from effattack.threats.edits import Edits, drawn_slots
from effattack.victim.leaf import word_gradients

WIDTH = 12
"""Candidates per gradient, unless more are asked for."""
GRADIENT = 3
"""Forward passes that a gradient is counted as: its own, and two for the way back."""
AT_ONCE = 512
"""Prompts that are run together."""
SPARE = 4
"""Candidates that are written for one that is run: those that were run before are left out."""


@dataclass(frozen=True)
class CoordinateGradient(Climb):
    """One word after another is replaced by the best of some candidates.

    Most of the candidates are the word of the largest linearised gain in every place in turn, then
    the second of every place, and so on; the last ``anew`` are random points of the budget. No
    prompt is run twice as long as others are left. As in the paper the search goes on from the best
    candidate of a step, whether it is better than the last one or not; what is returned is the best
    of all steps.

    Divergences: candidates are chosen by executed work, then by the objective (the paper has the
    objective alone); they are the best by gain, and some that no gradient names (the paper draws
    them among the best, and may draw one again); what a tokenizer would read otherwise is left out.

    Args:
        steps, random_start, restarts, accept, ask: see :class:`Climb`.
        width: candidates per step.
        anew: how many of these are random points of the budget.
        seed: of the draws.
    """

    width: int = WIDTH
    anew: int = 3
    seed: int = 0

    @classmethod
    def like(cls, search: Climb, seed: int) -> CoordinateGradient:
        """What a search on arrays is on prompts, at equal effort.

        A step is a gradient and ``width`` candidates, which is as much as five gradients.
        """
        steps = -(-search.steps * GRADIENT // (GRADIENT + WIDTH))
        return cls(
            steps,
            random_start=search.random_start,
            restarts=search.restarts,
            accept=search.accept,
            ask=search.ask,
            seed=seed,
        )

    def climb(
        self,
        best: Best,
        start: Tensor,
        clean: Tensor,
        threat: Edits,
        objective: Objective,
        goal: Goal,
        restart: int = 0,
    ) -> None:
        generator = Generator().manual_seed(1009 * self.seed + restart)
        wide = widen(best, clean, threat)
        rows, whole = torch.arange(len(clean), device=clean.device), goal
        iterate = padded(threat.on_grid(start, clean), wide)
        words = torch.tensor(threat.words(), device=clean.device)
        untried = Untried.but(iterate)
        for step in range(self.steps):
            if (going := unfinished(best, rows, whole)) is not None:
                rows, iterate, threat = rows[going], iterate[going], threat.rows(going)
                clean, goal, untried = clean[going], goal.rows(going), untried.rows(going)
                if len(rows) == 0:
                    return
            gain, rank = self.gains(iterate, clean, threat, objective, goal, generator)
            best.update(rows, iterate, rank)
            pools = self.pools(iterate, clean, threat, gain, words, generator)
            found = torch.cat([untried.take(pool, len(pool) // SPARE) for pool in pools])
            step_best = Best.none(iterate)
            for some in found.split(max(1, AT_ONCE // len(rows))):
                self._judge(some, rows, clean, objective, goal, (best, step_best))
            iterate = step_best.inputs
            goal.callback(best.step(restart, step + 1, self.steps))

    def gains(
        self,
        iterate: Tensor,
        clean: Tensor,
        threat: Edits,
        objective: Objective,
        goal: Goal,
        generator: Generator,
    ) -> tuple[Tensor, Rank]:
        """Linearised gain of each word in each slot, (B, slots, words); rank of the iterates."""
        victim = goal.victim
        places = threat.editable(clean).clamp_max(iterate.shape[1] - 1)
        leaf = victim.lift(iterate, places)
        rows = leaf.rows.detach().requires_grad_()
        with torch.enable_grad():
            lifted: Any = victim.trace
            trace = lifted(iterate, leaf=leaf._replace(rows=rows))
            value = objective(trace, goal)
            gradient = input_gradient(value, rows, trace)
        own = (gradient * rows.detach()).sum(2)[:, :, None]

        def slopes(ids: Tensor) -> Tensor:
            return word_gradients(victim.lift, gradient, ids) - own

        rank = ranked(trace, _seen(goal, iterate, clean, self), value, **self._asked)
        return threat.gains(iterate, clean, slopes, generator), rank

    def pools(
        self,
        iterate: Tensor,
        clean: Tensor,
        threat: Edits,
        gain: Tensor,
        words: Tensor,
        generator: Generator,
    ) -> tuple[Tensor, Tensor]:
        """Prompts (n, B, L) to choose from, ``SPARE`` times as many as are run: those of most gain,
        and random points of the budget."""
        count = min(SPARE * (self.width - self.anew), gain[0].numel())
        most, word = gain.topk(min(count, gain.shape[2]), dim=2)
        turn = torch.arange(most.shape[2], device=gain.device)
        key = (most / (1 + most.abs()) / 2 - turn).masked_fill(most == -torch.inf, -torch.inf)
        top = key.flatten(1).topk(count, dim=1).indices
        chosen = words[word.flatten(1).gather(1, top)]
        changed = self.written(iterate, clean, threat, top // most.shape[2], chosen, generator)
        drawn = [threat.start(clean, generator) for _ in range(SPARE * self.anew)]
        return changed, torch.stack([padded(each, iterate.shape[1]) for each in drawn])

    def written(
        self,
        iterate: Tensor,
        clean: Tensor,
        threat: Edits,
        slots: Tensor,
        words: Tensor,
        generator: Generator,
    ) -> Tensor:
        """(n, B, L): prompts with one word replaced, inside the budget; slots, words (B, n)."""
        found = [
            threat.on_grid(threat.put(iterate, clean, slot, word, generator), clean)
            for slot, word in zip(slots.T, words.T, strict=True)
        ]
        return torch.stack([padded(each, iterate.shape[1]) for each in found])

    def _judge(
        self,
        found: Tensor,
        rows: Tensor,
        clean: Tensor,
        objective: Objective,
        goal: Goal,
        bests: tuple[Best, Best],
    ) -> None:
        """Run candidates (n, B, L) together; what ranks higher goes into the best of all steps and
        of this one."""
        own = torch.arange(len(rows), device=rows.device)
        index = own.repeat(len(found))
        flat, goals = found.flatten(0, 1), goal.rows(index)
        with torch.no_grad():
            trace = goals.victim.trace(flat)
            rank = ranked(
                trace,
                _seen(goals, flat, clean[index], self),
                objective(trace, goals),
                **self._asked,
            )
        for candidate in range(len(found)):
            mine = rank.rows(own + candidate * len(rows))
            for best, where in zip(bests, (rows, own), strict=True):
                best.update(where, found[candidate], mine)

    @property
    def _asked(self) -> dict[str, Acceptance | None]:
        return {"accept": self.accept, "ask": self.ask}


class RandomWords(RandomSearch):
    """One word of the best prompt so far is drawn anew per query; several at first.

    The search of :class:`RandomSearch`, whose squares are words here.
    """

    @classmethod
    def like(cls, search: RandomSearch) -> RandomWords:
        """What a search on arrays is on prompts."""
        return cls(search.queries, accept=search.accept)

    def climb(
        self,
        best: Best,
        clean: Tensor,
        threat: Edits,
        goal: Goal,
        generator: Generator,
        restart: int = 0,
    ) -> None:
        widen(best, clean, threat)
        super().climb(best, clean, threat, goal, generator, restart)

    def proposed(
        self, mine: Tensor, clean: Tensor, threat: Edits, query: int, generator: Generator
    ) -> Tensor:
        found = threat.start(clean, generator) if query == 0 else mine
        count = 1 + (query < self.queries // 4)
        for slot in drawn_slots(threat.writable(clean), count, generator).T:
            words = threat.draw(clean, generator).to(clean)
            found = threat.put(found, clean, slot, words, generator)
        return padded(threat.on_grid(found, clean), mine.shape[1])


def widen(best: Best, clean: Tensor, threat: Edits) -> int:
    """Make room in the best prompts for the longest of the threat; returns their width."""
    wide = max(best.inputs.shape[1], threat.largest(clean).shape[1])
    best.inputs = padded(best.inputs, wide)
    return wide


def _seen(goal: Goal, inputs: Tensor, clean: Tensor, search: Climb) -> Goal:
    """The goal, with where the clean tokens stand now; only what agreement is asked of needs it."""
    if search.accept is None and search.ask is None:
        return goal
    return replace(goal, kept=goal.victim.domain.kept(inputs, clean))
