"""``benchmarks/smollm2.py`` on a small generator: what is counted, when it ends, what it prints."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
from test_generators import CAP, generator, prompts

from effattack.attacks import build
from effattack.attacks.effort import metered
from effattack.domains.tokens import lengths
from effattack.threats import parse_threat

CLEAN = prompts(4, seed=23).clamp_min(1)[:, :4]
"""One is written after up to the cap as it stands."""


@pytest.fixture
def smollm2(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module; its own folder is on the path when it runs."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import smollm2

    return smollm2


@pytest.mark.parametrize("threat", ["suffix:2", "swap:1"])
def test_effort_is_that_of_every_prompt(smollm2: ModuleType, threat: str) -> None:
    budget, victim = parse_threat(threat), generator()
    counted = smollm2.Counted.of(victim, CLEAN)
    build("Slowdown(steps=10)", counted, budget)(CLEAN)
    together, effort = metered(victim)
    build("Slowdown(steps=10)", together, budget)(CLEAN)
    assert counted.taken.sum().item() == effort.tokens
    assert len(counted.taken.unique()) > 1


def test_engorgio_pays_for_the_text_that_it_descends(smollm2: ModuleType) -> None:
    counted = smollm2.Counted.of(generator(), CLEAN)
    text = counted.read_by(torch.ones(4, 3, dtype=torch.long)).detach()
    counted.continued(CLEAN, text)
    assert counted.taken.tolist() == [0] * 4
    counted.continued(CLEAN, text.requires_grad_())
    assert counted.taken.tolist() == [3 * (4 + 2)] * 4


@pytest.mark.parametrize("attack", ["Slowdown(steps=5)", "BestOfRandom(draws=3)"])
def test_an_attack_ends_at_the_cap_or_when_its_effort_is_spent(
    smollm2: ModuleType, attack: str
) -> None:
    victim, least = generator(), torch.full((4,), 300.0)
    cells = [smollm2.Cell("swap:1", attack, row, CAP) for row in range(4)]
    found, taken = smollm2.searched(victim, cells, CLEAN, least)
    passes = victim.trace(found).also["passes"]
    assert (passes >= victim.trace(CLEAN).also["passes"]).all()
    assert (found != CLEAN).sum(1).max() == 1
    spent = torch.tensor([one["effort"] for one in taken])
    assert ((passes == CAP) | (spent >= least)).all()
    assert (passes == CAP).any()


def test_rows_tell_what_the_deployed_path_did(smollm2: ModuleType) -> None:
    class Numbers:
        def decode(self, ids: list[int]) -> str:
            return " ".join(map(str, ids))

    victim = generator()
    victim.domain.tokenizer = Numbers()  # type: ignore[assignment]
    rows, trace = smollm2.told(victim, CLEAN), victim.trace(CLEAN)
    assert [row["passes"] for row in rows] == lengths(victim(CLEAN)).tolist()
    assert [row["macs"] for row in rows] == trace.macs.tolist()
    assert [row["capped"] for row in rows] == trace.aux["capped"].tolist()
    assert rows[0]["asked"] == " ".join(map(str, CLEAN[0].tolist()))


def test_the_table_counts_hits_and_compares_with_the_same_questions(smollm2: ModuleType) -> None:
    cell, short, long = smollm2.Cell, smollm2.CAP, smollm2.LONGER
    rows = {}
    for one, passes, macs in [
        (cell("", "clean", 0), 10, 100),
        (cell("", "clean", 1), 20, 300),
        (cell("suffix:1", "mine", 1), short, 900),
        (cell("suffix:1", "mine", 1, long), 200, 1000),
    ]:
        capped = passes == one.cap
        row = {"passes": passes, "macs": macs, "capped": capped, "effort": 1200}
        rows[one] = one._asdict() | row
    clean, mine = smollm2.table(rows).to_dict("records")
    assert clean[f"at the cap of {short}"] == "0 of 2"
    assert clean["passes"] == "15.0"
    assert (mine[f"at the cap of {short}"], mine["MACs"]) == ("1 of 1", "×3.00")
    assert mine["tokens of effort"] == "1,200"
    assert mine[f"at the cap of {long}"] == "0 of 1"
    assert mine[f"passes, cap {long}"] == "200.0"
