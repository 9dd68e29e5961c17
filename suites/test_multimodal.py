"""Inputs of several kinds, such as an image with a question: either part may decide what is done.

Their savings are robust if no small change of a part that somebody else supplies makes the model
look longer, or write more. Name the part that is attacked: ``--effattack-threat
image:linf:8/255``, ``question:swap:1``, or both at one budget.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from effattack.suites.shared import Suite, attacked, mixes, pytest_generate_tests

if TYPE_CHECKING:
    from effattack.domains import PartsBatch
    from effattack.victim import Trace, Victim

__all__ = ["attacked", "pytest_generate_tests"]

FEW = 8


@pytest.mark.effattack(
    victims=[
        "questions_cross",
        "questions_gated",
        "questions_selected",
        "questions_fixed_ratio",
        "questions_written",
        "questions_counted",
        "machine_watch",
    ]
)
class TestMultimodal(Suite):
    family = "multimodal"

    def covers(self, victim: Victim) -> bool:
        return mixes(victim)

    def test_nobody_costs_more_than_the_ceiling(
        self, effattack_victim: Victim, attacked: dict[str, Trace]
    ) -> None:
        """Clean and attacked, in MACs."""
        for trace in attacked.values():
            assert (trace.macs <= effattack_victim.max_macs).all()

    def test_parts_that_do_not_belong_together_are_answered(
        self, effattack_victim: Victim, effattack_data: tuple[PartsBatch, object]
    ) -> None:
        """Another input's part in the place of the own one: an answer, within the ceiling."""
        import torch

        victim, batch = effattack_victim, effattack_data[0][:FEW]
        for part in victim.domain.parts:  # type: ignore[attr-defined]
            mixed = batch.replaced(**{part: batch[part].roll(1, 0)})
            with torch.no_grad():
                trace = victim.trace(mixed)
            assert victim.task.valid(trace.logits).all()
            ceiling = victim.ceiling(mixed, victim.currency)
            assert (victim.spent(trace) <= ceiling).all()

    def test_a_part_that_was_not_paid_for_does_not_matter(
        self, effattack_victim: Victim, effattack_data: tuple[PartsBatch, object]
    ) -> None:
        """Where no work went into a part, another input's in its place: same answer, same work."""
        import torch

        victim, batch = effattack_victim, effattack_data[0][: 2 * FEW]
        with torch.no_grad():
            trace = victim.trace(batch)
            told = {part: trace.stages[part] == 0 for part in batch.parts if part in trace.stages}
            spared = {part: rows for part, rows in told.items() if rows.any()}
            if not spared:
                pytest.skip(f"{victim.name} looks at every part of these inputs")
            for part, rows in spared.items():
                mixed = batch.replaced(**{part: batch[part].roll(1, 0)})[rows]
                assert torch.equal(victim.trace(mixed).macs, trace.macs[rows])
                torch.testing.assert_close(victim(mixed), victim(batch[rows]))
