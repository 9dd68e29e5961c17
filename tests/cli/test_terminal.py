"""Progress on a terminal and in a log, fed by real attacks."""

from __future__ import annotations

import argparse
import io

import pandas as pd
import pytest
from rich.console import Console
from toys import LinearSaver, grey_images

from effattack import Evaluation, evaluate
from effattack.attacks.objectives import Step
from effattack.cells.planning import plan
from effattack.cells.spec import CellSpec, Timed
from effattack.cells.store import Memory
from effattack.cli import listing
from effattack.cli.terminal import Bar, Log, Screen, print_scores, progress_bar
from effattack.runs.executors.in_process import InProcess
from effattack.runs.scheduling import execute

ATTACKS = ["Slowdown(steps=5)", "UniversalSlowdown(epochs=2)", "QueryAttack(queries=7)"]


def run(shown: Log) -> list[tuple[CellSpec, Step]]:
    """Attack a toy; what was told of the steps."""
    images, told = grey_images(24), []
    labels = images[:, 0, 0, 0].long()

    def watch(spec: CellSpec, step: Step) -> None:
        shown.step(spec, step)
        told.append((spec, step))

    planned = plan(
        LinearSaver(), images[:8], labels[:8], ATTACKS, timed=Timed(0), fit=(images[8:], labels[8:])
    )  # fmt: skip
    with shown.of(sum(cell.macs for cell in planned.cells)):
        execute([planned], Memory(), InProcess(watch), pytest.fail, shown.advance)
    return told


def test_every_step_is_told_with_its_cell() -> None:
    told = run(Log(Console(file=io.StringIO())))
    assert {spec.attack for spec, _ in told} == set(ATTACKS)
    for attack, steps in zip(ATTACKS, (5, None, 7), strict=True):
        own = [step for spec, step in told if spec.attack == attack]
        assert own, attack
        if steps is not None:
            assert {step.steps for step in own} == {steps}


def test_a_bar_shows_the_step_of_the_attack_that_runs() -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=120)
    bar = progress_bar(terminal)
    assert isinstance(bar, Bar)
    said = []
    before = bar.step

    def step(spec: CellSpec, at: Step) -> None:
        before(spec, at)
        said.append(bar.progress.tasks[0].description)

    bar.step = step  # type: ignore[method-assign]
    run(bar)
    assert any(text.endswith(": Slowdown(steps=5), step 0 of 5") for text in said)
    assert bar.progress.tasks[0].percentage == pytest.approx(100)


def test_a_log_has_a_line_per_cell_and_none_per_step() -> None:
    log = io.StringIO()
    shown = progress_bar(Console(file=log, width=200))
    assert not isinstance(shown, Bar)
    told = run(shown)
    lines = log.getvalue().splitlines()
    assert lines[-1].startswith("100%")
    assert sum("Slowdown(steps=5)" in line for line in lines) == 1 < len(told)


@pytest.fixture(scope="module")
def scored() -> Evaluation:
    """A toy under an attack of a long name, and others that cannot apply."""
    attacks = ["Slowdown(steps=1, threat='linf:0.0313725490196078')", "DeSparsify", "QuantAttack"]
    images = grey_images(6)
    return evaluate(LinearSaver(), images, images[:, 0, 0, 0].long(), attacks, timed=0)


def printed(scored: Evaluation, width: int, verbose: bool = False) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_scores(scored, console, verbose)
    return console.file.getvalue()


def test_a_long_name_gives_way_to_the_numbers(scored: Evaluation) -> None:
    told = printed(scored, 80)
    assert "…" not in told
    for ratio in scored.scores().macs_ratio:
        assert f"×{ratio:.2f}" in told


def test_eighty_columns_hold_every_number(scored: Evaluation) -> None:
    """A row that is cheaper than clean, and a latency with its interval."""
    rows = scored.samples.assign(seconds=1.01, clean_seconds=1.0, clock="wall", batch_size=1)
    cheaper = rows[rows.attack == "noise"].assign(macs=lambda noise: noise.clean_macs / 2)
    rows = pd.concat([rows[rows.attack != "noise"], cheaper])
    told = printed(Evaluation(rows, scored.meta), 80)
    assert "than clean" in told
    assert told.count("×1.01 (1.01 to 1.01)") == rows.attack.nunique()


def test_eighty_columns_hold_a_budget_in_words(scored: Evaluation) -> None:
    rows = scored.samples.assign(seconds=1.01, clean_seconds=1.0, clock="wall", batch_size=1)
    ours = rows.threat == "linf"
    rows = rows.assign(threat=rows.threat.where(~ours, "suffix"), eps=rows.eps.where(~ours, 10.0))
    about = {"toy": {**scored.meta["victims"]["toy"], "domain": {"kind": "tokens"}}}
    told = printed(Evaluation(rows, {**scored.meta, "victims": about}), 80)
    assert "suffix 10" in told
    assert told.count("×1.01 (1.01 to 1.01)") == rows.attack.nunique()


@pytest.mark.parametrize(("no_color", "yellow"), [("", True), ("1", False)])
def test_no_color_is_kept(no_color: str, yellow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm-256color")
    screen = Screen(file=io.StringIO(), force_terminal=True)
    screen.print("but", style="yellow")
    assert ("\x1b[33m" in screen.file.getvalue()) is yellow


def test_what_was_skipped_is_a_line_per_victim(scored: Evaluation) -> None:
    reasons = [skip["reason"] for skip in scored.meta["skipped"]]
    assert len(reasons) == 2
    short = [line for line in printed(scored, 300).splitlines() if "skipped" in line]
    assert short == ["skipped on toy: DeSparsify, QuantAttack (--verbose and the report say why)"]
    whole = printed(scored, 300, verbose=True)
    assert all(reason in whole for reason in reasons)


def test_what_failed_on_some_inputs_is_told_with_how_often(scored: Evaluation) -> None:
    failed = [{"victim": "toy", "attack": name, "reason": "down"} for name in ("noise", "clean")]
    told = Evaluation(scored.samples, {**scored.meta, "skipped": [*failed, failed[0]]})
    assert "skipped on toy: noise (2 times), clean (--verbose" in printed(told, 300)


def listed(**settings: bool) -> list[str]:
    console = Console(file=io.StringIO(), width=200, color_system=None, **settings)
    assert listing.run(argparse.Namespace(what="victims"), console) == 0
    return console.file.getvalue().splitlines()


def test_victims_are_listed_by_family_on_a_terminal_and_line_by_line_in_a_pipe() -> None:
    piped, shown = listed(), listed(force_terminal=True)
    assert piped == sorted(piped)
    names = [line.split()[0] for line in piped]
    assert not any(line.startswith(" ") for line in piped)
    assert sorted(line.strip() for line in shown if line.startswith("  ")) == piped
    families = [line for line in shown if not line.startswith(" ")]
    assert families == sorted(families), "all registered here are ours"
    found = listing.by_family(dict.fromkeys(names, "effattack.models_zoo"))
    assert "digits_esn" in found["cascade"]
    assert "digits_vit_ats" in found["token sparsification"]
    assert "scenes_detector" in found["detection"]


def test_victims_of_other_packages_come_last_whatever_they_are_called() -> None:
    victims = {
        "digits_esn": "elsewhere.models:build",
        "digits_skipnet": "effattack.models_zoo.embedded:digits_skipnet",
        "theirs": "elsewhere.models:theirs",
    }
    assert [*listing.by_family(victims).items()] == [
        ("layer skipping", ["digits_skipnet"]),
        (listing.OTHERS, ["digits_esn", "theirs"]),
    ]
