"""How scores are said: above 100 % retained, latencies that are no measurement, empty cells."""

from __future__ import annotations

import io
from math import nan

import frames
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from effattack.cli.terminal import print_scores
from effattack.pytest_plugin.summary import _row, worst
from effattack.reporting import words
from effattack.reporting.card import card
from effattack.reporting.html import render
from effattack.reporting.latency import timings
from effattack.reporting.markdown import summary
from effattack.results.evaluation import Evaluation

VICTIM = "digits_vit_ats"
NB = words.NBSP


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.164, f"16.4{NB}%"),
        (1.0, f"100.0{NB}%"),
        (1 + 1e-12, f"100.0{NB}%"),
        (1.001, "cheaper than clean"),
        (4.0, "cheaper than clean"),
        (-0.02, f"−2.0{NB}%"),
        (nan, "–"),
        (None, "–"),
    ],
)
def test_savings_above_all_of_them(value: float, said: str) -> None:
    assert words.retained(value) == said


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.28, 0.38, f"28 to 38{NB}%"),
        (0.94, 1.07, f"94{NB}% to cheaper than clean"),
        (1.5, 4.0, "cheaper than clean"),
        (nan, nan, ""),
    ],
)
def test_intervals_of_savings(low: float, high: float, said: str) -> None:
    assert words.span(low, high) == said


@pytest.mark.parametrize(
    ("value", "like", "said"),
    [
        (22.3, 32_640.0, "22.3"),
        (18.0, 32_640.0, "18"),
        (1787.5, 32_640.0, f"1.8{NB}k"),
        (32_640.0, 32_640.0, f"32.6{NB}k"),
        (7.25, None, "7.2"),
        (nan, 5.0, "–"),
    ],
)
def test_a_count_beside_a_much_larger_one(value: float, like: float | None, said: str) -> None:
    assert words.work(value, like) == said


def row(ratio: float, low: float, high: float) -> dict[str, float]:
    return {"latency_ratio": ratio, "latency_low": low, "latency_high": high}


@pytest.mark.parametrize(
    ("ratio", "low", "high", "said"),
    [
        (1.214, 1.15, 1.27, "×1.21 (1.15 to 1.27)"),
        (1.2, nan, nan, "×1.20 (too few images)"),
        (nan, nan, nan, "–"),
        (
            nan,
            0.98,
            3.26,
            "not measured: its interval, 0.98 to 3.26, is wider than a factor of 1.5",
        ),
    ],
)
def test_latencies(ratio: float, low: float, high: float, said: str) -> None:
    assert words.latency(row(ratio, low, high), "images") == said


def faces(evaluation: Evaluation) -> dict[str, str]:
    """All that prints scores."""
    screen = io.StringIO()
    print_scores(evaluation, Console(file=screen, width=200), verbose=False)
    samples, scores, meta = evaluation.report()
    facts = worst(evaluation)[VICTIM]
    return {
        "terminal": screen.getvalue(),
        "pytest": "  ".join(_row(VICTIM, facts, ["passed"])),
        "markdown": summary(scores, meta),
        "card": card(samples, scores, meta),
        "report": render(samples, scores, meta),
    }


@pytest.fixture(scope="module")
def samples() -> pd.DataFrame:
    found = frames.samples(8)
    return found[found.victim == VICTIM]


def test_every_face_says_cheaper_than_clean(samples: pd.DataFrame) -> None:
    """Of rows; the verdict never is, as the clean input lies inside every budget."""
    cheaper = Evaluation(samples.assign(macs=samples.clean_macs / 2), frames.meta())
    found = faces(cheaper)
    assert "cheaper than clean" not in found["pytest"]
    assert "cheaper" in found["terminal"], "in two lines of a narrow column"
    assert "than clean" in found["terminal"]
    for face in ("markdown", "report"):
        assert "cheaper than clean" in found[face], face


def test_every_face_says_why_a_latency_was_not_measured(samples: pd.DataFrame) -> None:
    order = samples.groupby(["attack", "threat", "eps", "seed"]).cumcount()
    seconds = np.where(order % 2, 3e-3, 1e-3)
    wide = Evaluation(
        samples.assign(seconds=seconds, clean_seconds=1e-3, clock="wall", batch_size=1),
        frames.meta(),
    )
    for face, text in faces(wide).items():
        assert "not measured" in text, face
        assert "1.00 to 3.00" in text, face
    for timing in timings(wide.scores(), {}):
        assert timing.verdict.startswith("not measured: its interval, 1.00 to 3.00, is wider")
        assert (timing.latency, timing.mean, timing.p95) == ("–", "×2.00", "×3.00")
        assert timing.plot is None


def test_a_bound_that_reads_1_is_no_slowdown(samples: pd.DataFrame) -> None:
    near = samples.assign(seconds=1.004e-3, clean_seconds=1e-3, clock="wall", batch_size=1)
    said = {one.verdict for one in timings(Evaluation(near, {}).scores(), {})}
    assert said == {"not significant on this device"}


def test_where_nothing_was_saved_every_face_says_so(samples: pd.DataFrame) -> None:
    vacuous = samples.assign(macs=samples.max_macs, clean_macs=samples.max_macs)
    found = faces(Evaluation(vacuous, frames.meta()))
    found.pop("terminal")
    for face, text in found.items():
        assert "othing was saved" in text, face
        assert "max MACs are not known" not in text, face
