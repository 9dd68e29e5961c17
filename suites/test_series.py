"""Time series: a model stops reading when it is sure, leaves early in depth, or merges tokens.

Its savings are robust if an attacker cannot make it doubt to the end, or keep tokens apart. What
was not read cannot matter: a model that stopped must not know what comes next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from effattack.suites.shared import (
    Suite,
    attacked,
    hears,
    is_staircase,
    pytest_generate_tests,
    reads_series,
)

if TYPE_CHECKING:
    from torch import Tensor

    from effattack.victim import Trace, Victim

__all__ = ["attacked", "pytest_generate_tests"]

VICTIMS = ["cbf_early_gru", "cbf_cnn_exit", "cbf_transformer_merge"]
FEW = 8
READING = "steps"
"""The gate of a victim that decides to read on, a unit per look but the last."""


@pytest.mark.effattack(victims=VICTIMS)
class TestSeries(Suite):
    def covers(self, victim: Victim) -> bool:
        """Whatever mechanism it saves by, unless it writes."""
        return reads_series(victim) and not hears(victim)

    def test_what_was_not_read_does_not_matter(
        self, effattack_victim: Victim, effattack_data: tuple[Tensor, Tensor]
    ) -> None:
        """Where reading stopped, the rest of the series may be anything: same answer, same work."""
        import torch

        from effattack.domains import Series

        victim, series = effattack_victim, effattack_data[0][:FEW]
        with torch.no_grad():
            (*_, gate) = victim.trace(series).gates or (None,)
            if gate is None or gate.name != READING:
                pytest.skip(f"{victim.name} reads every series to its end")
            pieces = 1 + gate.active.shape[1]
            read = -(-(1 + gate.active.sum(1)) * series.shape[2] // pieces)
            changed = series.clone()
            assert isinstance(victim.domain, Series)
            for row, first in zip(changed, read.tolist(), strict=True):
                row[:, first:] = victim.domain.low
            before, after = victim.trace(series), victim.trace(changed)
            assert torch.equal(before.macs, after.macs)
            torch.testing.assert_close(victim(changed), victim(series))

    def test_leaving_later_costs_more(
        self, effattack_victim: Victim, attacked: dict[str, Trace]
    ) -> None:
        """All who leave at one step cost the same, and the next step costs more."""
        if effattack_victim.family != "early exit":
            pytest.skip(f"{effattack_victim.name} does not leave early")
        is_staircase(attacked.values())
