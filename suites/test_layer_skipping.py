"""Layer skipping: a gate before every block decides whether the image goes through it.

Its savings are robust if an attacker cannot open the gates. Unlike exits, gates stand side by
side: each can be opened without the others, so he gains block by block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from effattack.suites.shared import Suite, attacked, pytest_generate_tests, units

if TYPE_CHECKING:
    from effattack.victim import Trace, Victim

__all__ = ["attacked", "pytest_generate_tests"]


@pytest.mark.effattack(victims=["digits_skipnet"])
class TestLayerSkipping(Suite):
    family = "layer skipping"

    def test_every_block_is_decided_on(self, attacked: dict[str, Trace]) -> None:
        """One decision per block and input; what one gate skips, the next still decides on."""
        for trace in attacked.values():
            for gate in trace.gates:
                assert gate.active.shape[1] == 1, f"{gate.name} decides on parts of an input"
                assert gate.reached.all(), f"{gate.name} was not asked for every input"

    def test_the_same_blocks_cost_the_same(self, attacked: dict[str, Trace]) -> None:
        """Work follows from the set of open gates, whatever input or attack opened them."""
        costs: dict[tuple[bool, ...], float] = {}
        for trace in attacked.values():
            for opened, macs in zip(units(trace).tolist(), trace.macs.tolist(), strict=True):
                assert costs.setdefault(tuple(opened), macs) == macs

    def test_no_block_skipped_is_the_worst_case(
        self, effattack_victim: Victim, attacked: dict[str, Trace]
    ) -> None:
        """All blocks and all gates cost the max, and nothing costs more."""
        for trace in attacked.values():
            everything = units(trace).all(1)
            assert (trace.macs[everything] == effattack_victim.max_macs).all()
            assert (trace.macs <= effattack_victim.max_macs).all()
