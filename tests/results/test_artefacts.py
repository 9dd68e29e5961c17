"""Scores of artefacts: how far they decide as their twin does, and work that nobody tells."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from toys import LinearSaver, grey_images

from effattack import evaluate
from effattack.errors import MeasurementError, UsageError
from effattack.results.baselines import Baseline
from effattack.results.evaluation import Evaluation
from effattack.results.limits import judge, parse_limit
from effattack.victim.deployed import Deployed

INPUTS, LABELS = grey_images(8), torch.zeros(8, dtype=torch.long)


def scored(doubt: float, counted: bool = True) -> Evaluation:
    """The toy's artefact, whose saver is unsure where its logits differ by less than ``doubt``."""
    twin, artefact = LinearSaver(), LinearSaver(doubt=doubt)

    def run(images: torch.Tensor) -> tuple[Any, dict[str, Any]]:
        trace = artefact.trace(images)
        return trace.logits.numpy(), {"saver": trace.gates[0].active.numpy()}

    def work(images: torch.Tensor) -> torch.Tensor:
        return artefact.trace(images).macs

    deployed = Deployed(twin, run, work if counted else None, name="artefact")
    return evaluate(deployed, INPUTS, LABELS, ["Slowdown"], timed=0)


def row(scores: Any, attack: str) -> Any:
    return scores[scores.attack == attack].iloc[0]


def test_an_artefact_of_the_same_weights_is_its_twin_on_every_row() -> None:
    assert (scored(1.0).scores().twin_agreement == 1).all()


def test_the_share_is_that_of_inputs_between_the_two_thresholds() -> None:
    found = scored(3.0)
    one, other = LinearSaver(), LinearSaver(doubt=3.0)
    same = (one.missing(INPUTS) < 0) == (other.missing(INPUTS) < 0)
    assert 0 < same.double().mean() < 1
    scores = found.scores()
    assert row(scores, "clean").twin_agreement == same.double().mean()
    assert row(scores, "clean").clean_macs == other.trace(INPUTS).macs.mean()
    every = found.samples[found.samples.attack != "uniform"].groupby("sample").as_twin.all()
    assert row(scores, "union").twin_agreement == every.mean()
    (verdict,) = judge(scores, [parse_limit("twin_agreement=.99", fail_below=True)])
    assert not verdict.passed


def test_without_its_work_no_savings_are_stated_and_answers_are_judged() -> None:
    found = scored(1.0, counted=False)
    scores = found.scores()
    assert scores[["macs", "savings_retained", "attack_success", "macs_ratio"]].isna().all().all()
    assert "Slowdown" in set(scores.attack)
    with pytest.raises(MeasurementError, match="no savings can be stated"):
        judge(scores, [])
    assert judge(scores, [parse_limit("twin_agreement=1", fail_below=True)])[0].passed
    with pytest.raises(MeasurementError, match=r"executed work is unknown.*Deployed\(work="):
        judge(scores, [parse_limit("savings_retained=.1", fail_below=True)])
    with pytest.raises(UsageError, match="no baseline of artefact can be kept"):
        Baseline.of(found)


def test_there_is_no_such_score_without_a_twin() -> None:
    found = evaluate(LinearSaver(), INPUTS, LABELS, ["Slowdown"], timed=0).scores()
    assert found.twin_agreement.isna().all()
    with pytest.raises(MeasurementError, match="there is no twin"):
        judge(found, [parse_limit("twin_agreement=1", fail_below=True)])
