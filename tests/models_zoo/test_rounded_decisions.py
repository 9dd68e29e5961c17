"""``benchmarks/quantization.py``: which share of the decisions it says has flipped."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from effattack.models_zoo import load
from effattack.models_zoo.criteria import Confidence
from effattack.models_zoo.digits import digits

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NAME = "digits_tinysaver_cascade"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import quantization

    yield quantization
    sys.modules.pop("quantization")


def test_nothing_has_flipped_against_itself(benchmark: Any) -> None:
    images, labels = digits("test")
    victim: Any = load(NAME)
    found = benchmark.clean_scores(victim, benchmark.traced(victim, images), (images, labels))
    assert (found["decisions flipped"], found["images with one"]) == ("0.00%", "0.0%")
    assert benchmark.kept_threshold(victim) == "0.911"


def test_who_is_escalated_anyway_has_not_flipped(benchmark: Any) -> None:
    """A threshold of 1 escalates all: what flips is the rest, and nothing is saved."""
    images, labels = digits("test")
    exact, doubtful = load(NAME), load(NAME)
    doubtful.criterion = Confidence(1.0)
    with torch.no_grad():
        stayed = 1 - exact.trace(images).gates[0].active.double().mean().item()
    found = benchmark.clean_scores(doubtful, benchmark.traced(exact, images), (images, labels))
    assert found["decisions flipped"] == f"{stayed:.2%}"
    assert found["images with one"] == f"{stayed:.1%}"
    assert found["savings"] == "0.0%"


def test_success_is_what_was_taken_back_of_each_form(benchmark: Any) -> None:
    """A saver that is always sure gives nothing away to what fools the one that is not."""
    images, labels = (part[:4] for part in digits("test"))
    forms: dict[str, Any] = {"float32": load(NAME), "sure": load(NAME)}
    forms["sure"].criterion = Confidence(0.0)
    noise, crafted, in_vain = benchmark.attacked_rows(
        forms, "Slowdown(steps=5)", 16 / 255, images, labels
    )
    assert crafted == {"crafted on": "float32", "float32": "1.000", "sure": "0.000"}
    assert noise["float32"] == in_vain["sure"] == "0.000"
