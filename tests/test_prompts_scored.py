"""Inputs that are no images, from attack to report: work, ceilings, controls, timing, counts."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from prompts import CAP, CLASSES, WIDTH, Counted, Decoder, TokenExits, some_prompts

from effattack import Evaluation, evaluate
from effattack.domains.tokens import lengths
from effattack.errors import NotApplicable, UsageError
from effattack.reporting.html import write
from effattack.victim import Victim

PROMPTS = some_prompts(10)
RIVALS = ["noise(threat='suffix:2')", "noise(threat='swap:2')"]


def scored(victim: Victim, timed: int = 3) -> Evaluation:
    labels = victim.task.answer(victim(PROMPTS))
    return evaluate(victim, PROMPTS, labels, RIVALS, timed=timed)


@pytest.fixture(scope="module")
def exits() -> Evaluation:
    return scored(TokenExits())


@pytest.fixture(scope="module")
def decoder() -> Evaluation:
    return scored(Decoder())


def under(evaluation: Evaluation, threat: str, eps: float) -> pd.DataFrame:
    rows = evaluation.samples
    return rows[(rows.threat == threat) & (rows.eps == eps)].sort_values("sample")


@pytest.mark.parametrize(("threat", "eps", "gained"), [("suffix", 2, 2), ("swap", 2, 0)])
def test_the_ceiling_is_that_of_the_longest_prompt_of_the_threat(
    exits: Evaluation, threat: str, eps: float, gained: int
) -> None:
    rows = under(exits, threat, eps)
    most = 2 * WIDTH * CLASSES + (lengths(PROMPTS) + gained) * WIDTH**2
    assert rows.max_macs.tolist() == most.tolist()
    assert (rows.edits <= 2).all()
    assert (rows.macs <= rows.max_macs).all()


def test_savings_are_those_of_the_rows(exits: Evaluation) -> None:
    rows, table = under(exits, "suffix", 2), exits.scores()
    row = table[(table.threat == "suffix") & (table.eps == 2) & (table.attack == "noise")].iloc[0]
    gained, room = rows.macs.sum() - rows.clean_macs.sum(), rows.max_macs.sum()
    assert row.attack_success == pytest.approx(gained / (room - rows.clean_macs.sum()))


def test_controls_are_those_of_prompts(exits: Evaluation) -> None:
    """Noise in the usual budget, ten tokens behind, and in what was asked for; plain texts beside
    it in the usual one, nothing uniform."""
    told = set(zip(exits.samples.attack, exits.samples.threat, exits.samples.eps, strict=True))
    noise = {("noise", "suffix", 10.0), ("noise", "suffix", 2.0), ("noise", "swap", 2.0)}
    plain = {("benign", "suffix", 10.0), ("repetition", "suffix", 10.0)}
    assert told == {("clean", "none", 0.0), *noise, *plain}


def test_calls_on_longer_prompts_are_timed_beside_the_clean_ones(exits: Evaluation) -> None:
    timed = exits.samples[exits.samples.seconds.notna()]
    assert set(timed.threat) == {"none", "suffix", "swap"}


def test_all_invariants_and_self_checks_hold(exits: Evaluation, decoder: Evaluation) -> None:
    for evaluation in (exits, decoder):
        failed = [c for c in evaluation.checks() if not c.passed and "latency" not in c.check]
        assert not failed


def test_a_decoder_is_judged_by_its_passes(decoder: Evaluation) -> None:
    rows = under(decoder, "suffix", 2)
    assert (rows.max_passes == CAP).all()
    assert rows.passes.between(1, CAP).all()
    row = decoder.scores().query("threat == 'suffix' and eps == 2 and attack == 'noise'").iloc[0]
    clean = decoder.samples.query("attack == 'clean'").passes
    assert row.currency == "passes"
    expected = (rows.passes.sum() - clean.sum()) / (CAP * len(rows) - clean.sum())
    assert row.attack_success == pytest.approx(expected)


def test_texts_agree_where_they_begin_with_the_clean_one(decoder: Evaluation) -> None:
    clean = decoder.samples.query("attack == 'clean'").sort_values("sample").prediction.tolist()
    for _, rows in decoder.samples.groupby(["attack", "threat", "eps"]):
        rows = rows.sort_values("sample")
        begins = [
            attacked.split()[: len(said.split())] == said.split()
            for attacked, said in zip(rows.prediction, clean, strict=True)
        ]
        assert rows.same.tolist() == begins


def test_classes_and_texts_are_stored_in_one_file(
    exits: Evaluation, decoder: Evaluation, tmp_path: Path
) -> None:
    both = Evaluation.concat([exits, decoder])
    found = Evaluation.load(both.save(tmp_path)).samples
    for column in ("label", "prediction", "clean_prediction"):
        assert found[column].tolist() == both.samples[column].astype(str).tolist()
    assert found.right.tolist() == both.samples.right.tolist()
    assert isinstance(both.samples.prediction.iloc[0], int), "what is at hand stays as it is"


def test_the_page_speaks_of_prompts(exits: Evaluation, decoder: Evaluation, tmp_path: Path) -> None:
    both = Evaluation.concat([exits, decoder])
    page = write(*both.report(), tmp_path / "page.html").read_text()
    assert "prompt" in page
    assert "suffix" in page


def test_a_count_judges_where_macs_never_move() -> None:
    victim = Counted()
    images = torch.zeros(4, 1, 3, 3)
    images[:, 0, 0] = 130 / 255
    labels = victim.task.answer(victim(images))
    found = evaluate(victim, images, labels, ["Slowdown"], timed=0)
    rows = found.samples.query("attack == 'Slowdown'")
    assert (rows.macs == 18).all()
    by_macs = found.scores().query("attack == 'Slowdown'").iloc[0]
    by_boxes = found.scores(by="boxes").query("attack == 'Slowdown'").iloc[0]
    assert by_macs.macs_ratio == 1
    clean = found.samples.query("attack == 'clean'").boxes
    assert (clean == 3).all()
    assert by_boxes.attack_success == pytest.approx((rows.boxes.sum() - 12) / (9 * 4 - 12))
    with pytest.raises(UsageError, match="pairs"):
        found.scores(by="pairs")


def test_an_attack_of_another_kind_says_which_apply() -> None:
    victim = TokenExits()
    labels = victim.task.answer(victim(PROMPTS))
    found = evaluate(victim, PROMPTS, labels, ["ILFO", "noise"], timed=0)
    (skipped,) = found.meta["skipped"]
    assert skipped["attack"] == "ILFO"
    assert skipped["reason"] == (
        "ILFO changes arrays, token_exits takes prompts; Slowdown, AutoSlow and QueryAttack apply"
    )
    with pytest.raises(NotApplicable, match="changes arrays, which prompts are not"):
        evaluate(victim, PROMPTS, labels, ["noise"], eps=8 / 255, timed=0)
