"""Generators: a prompt decides how many tokens are written, and each is a pass of the model.

Their savings are robust if no small change of a prompt makes them write on to the cap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from effattack.suites.shared import Writing, attacked, pytest_generate_tests, units

if TYPE_CHECKING:
    from torch import Tensor

    from effattack.victim import Trace, Victim

__all__ = ["attacked", "pytest_generate_tests"]

VICTIMS = ["sums_lm", "dates_translator", "sums_reasoner"]


@pytest.mark.effattack(victims=VICTIMS)
class TestGeneration(Writing):
    family = "generation"

    def test_opening_gates_never_saves_work(  # type: ignore[override]
        self, effattack_victim: Victim, attacked: dict[str, Trace]
    ) -> None:
        """Who writes more is charged more; MACs depend on the length of the prompt as well."""
        import torch

        victim, traces = effattack_victim, list(attacked.values())
        steps = torch.cat([units(trace).sum(1) for trace in traces])
        spent = torch.cat([victim.spent(trace) for trace in traces])
        wrong = (steps[:, None] > steps) & (spent[:, None] <= spent)
        assert not wrong.any(), f"{int(wrong.sum())} pairs: more was written for no more work"

    def test_what_is_written_does_not_depend_on_who_is_asked_beside(
        self, effattack_victim: Victim, effattack_data: tuple[Tensor, Tensor]
    ) -> None:
        """Prompts alone and together, and padded, have one answer."""
        import torch

        from effattack.domains.tokens import padded

        victim, prompts = effattack_victim, effattack_data[0][: self.few]
        wide = padded(prompts, prompts.shape[1] + 3)
        with torch.no_grad():
            together = victim.task.answer(victim(wide))
            alone = [victim(single) for single in victim.domain.singles(prompts)]
        assert torch.equal(together, victim.task.answer(victim.task.join(alone)))
