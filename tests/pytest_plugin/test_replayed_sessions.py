"""The pytest plugin under --effattack-replay: what its fixtures give, and how a session ends."""

from __future__ import annotations

import pytest
from projects import BUILD, DATA, SUITES, Run, project, section

FULL = (*SUITES, BUILD, DATA, "--effattack-out=kept", "-k", "limit")
REPLAY = "--effattack-replay=kept/corpus"
LIMIT = "--effattack-fail-below=savings_retained=0.5"
OWN = """
    import models
    import pytest

    @pytest.mark.effattack(fail_below={"savings_retained": 0.1})
    def test_small(effattack_evaluate):
        effattack_evaluate(models.build(), *models.data(), ["Slowdown"], eps=2 / 255)

    @pytest.mark.effattack(fail_below={"savings_retained": 0.9})
    def test_large(effattack_evaluate):
        effattack_evaluate(models.build(), *models.data(), ["Slowdown"], eps=8 / 255)
"""


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    """pytest in a project whose suite has been run once, so that a corpus is there."""
    run = project(pytester)
    run(*FULL).assert_outcomes(skipped=1)
    return run


def files(pytester: pytest.Pytester) -> dict[str, float]:
    return {str(path): path.stat().st_mtime for path in pytester.path.rglob("*.[pcjh]*")}


def test_a_suite_is_replayed(run: Run, pytester: pytest.Pytester) -> None:
    before = files(pytester)
    result = run(*SUITES, BUILD, REPLAY, "--effattack-fail-above=macs=176")
    assert result.ret == 0
    told = section(result)
    assert "toy at eps 8/255: 8 worst images: ×" in told
    assert "replayed, not attacked (" in told
    assert "replayed at 8/255" in told
    assert files(pytester) == before


def test_a_crossed_limit_is_red(run: Run) -> None:
    result = run(*SUITES, BUILD, REPLAY, LIMIT, "-k", "limit")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*toy: savings retained is *, below the limit 0.5: replayed at*"])


def test_another_victim_is_judged_where_it_is_named(run: Run) -> None:
    """The same model, sealed: its suite is another one, its name too."""
    sealed = "--effattack-victim=models:opaque"
    result = run("--pyargs", "effattack.suites.test_other_mechanisms", sealed, REPLAY)
    assert result.ret == 0
    assert "opaque at eps 8/255: 8 worst images of toy: ×" in section(result)


@pytest.mark.slow
def test_tests_of_your_own_are_replayed_in_their_budgets(
    run: Run, pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(test_own=OWN)
    full = run("test_own.py", "--effattack-out=own")
    full.assert_outcomes(passed=1, failed=1)
    result = run("test_own.py", "--effattack-replay=own/corpus")
    result.assert_outcomes(passed=1, failed=1)
    assert "toy: savings retained is" in str(result.stdout)
    result = run("test_own.py", REPLAY, "-k", "small")
    assert "nothing is stored for toy in linf:2/255, only in linf:8/255" in str(result.stdout)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--effattack-save=x"], "leave --effattack-save out"),
        (["--effattack-compare=x", "--effattack-out=y"], "leave --effattack-compare, --effattack-"),
        (["--effattack-fail-above=latency_ratio=2"], "a replay times nothing, and latency_ratio"),
        (["--effattack-corpus-mb=-1"], "give 0 or more"),
    ],
)
def test_what_a_replay_has_no_use_for(
    options: list[str], told: str, pytester: pytest.Pytester
) -> None:
    result = project(pytester)(*SUITES, BUILD, REPLAY, *options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert told in str(result.stderr)


def test_the_ini_file_is_for_the_other_runs(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\neffattack_out = elsewhere\neffattack_save = base")
    run(*SUITES, BUILD, REPLAY, LIMIT, "-k", "limit").assert_outcomes(failed=1)
    assert not (pytester.path / "elsewhere").exists()
    assert not (pytester.path / "effattack-baselines").exists()


def test_nothing_replayed_is_not_green(run: Run) -> None:
    result = run(*SUITES, REPLAY, "-k", "limit and digits_tinysaver_cascade")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "nothing was replayed: name the victim with --effattack-victim" in section(result)
