"""The pytest plugin: options, fixtures, the summary, xdist; and silence where it is not used."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from math import nan
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
import toys
from projects import BUILD, DATA, QUICK, SUITES, Run, project, section

from effattack._pytest_session import for_pytest
from effattack._pytest_summary import lines
from effattack.errors import UsageError


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    """pytest in a project with ``models.py``."""
    return project(pytester)


def test_a_test_of_the_users_own(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import models
        import pytest

        @pytest.fixture(scope="module")
        def scores(effattack_evaluate):
            victim, (images, labels) = models.build(), models.data()
            evaluation = effattack_evaluate(victim, images, labels, ["Slowdown"], timed=0)
            return evaluation.scores().set_index("attack")

        def test_accuracy(scores):
            assert scores.accuracy["clean"] == 1

        def test_macs(scores):
            assert scores.macs_ratio["Slowdown"] < 1.01
        """
    )
    result = run("--junitxml=junit.xml", "--effattack-out=kept")
    result.assert_outcomes(passed=1, failed=1)
    assert re.search(r"toy .* not measured +scored, not judged\n", section(result))
    suite = ElementTree.parse(pytester.path / "junit.xml")
    found = {p.get("name"): p.get("value") for p in suite.iterfind(".//property")}
    assert found["effattack.toy.attack"] == "Slowdown"
    assert 0 <= float(found["effattack.toy.savings_retained"] or nan) < 1
    assert "report: " in section(result)
    kept = {path.name for path in (pytester.path / "kept").iterdir()}
    assert kept == {"cells", "samples.parquet", "scores.csv", "meta.json", "report.html"}
    meta = (pytester.path / "kept" / "meta.json").read_text()
    assert "--junitxml=junit.xml --effattack-out=kept" in meta


def test_the_same_folder_resumes(run: Run, pytester: pytest.Pytester) -> None:
    def cells() -> dict[str, int]:
        result = run(*SUITES, BUILD, DATA, "--effattack-out=kept", "-k", "deterministic")
        result.assert_outcomes(passed=1, deselected=10)
        return {p.name: p.stat().st_mtime_ns for p in (pytester.path / "kept/cells").iterdir()}

    assert cells() == cells()


def test_a_victim_fixture_of_the_users_own(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import models
        import pytest

        @pytest.fixture(scope="session")
        def effattack_victim():
            return models.build()

        def test_it(effattack_victim, effattack_data):
            assert len(effattack_data[0]) == 5
        """
    )
    result = run(DATA, "--effattack-samples=5")
    result.assert_outcomes(passed=1)


def test_nothing_is_said_where_nothing_was_scored(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(): pass")
    result = run("--effattack-out=kept")
    result.stdout.no_fnmatch_line("*= effattack*")
    assert not (pytester.path / "kept").exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("fail-below=savings_retianed=1", "unknown score for --effattack-fail-below 'savings_re*"),
        (
            "fail-below=macs_ratio=1",
            "macs_ratio is worse * use --effattack-fail-above macs_ratio=1",
        ),
        ("fail-above=macs=much", "--effattack-fail-above 'macs=much': write SCORE=NUMBER*"),
        ("fail-above=macs_ratio", "--effattack-fail-above 'macs_ratio': write SCORE=NUMBER*"),
        ("eps=8/0", "--effattack-eps '8/0' is no number: write 8/255 or 0.03"),
        ("eps=-1/255", "eps = -0.00* is no budget: *"),
        ("eps=8", "eps = 8.0 is no budget: *"),
        ("eps=nan", "eps = nan is no budget: *"),
        ("samples=0", "--effattack-samples 0: score at least one image"),
        ("victim=digits_vit_ast", "unknown victim 'digits_vit_ast': did you mean digits_vit_ats*"),
    ],
)
def test_a_bad_option_ends_the_session_in_one_line(run: Run, option: str, message: str) -> None:
    result = run(f"--effattack-{option}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert len(result.errlines) == 2
    result.stderr.fnmatch_lines([f"ERROR: {message}"])


def test_collecting_imports_no_torch_and_loads_no_model(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import sys

        def pytest_unconfigure():
            print("heavy:", sorted({"numpy", "pandas", "scipy", "torch"} & set(sys.modules)))
        """
    )
    pytester.makepyfile("def test_it(): pass")
    limit = "--effattack-fail-below=savings_retained=0.6"
    zoo = 11 * len(entry_points(group="effattack.victims"))
    for arguments, count in (((".",), 1), ((*SUITES[:2], limit), zoo)):
        result = pytester.runpytest_subprocess(*QUICK, "--collect-only", "-q", *arguments)
        result.stdout.fnmatch_lines([f"{count} test* collected*", "heavy: []"])


def test_under_xdist_the_controller_says_it_all(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("xdist")
    monkeypatch.setenv("PYTHONPATH", str(Path(toys.__file__).parent))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    limit = "--effattack-fail-below=savings_retained=0.6"
    options = (*QUICK, "-n2", "-k", "limit or deterministic", "--effattack-out=kept", limit)
    result = pytester.runpytest_subprocess(*SUITES, BUILD, DATA, *options)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*effattack measures no latency in xdist workers*"])
    assert re.search(
        "Slowdown at 8/255 .* not measured +failed: savings_retained below", section(result)
    )
    assert (pytester.path / "kept" / "report.html").exists()
    assert not (pytester.path / "kept" / ".workers").exists()


def report(test: str, macs: float | None = None, failed: bool = False, **facts: Any) -> object:
    """What pytest reports of a test on ``my.victim``."""
    if macs is not None:
        unknown = ("savings_retained", "latency_ratio", "latency_low", "latency_high")
        facts |= {**dict.fromkeys(unknown, nan), "attack": "A", "budget": "8/255", "clock": ""}
        facts |= {"clean_macs": 10.0, "macs": macs}
    properties = [(f"effattack.my.victim.{key}", value) for key, value in facts.items()]
    nodeid = f"tests/test_x.py::{test}"
    return SimpleNamespace(nodeid=nodeid, user_properties=properties, failed=failed)


def test_many_tests_of_a_victim_make_one_line() -> None:
    scored = [report("a", 12.0), report("b", 15.0), report("c", 11.0)]
    (header, bad), line = lines(scored)
    assert header.startswith("victim  ")
    assert not bad
    assert re.fullmatch("my.victim +unknown +A at 8/255 +10 → 15 .* scored, not judged", line[0])
    passed = report("l", verdict="passed: macs at most 15")
    assert lines([passed, *scored])[1][0].endswith("  passed: macs at most 15")
    unknown = report("m", verdict="could not measure energy_ratio")
    assert lines([*scored, unknown, passed])[1][0].endswith("  could not measure energy_ratio")
    failures = [report(f"f{k}", 11.0, failed=True) for k in range(30)]
    told = lines([passed, *scored, *failures, unknown])
    assert len(told) == 2
    assert told[1][0].endswith("failed: test_x.py::f0 (and 29 more)")
    assert told[1][1]


def test_nothing_is_said_of_a_victim_without_scores() -> None:
    assert lines([report("l", verdict="scored, not judged"), SimpleNamespace()]) == []


def test_messages_name_the_options_of_pytest() -> None:
    error = UsageError("give --data, --out or use fail-below; not --database, no-fail-below, data")
    assert for_pytest(error) == (
        "give --effattack-data, --effattack-out or use --effattack-fail-below; "
        "not --database, no-fail-below, data"
    )
