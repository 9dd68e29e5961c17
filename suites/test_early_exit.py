"""Early exits: a network answers at the first of its classifiers that is sure enough.

Its savings are robust if an attacker cannot make it doubt until the end. He drives images over a
staircase, one step per exit; past the last one every exit has been paid for in vain, which costs
more than the network without exits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from effattack.suites.shared import (
    Suite,
    attacked,
    depth,
    is_staircase,
    pytest_generate_tests,
    units,
)

if TYPE_CHECKING:
    from effattack.victim import Trace, Victim

__all__ = ["attacked", "pytest_generate_tests"]

VICTIMS = [
    "digits_cnn_early_exit",
    "digits_cnn_early_exit_hardened",
    "digits_vit_exit",
    "digits_msdnet",
    "digits_cnn_sdn",
]


@pytest.mark.effattack(victims=VICTIMS)
class TestEarlyExit(Suite):
    family = "early exit"

    def test_who_left_is_gone(self, attacked: dict[str, Trace]) -> None:
        """An exit is reached by those whom the one before did not let go, and by nobody else."""
        for trace in attacked.values():
            depth(trace)

    def test_work_is_a_staircase(self, attacked: dict[str, Trace]) -> None:
        """All who leave at one exit cost the same, and the next exit costs more."""
        is_staircase(attacked.values())

    def test_staying_to_the_end_is_the_worst_case(
        self, effattack_victim: Victim, attacked: dict[str, Trace]
    ) -> None:
        """Whoever leaves nowhere costs the declared max: the network and every exit on the way."""
        assert effattack_victim.max_macs >= effattack_victim.dense_macs
        for trace in attacked.values():
            stayed = units(trace).all(1)
            assert (trace.macs[stayed] == effattack_victim.max_macs).all()
