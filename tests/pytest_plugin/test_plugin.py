"""The pytest plugin: options, fixtures, the summary, xdist; and silence where it is not used."""

from __future__ import annotations

import re
import subprocess
import sys
from math import nan
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
import toys
from PIL import Image
from projects import BUILD, DATA, QUICK, SUITES, Run, project, section

from effattack.errors import UsageError
from effattack.pytest_plugin.options import OPTIONS
from effattack.pytest_plugin.session import for_pytest
from effattack.pytest_plugin.summary import lines
from effattack.results.baseline_paths import FOLDER
from effattack.results.baselines import Baseline


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
    assert kept == {"cells", "corpus", "samples.parquet", "scores.csv", "meta.json", "report.html"}
    meta = (pytester.path / "kept" / "meta.json").read_text()
    assert "--junitxml=junit.xml --effattack-out=kept" in meta


def test_the_same_folder_resumes(run: Run, pytester: pytest.Pytester) -> None:
    def cells() -> dict[str, int]:
        result = run(*SUITES, BUILD, DATA, "--effattack-out=kept", "-k", "trusted")
        result.assert_outcomes(passed=1, deselected=7)
        stored = (pytester.path / "kept" / "cells").glob("*.parquet")
        return {path.name: path.stat().st_mtime_ns for path in stored}

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


def test_a_universal_attack_learns_from_images_that_are_not_scored(run: Run) -> None:
    universal = "--effattack-attack=UniversalSlowdown(epochs=1)"
    limit = "--effattack-fail-below=savings_retained=-1"
    options = (*SUITES, BUILD, DATA, universal, limit, "-k", "limit")
    rest = run(*options, "--effattack-samples=5")
    rest.assert_outcomes(passed=1, deselected=7)
    assert "UniversalSlowdown(epochs=1) at 8/255" in section(rest)
    others = run(*options, "--effattack-fit-data=models:others")
    others.assert_outcomes(passed=1, deselected=7)
    nothing = run(*options)
    nothing.assert_outcomes(errors=1, deselected=7)
    nothing.stdout.fnmatch_lines(["*is universal: give images to learn *--effattack-fit-data*"])


