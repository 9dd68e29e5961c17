"""The suites, on victims of a user's own: what passes, what fails, and in which words."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from importlib import import_module

import pytest
from projects import BUILD, DATA, OTHERS, SUITES, Run, project, section

from effattack.registry import VICTIMS, entries
from effattack.results.baselines import Baseline
from effattack.runs.levels import LEVELS
from effattack.suites import shared

FAMILIES = (
    "test_cascades",
    "test_detection",
    "test_early_exit",
    "test_generation",
    "test_graphs",
    "test_layer_skipping",
    "test_matching",
    "test_multimodal",
    "test_other_mechanisms",
    "test_quantized",
    "test_series",
    "test_text",
    "test_token_sparsification",
)
OWN = {name for name in entries(VICTIMS) if name.startswith(("digits_", "cbf_"))} | {
    "text_exit",
    "ner_exit",
    "sums_lm",
    "dates_translator",
    "sums_reasoner",
    "scenes_detector",
    "scenes_two_stage",
    "scenes_two_stage_adapted",
    "scenes_pipeline",
    "family_links",
    "questions_cross",
    "questions_gated",
    "questions_selected",
    "questions_fixed_ratio",
    "questions_written",
    "questions_counted",
    "machine_watch",
}
"""Registered victims that bring their data; CIFAR-10 is the user's to bring."""


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    """pytest in a project with ``models.py``."""
    return project(pytester)


@pytest.fixture
def score(run: Run) -> Run:
    """The suites on a victim whose gates open easily."""
    return lambda *arguments: run(*SUITES, BUILD, DATA, *arguments)


def test_without_a_limit_it_is_scored_but_not_judged(score: Run) -> None:
    result = score("-rs")
    result.assert_outcomes(passed=6, skipped=2)
    result.stdout.fnmatch_lines_random(
        [
            "SKIPPED*scored, not judged: *--effattack-fail-below*",
            "SKIPPED*scored, not compared: *--effattack-compare NAME",
        ]
    )
    assert re.search(
        r"\ntoy +\d\.\d.% +Slowdown at 8/255 +\d+ → \d+ +\d\.\d\d +white box "
        " +(×|not measured).* scored, not judged",
        section(result),
    )


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ("below=savings_retained=-1", "passed: savings_retained at least -1"),
        ("above=macs_ratio=9", "passed: macs_ratio at most 9"),
    ],
)
def test_a_limit_that_holds(score: Run, limit: str, words: str) -> None:
    result = score(f"--effattack-fail-{limit}", "-k", "limit")
    result.assert_outcomes(passed=1, deselected=7)
    assert words in section(result)


