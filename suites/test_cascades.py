"""Cascades: a small model answers, and calls the large one when it is unsure.

Its savings are robust if an attacker cannot make the small model unsure. Escalated images are
answered by the large model, so he takes compute, and mostly leaves the accuracy: an attack that
nobody notices by the answers. The worst case costs more than the large model alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from effattack.suites.shared import Suite, attacked, depth, pytest_generate_tests, units

if TYPE_CHECKING:
    from effattack.victim import Trace, Victim

__all__ = ["attacked", "pytest_generate_tests"]

VICTIMS = [
    "digits_tinysaver_cascade",
    "digits_tinysaver_cascade_hardened",
    "digits_three_stage_cascade",
    "digits_esn",
]


@pytest.mark.effattack(victims=VICTIMS)
class TestCascades(Suite):
    family = "cascade"

    def test_who_was_answered_is_not_escalated(self, attacked: dict[str, Trace]) -> None:
        """A model is asked by those whom the one before escalated, and by nobody else."""
        for trace in attacked.values():
            depth(trace)

    def test_the_last_model_asked_answers(self, attacked: dict[str, Trace]) -> None:
        """The logits are those of the model at which the image stopped, attacked or not."""
        import torch

        for trace in attacked.values():
            if trace.stage_logits is None:
                pytest.skip("the trace tells no stage_logits")
            always = trace.stage_logits.shape[1] - 1 - units(trace).shape[1]
            rows = torch.arange(len(trace.logits), device=trace.logits.device)
            asked = trace.stage_logits[rows, always + depth(trace)]
            torch.testing.assert_close(trace.logits, asked)

    def test_the_worst_case_exceeds_the_large_model(
        self, effattack_victim: Victim, attacked: dict[str, Trace]
    ) -> None:
        """Whoever is escalated to the end has paid for every model on the way."""
        assert effattack_victim.max_macs > effattack_victim.dense_macs
        for trace in attacked.values():
            escalated = units(trace).all(1)
            assert (trace.macs[escalated] == effattack_victim.max_macs).all()
