"""Text that is classified or tagged: a sentence, or each of its tokens, leaves when it is sure.

Its savings are robust if an attacker who writes a few words cannot keep the rest in doubt. Longer
prompts cost more whatever is decided, so that work is compared among prompts of one length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from effattack.suites.shared import (
    Suite,
    attacked,
    pytest_generate_tests,
    reads_text,
    units,
)

if TYPE_CHECKING:
    from torch import Tensor

    from effattack.victim import Trace, Victim

__all__ = ["attacked", "pytest_generate_tests"]

VICTIMS = ["text_exit", "ner_exit"]
FEW = 8


@pytest.mark.effattack(victims=VICTIMS)
class TestText(Suite):
    def covers(self, victim: Victim) -> bool:
        """Whatever mechanism it saves by."""
        return reads_text(victim)

    def test_opening_gates_never_saves_work(  # type: ignore[override]
        self,
        effattack_victim: Victim,
        effattack_data: tuple[Tensor, Tensor],
        attacked: dict[str, Trace],
    ) -> None:
        """Of prompts of one length, one that opened every gate that another did cost no less."""
        import torch

        from effattack.domains.tokens import lengths

        victim = effattack_victim
        prompts = effattack_data[0]
        with torch.no_grad():
            trace = victim.trace(prompts)
        if not trace.gates:
            pytest.skip("it has no gates")
        sizes, active = lengths(prompts), units(trace).double()
        only_first = active @ (1 - active).T
        covered = (only_first.T == 0) & (sizes[:, None] == sizes[None, :])
        cheaper = covered & (trace.macs[:, None] < trace.macs[None, :])
        assert not cheaper.any(), f"{int(cheaper.sum())} pairs cost less with more open"

    def test_padding_costs_nothing_and_changes_no_answer(
        self, effattack_victim: Victim, effattack_data: tuple[Tensor, Tensor]
    ) -> None:
        """In a wider batch each prompt has the same answer, and costs the same."""
        import torch

        from effattack.domains.tokens import PAD, padded

        victim, prompts = effattack_victim, effattack_data[0][:FEW]
        widest = victim.domain.stretched(prompts).shape[1]
        wide = padded(prompts, min(prompts.shape[1] + 3, widest))
        assert (wide == PAD).any()
        with torch.no_grad():
            assert torch.equal(victim.trace(wide).macs, victim.trace(prompts).macs)
            answers = [victim.task.answer(victim(batch)) for batch in (wide, prompts)]
        assert [victim.task.text(a) for a in answers[0]] == [
            victim.task.text(a) for a in answers[1]
        ]

    def test_who_left_is_gone(self, attacked: dict[str, Trace]) -> None:
        """Whoever an exit lets go, a sentence or a token, is seen by none that follow."""
        for trace in attacked.values():
            for before, after in zip(trace.gates, trace.gates[1:], strict=False):
                assert (after.reached == before.active).all()

    def test_nobody_costs_more_than_the_ceiling(
        self, effattack_victim: Victim, effattack_data: tuple[Tensor, Tensor]
    ) -> None:
        """Clean prompts, and the same stretched to the longest, stay below the ceiling."""
        import torch

        victim, prompts = effattack_victim, effattack_data[0][:FEW]
        for batch in (prompts, victim.domain.stretched(prompts)):
            with torch.no_grad():
                assert (victim.trace(batch).macs <= victim.ceiling(batch)).all()
