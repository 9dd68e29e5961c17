"""Published attacks on generators of other kinds: what thinks first, and what reads apart."""

from __future__ import annotations

import pytest
import test_encoder_decoder
import test_reasoner
import torch
from test_generators import prompts

from effattack import attacks
from effattack.errors import NotApplicable
from effattack.models_zoo.generation.writer import Writer

MADE = {
    "reads apart": test_encoder_decoder.translator,
    "thinks first": test_reasoner.reasoner,
}
APPLY = [
    *(("reads apart", name) for name in ("AutoSlow", "Engorgio", "NMTSloth", "VerboseSamples")),
    *(("thinks first", name) for name in ("AutoSlow", "Engorgio", "LoopLLM", "NMTSloth")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), APPLY)
def test_what_is_found_is_in_the_budget_and_no_cheaper(kind: str, name: str) -> None:
    victim, asked = MADE[kind](), prompts(5, longest=4)
    attack = attacks.build(f"{name}(threat='suffix:2')", victim)
    found = attack(asked)
    assert attack.threat.contains(found, asked).all()
    with torch.no_grad():
        before, after = (victim.spent(victim.trace(batch)) for batch in (asked, found))
    assert (after >= before).all()
    assert after.sum() > before.sum()


def test_nothing_can_be_repeated_in_another_vocabulary() -> None:
    victim: Writer = MADE["reads apart"]()
    with pytest.raises(NotApplicable, match="writes in another vocabulary than it reads: LoopLLM"):
        attacks.build("LoopLLM(threat='suffix:2')", victim)
    stages = attacks.AutoSlow(victim, threat="suffix:2").stages
    joined = [type(stage.objective).__name__ for stage in stages]
    assert "NeitherEndNorWritten" in joined
    assert "Repeating" not in joined
