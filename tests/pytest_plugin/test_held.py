"""A green session judged every limit that it was given; and what is no session says nothing."""

from __future__ import annotations

import pytest
from projects import BUILD, DATA, QUICK, SUITES, Run, project, section

LIMIT = "--effattack-fail-below=savings_retained=-1"
CROSSED = "--effattack-fail-below=savings_retained=0.99"
NEVER = "never judged: "
CALL = "effattack_evaluate(models.build(), *models.data(), ['Slowdown'], timed=0)"
HOLDS = "@pytest.mark.effattack(fail_below={'savings_retained': -1})"
FAILS = "@pytest.mark.effattack(fail_below={'savings_retained': 0.99})"
CAUGHT = "caught a failure (toy: savings retained is 0."
PLAIN = "def test_it(): pass"


def caught(call: str = CALL, otherwise: str = "pass") -> str:
    """The body of a test that catches whatever a call raises."""
    return f"    try: {call}\n    except BaseException: {otherwise}\n"


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    """pytest in a project with ``models.py``."""
    return project(pytester)


def write(pytester: pytest.Pytester, source: str) -> None:
    pytester.makepyfile(test_mine=f"import models\nimport pytest\n\n{source}\n")


@pytest.mark.parametrize("where", ["option", "ini"])
@pytest.mark.parametrize("source", [PLAIN, f"{PLAIN}\ndef test_skipped(): pytest.skip('today')"])
def test_a_limit_of_the_options_without_a_test_that_judges(
    run: Run, pytester: pytest.Pytester, source: str, where: str
) -> None:
    write(pytester, source)
    if where == "ini":
        pytester.makeini("[pytest]\neffattack_fail_below = savings_retained=-1")
    result = run(BUILD, DATA, *[LIMIT] * (where == "option"))
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert f"{NEVER}--effattack-fail-below savings_retained=-1: run" in section(result)


def test_a_selection_of_the_suites_that_judges_nothing(run: Run) -> None:
    result = run(*SUITES, BUILD, DATA, LIMIT, "-k", "contract")
    result.assert_outcomes(passed=1, deselected=7)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert NEVER in section(result)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (f"{HOLDS}\n{PLAIN}", f"{NEVER}mark.effattack fail_below savings_retained=-1 of test_mine"),
        (f"{HOLDS}\nclass TestMine:\n    def test_it(self): pass", "test_mine.py::TestMine: run"),
        (f"{FAILS}\ndef test_it(effattack_evaluate):\n{caught()}", CAUGHT),
        (f"{FAILS}\ndef test_it(effattack_evaluate):\n{caught(CALL, 'pytest.skip()')}", CAUGHT),
        (
            f"@pytest.fixture\ndef found(effattack_evaluate):\n{caught()}\n"
            f"{FAILS}\ndef test_it(found): pass",
            CAUGHT,
        ),
        (
            "def test_it(effattack_evaluate):\n" + caught(CALL.replace("build", "vacuous")),
            "caught a failure (could not measure toy: nothing was saved",
        ),
        (
            "@pytest.mark.effattack(victims=['models:broken'])\n"
            "def test_it(request, effattack_victim_name):\n"
            + caught("request.getfixturevalue('effattack_victim')"),
            "no weights here: correct it there): let it fail the test",
        ),
    ],
)
def test_a_limit_that_a_passing_test_did_not_keep(
    run: Run, pytester: pytest.Pytester, source: str, said: str
) -> None:
    write(pytester, source)
    result = run()
    assert not result.parseoutcomes().keys() & {"failed", "errors"}
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert said in section(result)


@pytest.mark.parametrize(
    "source",
    [
        f"{HOLDS}\ndef test_it(effattack_evaluate): {CALL}",
        f"{HOLDS}\nclass TestMine:\n    def test_it(self, effattack_evaluate): {CALL}\n"
        "    def test_more(self): pass",
        f"{HOLDS}\n@pytest.mark.skip\n{PLAIN}",
        f"@pytest.mark.xfail\n{FAILS}\ndef test_it(effattack_evaluate): {CALL}",
        f"pytestmark = pytest.mark.effattack(fail_below={{'savings_retained': 0.99}})\n"
        f"{HOLDS}\ndef test_it(effattack_evaluate): {CALL}",
    ],
)
def test_a_limit_that_was_judged_or_openly_left_out_stays_green(
    run: Run, pytester: pytest.Pytester, source: str
) -> None:
    write(pytester, source)
    result = run()
    assert result.ret == pytest.ExitCode.OK
    assert NEVER not in section(result)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--collect-only",), pytest.ExitCode.OK),
        (("--fixtures",), pytest.ExitCode.OK),
        (("--setup-plan",), pytest.ExitCode.OK),
        (("-k", "nothing"), pytest.ExitCode.NO_TESTS_COLLECTED),
        (("-k", "stops"), pytest.ExitCode.INTERRUPTED),
        (("-k", "fails"), pytest.ExitCode.TESTS_FAILED),
    ],
)
def test_nothing_is_said_of_a_session_that_ran_no_test_or_is_red(
    run: Run, pytester: pytest.Pytester, arguments: tuple[str, ...], code: pytest.ExitCode
) -> None:
    stops = "def test_stops(): pytest.exit('now')"
    write(pytester, f"{PLAIN}\ndef test_fails(): assert 0\n{stops}")
    result = run(LIMIT, *arguments)
    assert result.ret == code
    assert NEVER not in str(result.stdout)


@pytest.mark.slow
@pytest.mark.usefixtures("in_workers", "run")
def test_under_xdist_the_controller_knows(pytester: pytest.Pytester) -> None:
    judges = f"{HOLDS}\ndef test_it(effattack_evaluate): {CALL}"
    catches = f"{FAILS}\ndef test_too(effattack_evaluate):\n{caught()}"
    write(pytester, f"{judges}\n{HOLDS}\ndef test_more(): pass\n{catches}")
    arguments = ("--effattack-fail-above=macs_ratio=99", "-n1")
    result = pytester.runpytest_subprocess(*QUICK, *arguments)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    told = section(result)
    assert (
        f"{NEVER}mark.effattack fail_below savings_retained=-1 of test_mine.py::test_more" in told
    )
    assert CAUGHT in told
    assert "macs_ratio=99" not in told
    kept = pytester.runpytest_subprocess(*QUICK, *arguments, "-k", "test_it")
    assert kept.ret == pytest.ExitCode.OK