def test_a_limit_that_is_crossed_fails_one_test_in_words(score: Run) -> None:
    result = score("--effattack-fail-below=savings_retained=0.6", "--effattack-eps=10/255")
    result.assert_outcomes(passed=6, failed=1, skipped=1)
    result.stdout.re_match_lines(
        [
            r"toy: savings retained is 0\.\d+, below the limit 0\.6: Slowdown at eps 10/255 "
            r"moved the MACs per input \d+ → \d+ of at most 176 \(Slowdown found \d of 8.*\)"
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    assert "  failed: savings_retained below 0.6" in section(result)


def test_several_limits_are_judged_one_by_one(score: Run) -> None:
    limits = ("macs_ratio=1.01", "macs=1", "macs=1e9")
    result = score(*(f"--effattack-fail-above={limit}" for limit in limits), "-k", "limit")
    result.assert_outcomes(passed=1, failed=2, deselected=7)
    assert "failed: macs_ratio above 1.01 (and 1 more)" in section(result)


def test_a_score_that_is_nan_fails(run: Run) -> None:
    limit = "--effattack-fail-below=savings_retained=0.6"
    result = run(*OTHERS, DATA, "--effattack-victim=models:opaque", limit)
    result.assert_outcomes(passed=1, skipped=3, errors=1)
    result.stdout.fnmatch_lines(
        ["could not measure opaque: no attack ran * applies, as QueryAttack"]
    )
    assert re.search("unknown .*could not measure savings", section(result))
    query = "--effattack-attack=QueryAttack(queries=9)"
    result = run(*OTHERS[:2], query, DATA, "--effattack-victim=models:opaque", limit)
    result.assert_outcomes(passed=1, skipped=2, failed=2)
    result.stdout.fnmatch_lines(
        ["could not measure savings_retained of opaque (its max MACs are not known*max_m*"]
    )


def test_a_constant_victim_keeps_its_savings(run: Run) -> None:
    limit = "--effattack-fail-below=savings_retained=0.99"
    result = run(*OTHERS, DATA, "--effattack-victim=models:Plain", limit)
    result.assert_outcomes(passed=3, skipped=2)
    assert re.search("plain +100.0.% +none applied +32 → 32 .* passed", section(result))


def test_data_in_double_precision_fit_a_victim_in_single(run: Run) -> None:
    result = run(*SUITES, BUILD, "--effattack-data=models:doubles")
    result.assert_outcomes(passed=6, skipped=2)


def test_a_broken_contract_fails_the_tests_that_say_so(run: Run) -> None:
    result = run(*SUITES, DATA, "--effattack-victim=models:Boastful")
    result.stdout.fnmatch_lines(["toy: image 0: trace declares 88 MACs, forward executed 176*"])
    result.assert_outcomes(failed=1, errors=1, skipped=6)


def test_a_failed_self_check_fails_with_its_message(run: Run) -> None:
    result = run(*SUITES, DATA, "--effattack-victim=models:Blind", "-k", "trusted")
    result.assert_outcomes(failed=1, deselected=7)
    result.stdout.fnmatch_lines(["self-check failed: toy: gradient through every gate: *toy*"])
    assert "TestCascades::test_its_scores_can_be_trusted" in section(result)


@pytest.mark.parametrize(
    ("victim", "options", "message"),
    [
        ("nowhere:build", (), "cannot import 'nowhere' for 'nowhere:build': run from*"),
        ("models:biuld", (), "models has no callable 'biuld'*"),
        ("models:model", (), "models:model returned Linear, not an effattack.Victim: wrap*Opaque*"),
        ("models:broken", (), "models:broken raised ValueError: no weights here*"),
        ("models:build", (), "toy brings no data of its own: give --effattack-data an image*"),
        ("models:build", ("data=models:small",), "images have shape (2, 1, 2, 2), the victim *"),
        ("models:build", ("data=nothing.npz",), "cannot read nothing.npz (*"),
        ("models:build", ("data=models:broken",), "models:broken raised ValueError: no weights*"),
        ("models:build", ("data=models:data", "attack=Slodown"), "unknown attack 'Slodown': did*"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(
    run: Run, victim: str, options: tuple[str, ...], message: str
) -> None:
    extra = [f"--effattack-{option}" for option in options]
    result = run(*SUITES[:2], f"--effattack-victim={victim}", *extra, "-k", "contract or trusted")
    outcomes = result.parseoutcomes()
    assert outcomes["errors"] == 1, "told once, however many tests need it"
    assert "failed" not in outcomes
    result.stdout.fnmatch_lines([message])
    assert str(result.stdout).count("Traceback") == ("broken" in message)
    _, once = section(result).splitlines()
    assert fnmatch(once, message)


def test_a_victim_of_another_family_is_left_to_its_own_suite(run: Run) -> None:
    result = run("--pyargs", "effattack.suites.test_early_exit", BUILD, DATA, "-rs")
    result.assert_outcomes(skipped=8)
    result.stdout.fnmatch_lines(["SKIPPED*toy is of the family 'cascade', which has a suite*"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED, "green would say that it was measured"
    assert "toy was not scored: no suite of its family ran" in section(result)
    two = ("effattack.suites.test_early_exit", "effattack.suites.test_cascades")
    result = run("--pyargs", *two, BUILD, DATA, "-k", "trusted")
    result.assert_outcomes(passed=1, skipped=1, deselected=14)
    assert result.ret == pytest.ExitCode.OK


def test_every_victim_that_brings_its_data_has_one_suite() -> None:
    found = [name for module in FAMILIES for name in _victims(module)]
    assert sorted(found) == sorted(OWN)


@pytest.mark.parametrize("level", [path.stem for path in shared.BASELINES.glob("*.json")])
def test_stored_baselines_hold_every_victim_of_the_suites(level: str) -> None:
    baseline = Baseline.load(shared.BASELINES / f"{level}.json")
    assert set(baseline.victims) == OWN
    for record in baseline.victims.values():
        assert len(record.series[0].macs) == LEVELS[level].samples


def test_what_got_worse_fails_with_its_interval(run: Run) -> None:
    data = "--effattack-data=models:many"
    saved = run(*SUITES, BUILD, data, "--effattack-save=v1", "-k", "baseline")
    saved.assert_outcomes(skipped=1, deselected=7)
    assert "baseline: " in section(saved)
    again = run(*SUITES, BUILD, data, "--effattack-compare=v1", "-k", "baseline")
    again.assert_outcomes(passed=1, deselected=7)
    assert "passed: as good as v1" in section(again)
    worse = ("--effattack-victim=models:doubtful", "--effattack-compare=v1")
    result = run(*SUITES, *worse, data, "-k", "baseline")
    result.assert_outcomes(failed=1, deselected=7)
    result.stdout.fnmatch_lines(
        [
            "changed beyond the noise since v1:",
            "toy under clean: macs * → *, ×*(interval ×*to ×*)",
        ]
    )


def test_a_victim_that_saves_nothing_could_not_be_measured(run: Run) -> None:
    """It keeps nothing, which is no 100 %: its gates are open on every clean image."""
    limit = "--effattack-fail-below=savings_retained=0.5"
    result = run(*SUITES, DATA, "--effattack-victim=models:vacuous", limit)
    result.assert_outcomes(passed=1, errors=1, skipped=6)
    result.stdout.fnmatch_lines(["could not measure toy: nothing was saved on the clean inputs, *"])
    assert re.search("nothing was saved .*could not measure savings", section(result))


def _victims(module: str) -> list[str]:
    (suite,) = (
        thing
        for key, thing in vars(import_module(f"effattack.suites.{module}")).items()
        if key.startswith("Test")
    )
    return [name for mark in suite.pytestmark for name in mark.kwargs["victims"]]
