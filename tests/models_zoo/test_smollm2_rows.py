"""``benchmarks/smollm2*.py`` on a small generator: what is counted, when it ends, what is shown."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from test_generators import CAP, generator, prompts
from torch import Tensor

from effattack.attacks import build
from effattack.attacks.effort import metered
from effattack.domains.tokens import lengths
from effattack.models_zoo import Generator
from effattack.threats import parse_threat

CLEAN = prompts(4, seed=23).clamp_min(1)[:, :4]
"""One is written after up to the cap as it stands."""
OTHERS = prompts(6, seed=5).clamp_min(1)[:, :4]
SUFFIX = parse_threat("suffix:1")


class Numbers:
    """The text of ids is their numbers."""

    def encode(self, text: str) -> list[int]:
        return [int(number) for number in text.split()]

    def decode(self, ids: list[int]) -> str:
        return " ".join(map(str, ids))


def with_words() -> Generator:
    victim = generator()
    victim.domain.tokenizer = Numbers()
    return victim


@pytest.fixture
def smollm2(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module; its own folder is on the path when it runs."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import smollm2

    return smollm2


@pytest.fixture
def smollm2_words(smollm2: ModuleType) -> ModuleType:
    """What it tries first."""
    import smollm2_words

    return smollm2_words


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
    victim = with_words()
    rows, trace = smollm2.told(victim, CLEAN), victim.trace(CLEAN)
    assert [row["passes"] for row in rows] == lengths(victim(CLEAN)).tolist()
    assert [row["macs"] for row in rows] == trace.macs.tolist()
    assert [row["capped"] for row in rows] == trace.aux["capped"].tolist()
    assert rows[0]["asked"] == " ".join(map(str, CLEAN[0].tolist()))


def behind(clean: Tensor, word: int) -> Tensor:
    return torch.cat([clean, torch.full((len(clean), 1), word)], 1)


def test_words_are_kept_that_make_other_questions_go_on(
    smollm2_words: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smollm2_words, "WORDS", (9, 4, 2))
    victim = with_words()
    rows = smollm2_words.fitted(victim, SUFFIX.on(victim.domain), OTHERS)
    stages = [len(row["passes"]) // 2 for row in rows]
    assert stages == sorted(stages, reverse=True)
    assert stages.count(3) == 2
    assert stages.count(2) == 2
    for row, stage in zip(rows, stages, strict=True):
        trace = victim.trace(behind(OTHERS[: 2 * stage], row["word"]))
        assert row["passes"] == trace.also["passes"].tolist()
        assert row["effort"] == sum(row["passes"]) + 2 * stage * 4
        dropped = [other for other in rows if len(other["passes"]) < 2 * stage]
        first = 2 * stage - 2
        assert all(sum(row["passes"][:first]) >= sum(o["passes"][:first]) for o in dropped)


def test_words_that_were_kept_are_tried_before_the_house_attack(
    smollm2: ModuleType,
    smollm2_words: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    victim, rows = with_words(), tmp_path / "words.jsonl"
    monkeypatch.setattr(smollm2_words, "ROWS", rows)
    monkeypatch.setattr(smollm2, "CHOSEN_ON", ("1 2 3 4",))
    rows.write_text("".join(json.dumps({"word": word}) + "\n" for word in range(1, 10)))
    cells = [smollm2.Cell("suffix:1", smollm2.CARRIED, row, CAP) for row in range(4)]
    most = torch.stack([victim.trace(behind(CLEAN, word)).also["passes"] for word in range(1, 9)])
    found, taken = smollm2.searched(victim, cells, CLEAN, torch.ones(4))
    assert victim.trace(found).also["passes"].tolist() == most.amax(0).tolist()
    assert [one["runs"] for one in taken] == [1] * 4
    assert [one["effort"] for one in taken] == (most.sum(0) + 8 * 4).tolist()
    hard = most.amax(0) < CAP
    _, longer = smollm2.searched(victim, cells, CLEAN, torch.full((4,), 300.0))
    assert all(one["runs"] > 2 for one, is_hard in zip(longer, hard, strict=True) if is_hard)


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
