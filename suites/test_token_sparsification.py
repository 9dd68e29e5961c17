"""Token sparsification: a vision transformer drops the tokens that seem not to matter.

Its savings are robust if an attacker cannot make every token matter. What he can take back is
bounded by a forward pass over all tokens plus the price of deciding, which may exceed the dense
model. A fixed rate leaves him nothing: which tokens go depends on the image, how many does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from effattack.suites.shared import Suite, attacked, pytest_generate_tests

if TYPE_CHECKING:
    from effattack.results.evaluation import Evaluation
    from effattack.victim import Trace, Victim

__all__ = ["attacked", "pytest_generate_tests"]

ADAPTIVE = [
    "digits_vit_ats",
    "digits_vit_avit",
    "digits_vit_adavit",
    "digits_vit_dynamicvit",
]
FIXED_RATE = ["digits_vit_evit", "digits_vit_tome", "digits_vit_dynamicvit_topk"]


@pytest.mark.effattack(victims=ADAPTIVE + FIXED_RATE)
class TestTokenSparsification(Suite):
    family = "token sparsification"

    def test_it_decides_token_by_token(
        self, effattack_victim: Victim, attacked: dict[str, Trace]
    ) -> None:
        """Every input is decided on in parts; or in none, at a fixed rate."""
        trace = attacked["clean"]
        several = any(gate.active.shape[1] > 1 for gate in trace.gates)
        assert effattack_victim.constant != several

    def test_a_fixed_rate_gives_nothing_away(
        self, effattack_victim: Victim, effattack_evaluation: Evaluation
    ) -> None:
        """Not one MAC moves, under no attack and on no input."""
        if not effattack_victim.constant:
            pytest.skip(f"{effattack_victim.name} adapts to the input")
        samples = effattack_evaluation.samples
        assert samples.macs.nunique() == 1
        assert (samples.macs == samples.max_macs).all()

    def test_every_dropped_token_saves(
        self, effattack_victim: Victim, attacked: dict[str, Trace]
    ) -> None:
        """Whoever drops a token costs less than the max; an attacker must bring back them all."""
        for trace in attacked.values():
            for gate in trace.gates:
                dropped = ~gate.active.all(1)
                assert (trace.macs[dropped] < effattack_victim.max_macs).all(), gate.name
