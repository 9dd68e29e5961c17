"""What a notebook and a prompt show of a result: its scores, not its rows."""

from __future__ import annotations

import pytest
import torch
from toys import LinearSaver, grey_images

from effattack import evaluate
from effattack.results.evaluation import Evaluation


@pytest.fixture(scope="module")
def result() -> Evaluation:
    victim, images = LinearSaver(), grey_images(8)
    with torch.no_grad():
        labels = victim(images).argmax(1)
    return evaluate(victim, images, labels, ["Slowdown(steps=2)"], timed=0)


def test_a_line_for_each_score(result: Evaluation) -> None:
    head, *lines = repr(result).splitlines()
    shown = ["victim", "attack", "budget", "savings_retained", "macs_ratio", "accuracy"]
    assert head.split() == [*shown, "agreement"]
    assert len(lines) == len(result.scores())
    (attack,) = (line for line in lines if "Slowdown" in line)
    assert attack.split()[1:3] == ["Slowdown(steps=2)", "8/255"]
    retained = result.scores().set_index("attack").savings_retained["Slowdown(steps=2)"]
    assert float(attack.split()[3]) == pytest.approx(retained, abs=5e-4)


def test_a_notebook_shows_a_table(result: Evaluation) -> None:
    html = result._repr_html_()
    assert html.count("<tr") == 1 + len(result.scores())
    assert "<th>savings_retained</th>" in html