def test_a_limit_judges_a_certificate_that_was_asked_for(run: Run) -> None:
    options = (*SUITES, BUILD, DATA, "--effattack-samples=5", "-k", "limit")
    limit = "--effattack-fail-above=certified_factor"
    kept = run(*options, f"{limit}=1000", "--effattack-certify=cap")
    kept.assert_outcomes(passed=1, deselected=7)
    crossed = run(*options, f"{limit}=1", "--effattack-certify=cap")
    crossed.assert_outcomes(failed=1, deselected=7)
    crossed.stdout.fnmatch_lines(["*a bound for every attack, eps 8/255*"])
    without = run(*options, f"{limit}=1000")
    without.assert_outcomes(failed=1, deselected=7)
    without.stdout.fnmatch_lines(["*no certificate is known*--certify auto*"])


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
        ("eps=-8", "eps = -8.0 is no budget: *"),
        ("eps=nan", "eps = nan is no budget: *"),
        ("eps=.1sd", "*is a size in deviations *: write --effattack-threat linf:.1sd*"),
        ("samples=0", "--effattack-samples '0': give a whole number, 1 or more"),
        ("batch-size=0", "--effattack-batch-size '0': give a whole number, 1 or more"),
        ("samples=some", "--effattack-samples 'some': give a whole number, 1 or more"),
        ("certify=capp", "unknown certificate 'capp': did you mean cap*"),
        ("level=quik", "unknown level 'quik': did you mean quick*"),
        ("save=a/b", "baseline 'a/b': use letters, digits and . + - _ only; *--effattack-basel*"),
        (
            "fail-below=savings_retained=60",
            "--effattack-fail-below 'savings_retained=60' is out of range: savings_retained takes "
            "a number up to 1",
        ),
        ("fail-below=accuracy=-1", "*accuracy takes a number in [[]0, 1]"),
        ("fail-above=macs_ratio=-1", "*macs_ratio takes a number from 0"),
        (
            "compare=nowhere",
            "no baseline *nowhere.json (No such file or directory): save it first *",
        ),
        ("victim=digits_vit_ast", "unknown victim 'digits_vit_ast': did you mean digits_vit_ats*"),
    ],
)
def test_a_bad_option_ends_the_session_in_one_line(run: Run, option: str, message: str) -> None:
    result = run(f"--effattack-{option}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert len(result.errlines) == 2
    result.stderr.fnmatch_lines([f"ERROR: {message}"])


TIMED = "above=latency_ratio=9"
OCCUPIED = "--effattack-baselines=occupied"
HEAVY = {"effattack.victim", "jinja2", "numpy", "pandas", "pyarrow", "rich", "scipy", "torch"}


LIGHT = {
    *("budgets", "errors", "moved", "registry", "registry.borders", "streams"),
    *("results", "results.baseline_paths", "results.limits", "results.unmeasured"),
    *("results.currency", "results.score", "results.table"),
    *("runs", "runs.levels"),
}


def test_loading_the_plugin_imports_nothing_that_pytest_does_not() -> None:
    code = "import sys, pytest; before = {*sys.modules}; import effattack.pytest_plugin.hooks; "
    code += "print(*{*sys.modules} - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {*done.stdout.split()} - {"effattack"}
    assert {name for name in loaded if not name.startswith("effattack.pytest_plugin")} == {
        f"effattack.{name}" for name in LIGHT
    }


def test_collecting_imports_no_torch_and_loads_no_model(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        f"""
        import sys

        def pytest_unconfigure():
            print("heavy:", sorted({HEAVY} & set(sys.modules)))
        """
    )
    pytester.makepyfile("def test_it(): pass")
    limit = "--effattack-fail-below=savings_retained=0.6"
    for arguments, least in (((".",), 1), (("--pyargs", "effattack.suites", limit), 100)):
        result = pytester.runpytest_subprocess(*QUICK, "--collect-only", "-q", *arguments)
        result.stdout.fnmatch_lines(["*test* collected*", "heavy: []"])
        assert sum("::" in line for line in result.outlines) >= least


def test_every_option_has_a_twin_in_the_ini_file(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeini(
        """
        [pytest]
        addopts = --strict-config --strict-markers
        effattack_victim = models:build
        effattack_data = models:data
        effattack_fail_below =
            savings_retained=-1
            accuracy=0
        effattack_samples = 6
        effattack_eps = 4/255
        """
    )
    result = run(*SUITES, "-k", "limit", "--effattack-samples=5")
    result.assert_outcomes(passed=2, deselected=7)
    assert "Slowdown at 4/255" in section(result)
    helped = str(run("--help").stdout)
    for option in OPTIONS:
        assert f"--effattack-{option.name}" in helped
        assert f"effattack_{option.name.replace('-', '_')}" in helped


def test_a_bad_twin_is_told_like_the_option(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\neffattack_samples = -3")
    result = run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --effattack-samples '-3': give a whole number, 1 or more"])


MARKED = """
    import models
    import pytest

    @pytest.mark.effattack(victims=["models:build"], attacks=["Slowdown"], eps="8/255", timed=0)
    class TestMine:
        @pytest.mark.effattack(fail_below={"savings_retained": -1}, eps=2/255)
        def test_a_limit_that_holds(self, effattack_victim, effattack_evaluate):
            found = effattack_evaluate(effattack_victim, *models.data())
            assert 2 / 255 in found.scores().eps.tolist()

        @pytest.mark.effattack(fail_below={"savings_retained": 0.99})
        def test_a_limit_that_is_crossed(self, effattack_victim, effattack_evaluate):
            effattack_evaluate(effattack_victim, *models.data())
"""


def test_a_marker_says_what_is_scored_and_how_it_is_judged(
    run: Run, pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(MARKED)
    result = run("--strict-markers")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.re_match_lines(
        [r"toy: savings retained is 0\.\d+, below the limit 0\.99: Slow.*"]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    assert "failed: savings_retained below 0.99" in section(result)
    other = run("--strict-markers", "--effattack-victim=models:Plain", "-k", "holds")
    other.assert_outcomes(passed=1, deselected=1)
    assert "plain" in section(other)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("victim=['a:b']", "unknown argument of mark.effattack 'victim': did you mean victims*"),
        ("'a:b'", "mark.effattack('a:b'): name the argument, such as victims=*"),
        ("victims='a:b'", "mark.effattack: 'a:b' is no list of names"),
        ("eps=-8", "eps = -8 is no budget: give a positive number*"),
        ("seeds=[]", "mark.effattack(seeds=[[]]): give whole numbers, 0 or more"),
        ("batch_size=0", "mark.effattack(batch_size=0): give a number of inputs, 1 or more"),
        ("timed=-1", "mark.effattack(timed=-1): give a number of inputs, 0 or more"),
        ("fail_below='accuracy=1'", "mark.effattack: 'accuracy=1' is no limit: write a score *"),
        ("fail_above={'savings_retained': 1}", "savings_retained is worse when it is below *"),
        ("fail_below={'accuracy': 60}", "*'accuracy=60' is out of range: *"),
    ],
)
@pytest.mark.parametrize("fixture", ["", "effattack_victim_name"])
def test_a_bad_marker_is_an_error_of_its_test_alone(
    run: Run, pytester: pytest.Pytester, arguments: str, message: str, fixture: str
) -> None:
    pytester.makepyfile(
        f"""
        import pytest

        @pytest.mark.effattack({arguments})
        def test_it({fixture}):
            pass

        def test_another():
            pass
        """
    )
    result = run()
    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines([message])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_thirty_failing_tests_make_one_line(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import models
        import pytest

        @pytest.fixture(scope="session")
        def found(effattack_evaluate):
            return effattack_evaluate(models.build(), *models.data(), ["Slowdown"], timed=0)

        @pytest.fixture(autouse=True)
        def told(record_property, found):
            record_property("effattack.toy.verdict", "scored, not judged")

        @pytest.mark.parametrize("k", range(30))
        def test_it(k):
            assert k < 0
        """
    )
    result = run("-q", "--tb=no")
    result.assert_outcomes(failed=30)
    told = [line for line in section(result).splitlines() if line.startswith(("toy", "victim"))]
    assert len(told) == 2
    assert told[1].endswith("(and 29 more)")
    assert len(told[1]) < 200


def test_an_attack_that_cannot_apply_says_why_and_names_those_that_can(
    run: Run, pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(
        """
        import models

        def test_it(effattack_evaluate):
            effattack_evaluate(models.build(), *models.data(), ["DeSparsify"], timed=0)
        """
    )
    run("-q").stdout.fnmatch_lines(
        ["skipped DeSparsify: *toy is a victim of cascade*; Slowdown, AutoSlow and*apply"]
    )


@pytest.mark.parametrize(
    ("scored", "message"),
    [
        ("vacuous(), *models.data(), ['Slowdown']", "nothing was saved on the clean inputs, *"),
        ("build(), *models.data(), ['noise']", "no attack ran on it inside a budget: name one *"),
    ],
)
def test_a_test_that_measured_nothing_is_red_without_any_limit(
    run: Run, pytester: pytest.Pytester, scored: str, message: str
) -> None:
    pytester.makepyfile(
        f"""
        import models

        def test_it(effattack_evaluate):
            effattack_evaluate(models.{scored}, timed=0)

        def test_none_of_it(effattack_evaluate):
            effattack_evaluate(models.Plain(), *models.data(), ['noise'], timed=0)
        """
    )
    result = run("-q")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines([f"could not measure toy: {message}"])
    assert re.search("could not measure savings", section(result))


@pytest.mark.parametrize("where", ["option", "ini"])
@pytest.mark.parametrize("name", ["compare", "save", "data", "victim", "out", "eps", "attack"])
def test_an_empty_option_is_no_option(
    run: Run, pytester: pytest.Pytester, where: str, name: str
) -> None:
    """As an unset variable leaves it."""
    if where == "ini":
        pytester.makeini(f"[pytest]\neffattack_{name} =")
    result = run(*[f"--effattack-{name}="] * (where == "option"))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: --effattack-{name} is empty, as an unset variable *"])


def test_a_crashed_xdist_worker_leaves_the_summary_whole() -> None:
    """It is reported with ``???`` for a phase, and without properties."""
    scored = report("a", 12.0)
    crash = SimpleNamespace(nodeid=scored.nodeid, when="???", failed=True, user_properties=[])
    assert lines([crash]) == []
    assert lines([crash, scored])[1][0].endswith("failed: test_x.py::a")


@pytest.mark.slow
@pytest.mark.usefixtures("in_workers")
def test_a_crash_under_xdist(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import os\ndef test_ok(): pass\ndef test_crash(): os._exit(3)\n")
    result = pytester.runpytest_subprocess(*QUICK, "-n1")
    result.assert_outcomes(passed=1, failed=1)


@pytest.mark.usefixtures("in_workers")
@pytest.mark.slow
def test_under_xdist_the_controller_says_it_all(run: Run, pytester: pytest.Pytester) -> None:
    limits = [f"--effattack-fail-{limit}" for limit in ("below=savings_retained=0.6", TIMED)]
    options = (*QUICK, "-n2", "-rs", "-k", "limit or trusted", "--effattack-out=kept", *limits)
    result = pytester.runpytest_subprocess(*SUITES, BUILD, DATA, *options, "--effattack-save=v1")
    result.assert_outcomes(passed=1, failed=2, warnings=1)
    result.stdout.fnmatch_lines_random(
        [
            "could not measure latency_ratio: xdist workers disturb each other: use -n 0 *",
            "*effattack measured no latency: xdist workers disturb each other: use -n 0*",
        ],
    )
    assert re.search(
        "Slowdown at 8/255 .* not measured +failed: savings_retained below", section(result)
    )
    assert (pytester.path / "kept" / "report.html").exists()
    assert not (pytester.path / "kept" / ".workers").exists()
    assert set(Baseline.load(pytester.path / FOLDER / "v1.json").victims) == {"toy"}


def test_a_baseline_that_cannot_be_saved_fails_the_session(
    run: Run, pytester: pytest.Pytester
) -> None:
    (pytester.path / "occupied").write_text("")
    result = run(*SUITES, BUILD, DATA, "-k", "trusted", "--effattack-save=v1", OCCUPIED)
    result.assert_outcomes(passed=1, deselected=7)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert re.search("no baseline was written: .*folder with --effattack-bas", section(result))


def report(test: str, macs: float | None = None, failed: bool = False, **facts: Any) -> Any:
    """What pytest reports of a test on ``my.victim``."""
    if macs is not None:
        unknown = ["savings_retained", "latency_ratio", "latency_low", "latency_high"]
        facts |= {**dict.fromkeys(unknown, nan), "attack": "A", "budget": "8/255", "clock": ""}
        facts |= {"clean_work": 10.0, "work": macs, "max_work": nan, "unit": "MACs"}
        facts |= {"macs_ratio": macs / 10, "unknown_max": True}
        facts |= {"equals_n_requests": macs / 10, "knowledge": "queries", "inputs": "x"}
    properties = [(f"effattack.my.victim.{key}", value) for key, value in facts.items()]
    nodeid = f"tests/test_x.py::{test}"
    return SimpleNamespace(nodeid=nodeid, user_properties=properties, failed=failed)


def test_many_tests_of_a_victim_make_one_line() -> None:
    scored = [report("a", 12.0), report("b", 15.0), report("c", 11.0)]
    (header, bad), line = lines(scored)
    assert header.startswith("victim  ")
    assert not bad
    assert re.fullmatch(
        "my.victim +unknown +A at 8/255 +10 → 15 +1.50 +queries .* scored, not judged", line[0]
    )
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


def test_what_is_passed_over_of_the_data_is_said(run: Run, pytester: pytest.Pytester) -> None:
    for label, image in enumerate(toys.grey_images(2)):
        path = pytester.path / "images" / "ab"[label] / "0.png"
        path.parent.mkdir(parents=True)
        Image.fromarray((image[0] * 255).round().byte().numpy()).save(path)
    (pytester.path / "images" / ".git").mkdir()
    pytester.makepyfile(
        """
        def test_notes(effattack_evaluate, effattack_victim, effattack_data):
            found = effattack_evaluate(effattack_victim, *effattack_data, ["Slowdown"], timed=0)
            assert "toy: 1 hidden or foreign folder was passed over: .git" in found.meta["notes"]
        """
    )
    result = run(BUILD, "--effattack-data=images")
    result.assert_outcomes(passed=1)
    assert "toy: 1 hidden or foreign folder was passed over: .git" in section(result)
