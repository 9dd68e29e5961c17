"""A victim that is judged by passes: every face names them, and its MACs beside."""

from __future__ import annotations

import io
import re

import frames
import pytest
from prompts import CAP, Decoder, TokenExits, some_prompts
from rich.console import Console

from effattack import Evaluation, evaluate
from effattack.cli.terminal import print_scores
from effattack.pytest_plugin.summary import _row, worst
from effattack.reporting.card import card
from effattack.reporting.charts import figures
from effattack.reporting.html import render
from effattack.reporting.markdown import summary
from effattack.reporting.verdict import verdicts
from effattack.reporting.words import NBSP
from effattack.reporting.work import told
from effattack.victim import Victim

PROMPTS = some_prompts(10)


def scored(victim: Victim) -> Evaluation:
    labels = victim.task.answer(victim(PROMPTS))
    attacks = ["QueryAttack(queries=6)"]
    return evaluate(victim, PROMPTS, labels, attacks, eps="suffix:2", timed=0)


@pytest.fixture(scope="module")
def decoder() -> Evaluation:
    return scored(Decoder())


def faces(evaluation: Evaluation, victim: str = "decoder") -> dict[str, str]:
    screen = io.StringIO()
    print_scores(evaluation, Console(file=screen, width=200), verbose=False)
    samples, scores, meta = evaluation.report()
    page = re.sub(r"</?b>", "", render(samples, scores, meta))
    found = {
        "terminal": screen.getvalue(),
        "pytest": "  ".join(_row(victim, worst(evaluation)[victim], ["passed"])),
        "markdown": summary(scores, meta),
        "card": card(samples, scores, meta),
        "report": page,
    }
    return {face: text.replace(NBSP, " ") for face, text in found.items()}


def test_every_face_tells_passes_and_macs_beside(decoder: Evaluation) -> None:
    union = decoder.scores().query("kind == 'union'").iloc[0]
    assert union.work > union.clean_work
    moved, ratio = f"{union.clean_work:.1f} → {union.work:.1f}", f"×{union.equals_n_requests:.2f}"
    found = faces(decoder)
    assert f"clean {union.clean_work:.1f}, max {CAP} passes per prompt" in found["terminal"]
    assert f"{moved} of {CAP} passes (MACs ×{union.macs_ratio:.2f})" in found["pytest"]
    assert f"| {moved} | {CAP} | {ratio} (MACs ×{union.macs_ratio:.2f}) |" in found["markdown"]
    assert "| passes per prompt, clean → attacked | max passes |" in found["markdown"]
    sentence = f"clean, {union.work:.1f} attacked ({ratio}), max {CAP} |"
    assert f"| Passes per prompt | {union.clean_work:.1f} {sentence}" in found["card"]
    assert "| Ended by the cap | " in found["card"]
    assert f"<dt>passes per prompt</dt><dd>{moved}</dd>" in found["report"]
    assert "Where the passes went" in found["report"]
    for face in ("terminal", "card", "report"):
        assert ratio in found[face], face
        assert f"×{union.macs_ratio:.2f}" in found[face], face


def test_runs_at_the_cap_are_said_beside_the_mean(decoder: Evaluation) -> None:
    found = faces(decoder)
    for face in ("terminal", "markdown", "report"):
        assert "such runs are censored" in found[face], face


def test_examples_show_what_was_written_and_what_ended_it(decoder: Evaluation) -> None:
    page = faces(decoder)["report"]
    shown = decoder.samples.query("attack == 'QueryAttack(queries=6)' and image.notna()")
    assert page.count("written, attacked, ended by the cap") == shown.capped.sum()
    assert page.count("written, clean, ended by the cap") == shown.clean_capped.sum()
    assert page.count("ended by itself") == 2 * len(shown) - shown.capped.sum() - (
        shown.clean_capped.sum()
    )
    for text in shown.prediction:
        assert f'<p class="ids text">{text}</p>' in page


def test_curves_over_caps_are_drawn_of_generators_alone(decoder: Evaluation) -> None:
    def drawn(evaluation: Evaluation) -> set[str]:
        samples, scores, meta = evaluation.report()
        (verdict,) = verdicts(scores, meta)
        return {figure.slug for figure in figures(samples, scores, verdict).figures}

    assert {"cap_passes", "cap_hits", "passes"} <= drawn(decoder)
    assert not {"cap_passes", "cap_hits"} & drawn(scored(TokenExits()))


def test_the_max_that_is_told_is_that_of_the_longest_prompts_of_the_threat() -> None:
    exits = scored(TokenExits())
    clean, union = (
        exits.scores().query(f"attack == '{name}'").iloc[0] for name in ("clean", "union")
    )
    assert union.max_macs > clean.max_macs
    most = told(union.to_dict()).most.replace(NBSP, " ")
    assert f", max {most} per prompt" in faces(exits, "token_exits")["terminal"]


def test_judged_by_macs_it_is_told_in_macs(decoder: Evaluation) -> None:
    found = faces(decoder.judged_by("macs"))
    assert "| MACs per prompt, clean → attacked | max MACs |" in found["markdown"]
    assert "passes per prompt</dt>" not in found["report"]
    assert "passes" not in found["pytest"]


def test_victims_of_two_currencies_stand_in_one_table(decoder: Evaluation) -> None:
    found = faces(Evaluation.concat([decoder, scored(TokenExits())]))
    assert "| work per prompt, clean → attacked | max work |" in found["markdown"]
    assert f"| {CAP} passes |" in found["markdown"]
    assert "Where the work went" in found["report"]
    assert "Counted in" in found["report"]


def test_a_report_of_images_has_none_of_it() -> None:
    rows = frames.samples(8)
    page = render(rows, frames.scores(rows), frames.meta())
    for word in ("At the cap", "per token sent", "passes per", "Counted in", "censored"):
        assert word not in page
