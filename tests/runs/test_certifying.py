"""Certificates in the rows of a run: made once, told to the right rows, judged by limits."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from prompts import TokenExits, some_prompts
from toys import LinearSaver, grey_images

import effattack
from effattack.certify.enumeration import enumeration
from effattack.errors import MeasurementError, UsageError
from effattack.results.evaluation import Evaluation
from effattack.results.frame import CERTIFIED
from effattack.results.limits import judge, parse_limit
from effattack.runs import certifying
from effattack.threats import parse_threat
from effattack.victim.smoothed import Smoothed


def scored(victim: effattack.Victim, certify: str | None, **settings: object) -> Evaluation:
    images = grey_images(12)
    labels = victim(images).argmax(1)
    return effattack.evaluate(
        victim, images, labels, ["Slowdown(steps=5)"], timed=0, certify=certify, **settings
    )


def test_rows_and_union_of_the_budget_get_it_and_no_others() -> None:
    prompts, victim = some_prompts(6), TokenExits(sure=0.43)
    labels = torch.zeros(6, dtype=torch.long)
    found = effattack.evaluate(
        victim, prompts, labels, ["noise"], eps="swap:1", timed=0, certify="enumeration"
    )
    exact = enumeration(victim, prompts, parse_threat("swap:1"))
    own = found.samples[found.samples.threat == "swap"]
    for _, rows in own.groupby("attack"):
        assert (rows.certified_work.to_numpy() == exact.most.numpy()).all()
    others = found.samples[found.samples.threat != "swap"]
    assert others[list(CERTIFIED)].isna().all(axis=None)
    scores = found.scores()
    union = scores[scores.kind == "union"].iloc[0]
    assert union.certified_retained == pytest.approx(exact.certified_retained)
    assert union.certified_factor == pytest.approx(exact.certified_factor)
    assert union.savings_retained >= union.certified_retained
    (told,) = found.meta["certificates"][victim.name]
    assert (told["kind"], told["known"], told["error"]) == ("enumeration", 6, 0.0)
    assert json.dumps(found.meta["certificates"])
    held = [check for check in found.checks() if check.check == "certificates"]
    assert [check.passed for check in held] == [True]


def test_limits_judge_it() -> None:
    scores = scored(Smoothed(LinearSaver(), 0.1), "smoothing", eps="l2:.1").scores()
    value = scores[scores.kind == "union"].certified_retained.item()
    assert 0 < value < 1
    kept, lost = parse_limit("certified_retained=0.01", fail_below=True), value + 0.01
    (passed,) = judge(scores, [kept])
    (failed,) = judge(scores, [parse_limit(f"certified_retained={lost}", fail_below=True)])
    assert passed.passed
    assert not failed.passed
    assert "a bound for every attack, l2 0.1" in failed.message
    (factor,) = judge(scores, [parse_limit("certified_factor=1.01", fail_below=False)])
    assert not factor.passed
    bare = scored(LinearSaver(), None).scores()
    with pytest.raises(MeasurementError, match=r"no certificate is known.*--certify"):
        judge(bare, [kept])


def test_where_none_covers_a_note_says_why() -> None:
    found = scored(LinearSaver(), "smoothing")
    assert any("no certificate eps 8/255" in note for note in found.meta["notes"])
    assert found.samples[list(CERTIFIED)].isna().all(axis=None)
    with pytest.raises(UsageError, match="unknown certificate"):
        scored(LinearSaver(), "smooth")


def test_a_cap_says_nothing_of_savings() -> None:
    scores = scored(LinearSaver(), "auto").scores()
    union = scores[scores.kind == "union"].iloc[0]
    assert math.isnan(union.certified_retained)
    assert union.certified_factor == pytest.approx(176 / union.clean_work)


def test_what_is_stored_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = Smoothed(LinearSaver(), 0.1)
    first = scored(victim, "smoothing", eps="l2:.1", out=tmp_path)
    monkeypatch.setattr(certifying, "certify", None)
    again = scored(victim, "smoothing", eps="l2:.1", out=tmp_path)
    columns = ["attack", "sample", *CERTIFIED]
    pd.testing.assert_frame_equal(first.samples[columns], again.samples[columns])
    with pytest.raises(TypeError):
        scored(victim.seeded(1), "smoothing", eps="l2:.1", out=tmp_path)


def test_a_proof_that_a_row_breaks_fails_its_check() -> None:
    found = scored(LinearSaver(), "cap")
    samples = found.samples.assign(certified_work=found.samples.certified_work / 10)
    wanted = certifying.Wanted(_Plan(LinearSaver().name), "linf", 8 / 255, "", None)
    check = certifying._held(samples, wanted)
    assert check.passed is False
    assert "the certificate is wrong" in check.message


class _Plan:
    """What a check reads of a plan: the name of its victim."""

    def __init__(self, name: str) -> None:
        self.about = self
        self.name = name


def test_frames_of_before_load_without(tmp_path: Path) -> None:
    found = scored(LinearSaver(), None)
    found.save(tmp_path)
    old = pd.read_parquet(tmp_path / "samples.parquet").drop(columns=list(CERTIFIED))
    old.to_parquet(tmp_path / "samples.parquet")
    scores = Evaluation.load(tmp_path).scores()
    assert scores.certified_retained.isna().all()
    assert scores.certified_factor.isna().all()
    assert (scores.savings_retained == found.scores().savings_retained).all()
