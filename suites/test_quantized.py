"""Quantization: products run in int8; some methods keep outlier columns in floating point.

Plain int8, and pruning beside it, is robust by construction: the same operators run on every image,
and no MAC moves. Where outliers decide what runs in floating point, savings are robust if an
attacker cannot make outliers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from effattack.suites.shared import Suite, attacked, pytest_generate_tests

if TYPE_CHECKING:
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
]


@pytest.mark.effattack(victims=VICTIMS)
class TestQuantized(Suite):
    family = "quantization"

    def test_plain_int8_gives_nothing_away(
        self, effattack_victim: Victim, effattack_evaluation: Evaluation
    ) -> None:
        """Not one MAC moves, under no attack and on no image."""
        if not effattack_victim.constant:
            pytest.skip(f"{effattack_victim.name} decides by the image what runs in int8")
        assert effattack_evaluation.samples.macs.nunique() == 1

    def test_outliers_come_on_top(
        self, effattack_victim: Victim, attacked: dict[str, Trace]
    ) -> None:
        """An image without outliers costs what all do at least; every outlier column adds to it."""
        if effattack_victim.constant:
            pytest.skip(f"{effattack_victim.name} has no outlier columns")
        for trace in attacked.values():
            columns = sum(gate.active.sum(1) for gate in trace.gates)
            assert (trace.macs >= effattack_victim.dense_macs).all()
            assert ((trace.macs > effattack_victim.dense_macs) == (columns > 0)).all()
