"""Quantization: products run in int8; some methods keep outlier columns in floating point.

Plain int8, and pruning beside it, is robust by construction: the same operators run on every image,
and no MAC moves. Where outliers decide what runs in floating point, savings are robust if an
attacker cannot make outliers. Where gates stand between quantized layers, they decide on rounded
values: clean images must cost what they cost in floats, and an attacker finds the gates as open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from effattack.suites.shared import Suite, apart, attacked, pytest_generate_tests

if TYPE_CHECKING:
    from torch import Tensor

    from effattack.results.evaluation import Evaluation
    from effattack.victim import Trace, Victim

__all__ = ["attacked", "pytest_generate_tests"]

VICTIMS = [
    "digits_vit_int8",
    "digits_vit_int8_weight_only",
    "digits_vit_int4_weight_only",
    "digits_cnn_int8",
    "digits_cnn_pruned",
    "digits_vit_llm_int8",
    "digits_cnn_early_exit_int8",
    "digits_tinysaver_cascade_int8",
    "digits_vit_ats_int8",
]
MOVED = 0.02
"""Of the max: by how much rounding may move the mean work on clean images."""


@pytest.mark.effattack(victims=VICTIMS)
class TestQuantized(Suite):
    family = "quantization"

    def covers(self, victim: Victim) -> bool:
        """Whether a victim is tested here: one of the family, or one of another in few bits."""
        from effattack.victim.twins import quantized

        return super().covers(victim) or (quantized(victim) and not apart(victim))

    def test_plain_int8_gives_nothing_away(
        self, effattack_victim: Victim, effattack_evaluation: Evaluation
    ) -> None:
        """Not one MAC moves, under no attack and on no image."""
        if not effattack_victim.constant:
            pytest.skip(f"{effattack_victim.name} decides by the image what runs")
        assert effattack_evaluation.samples.macs.nunique() == 1

    def test_outliers_come_on_top(
        self, effattack_victim: Victim, attacked: dict[str, Trace]
    ) -> None:
        """An image without outliers costs what all do at least; every outlier column adds to it."""
        if effattack_victim.family != self.family or effattack_victim.constant:
            pytest.skip(f"{effattack_victim.name} has no outlier columns")
        for trace in attacked.values():
            columns = sum(gate.active.sum(1) for gate in trace.gates)
            assert (trace.macs >= effattack_victim.dense_macs).all()
            assert ((trace.macs > effattack_victim.dense_macs) == (columns > 0)).all()

    def test_rounding_costs_no_savings(
        self, effattack_victim: Victim, effattack_data: tuple[Tensor, Tensor]
    ) -> None:
        """Clean images cost on average what they cost the float victim that it was made of."""
        import torch

        exact = getattr(effattack_victim, "float_victim", None)
        if exact is None:
            pytest.skip(f"{effattack_victim.name} tells no float victim that it was made of")
        with torch.no_grad():
            found, expected = (v.trace(effattack_data[0]).macs for v in (effattack_victim, exact))
        moved = (found.mean() - expected.mean()).abs().item() / effattack_victim.max_macs
        assert moved <= MOVED, f"rounding moved the mean work by {moved:.1%} of the max"
