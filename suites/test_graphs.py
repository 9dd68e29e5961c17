"""Queries to a graph: a model reads the neighbourhood edge by edge until its answer is sure.

Its savings are robust if an attacker who adds a few edges cannot keep it in doubt. A neighbourhood
of more edges costs more whatever is decided, so that work is compared among those of one make.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from effattack.suites.shared import Suite, asks_a_graph, attacked, pytest_generate_tests, units

if TYPE_CHECKING:
    from torch import Tensor

    from effattack.victim import Trace, Victim

__all__ = ["attacked", "pytest_generate_tests"]

VICTIMS = ["family_links"]
FEW = 8


@pytest.mark.effattack(victims=VICTIMS)
class TestGraphs(Suite):
    def covers(self, victim: Victim) -> bool:
        """Whatever mechanism it saves by."""
        return asks_a_graph(victim)

    def test_opening_gates_never_saves_work(  # type: ignore[override]
        self,
        effattack_victim: Victim,
        effattack_data: tuple[Tensor, Tensor],
        attacked: dict[str, Trace],
    ) -> None:
        """Of neighbourhoods that would cost the same to the end, one that was read on from
        wherever another was, cost no less."""
        import torch

        victim, queries = effattack_victim, effattack_data[0]
        with torch.no_grad():
            trace = victim.trace(queries)
        if not trace.gates:
            pytest.skip("it has no gates")
        most, active = victim.ceiling(queries), units(trace).double()
        only_first = active @ (1 - active).T
        covered = (only_first.T == 0) & (most[:, None] == most[None, :])
        cheaper = covered & (trace.macs[:, None] < trace.macs[None, :])
        assert not cheaper.any(), f"{int(cheaper.sum())} pairs cost less with more open"

    def test_what_was_not_read_does_not_matter(
        self, effattack_victim: Victim, effattack_data: tuple[Tensor, Tensor]
    ) -> None:
        """Where a query holds no edges but those that were read, it has the same answer."""
        import torch

        from effattack.domains import Graph
        from effattack.domains.tokens import PAD

        victim, queries = effattack_victim, effattack_data[0]
        assert isinstance(victim.domain, Graph)
        with torch.no_grad():
            trace = victim.trace(queries)
            if "edges" not in trace.also:
                pytest.skip(f"{victim.name} does not tell how many edges it reads")
            hops = victim.domain.reach(queries).hops
            order = hops.where(hops > 0, 3).argsort(dim=1, stable=True).argsort(dim=1)
            read = order < trace.also["edges"][:, None]
            read[:, 0] = True
            shorter = victim.domain.distinct(queries.where(read, PAD))
            torch.testing.assert_close(victim(shorter), victim(queries))

    def test_padding_costs_nothing_and_changes_no_answer(
        self, effattack_victim: Victim, effattack_data: tuple[Tensor, Tensor]
    ) -> None:
        """Each query alone, without padding, has the same answer and costs the same."""
        import torch

        victim, queries = effattack_victim, effattack_data[0][:FEW]
        with torch.no_grad():
            together = victim.trace(queries)
            for row, single in enumerate(victim.domain.singles(queries)):
                alone = victim.trace(single)
                assert alone.macs == together.macs[row]
                assert alone.logits.argmax() == together.logits[row].argmax()

    def test_nobody_costs_more_than_the_ceiling(
        self, effattack_victim: Victim, effattack_data: tuple[Tensor, Tensor]
    ) -> None:
        """Clean queries, and the same with as many edges as there may be, stay below it."""
        import torch

        victim, queries = effattack_victim, effattack_data[0][:FEW]
        for batch in (queries, victim.domain.stretched(queries)):
            with torch.no_grad():
                assert (victim.trace(batch).macs <= victim.ceiling(batch)).all()
