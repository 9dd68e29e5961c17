"""The pytest plugin: options, marker, fixtures, and one section of the terminal summary.

pytest loads this module into every session of an environment that has effattack, so it imports
neither torch nor pandas; the fixtures do, once a test asks for one.
"""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from effattack.errors import UsageError
from effattack.pytest_plugin import replaying
from effattack.pytest_plugin.held import begin, noting
from effattack.pytest_plugin.judge import NO_TIMING, compared, hold_baseline, hold_limits
from effattack.pytest_plugin.left_behind import finish, prepare
from effattack.pytest_plugin.marker import MARKER, Asked, marked, victims_of
from effattack.pytest_plugin.options import add_options, settings_of
from effattack.pytest_plugin.session import (
    SESSION,
    Session,
    fit_data,
    for_pytest,
    in_words,
    score,
    users_code,
    victim_of,
)
from effattack.pytest_plugin.summary import lines
from effattack.results.limits import REPLAYED
from effattack.streams import encodable, shown

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter
    from torch import Tensor

    from effattack.attacks import Attack
    from effattack.domains import Batch
    from effattack.results.evaluation import Evaluation
    from effattack.victim import Victim

UNTIMED = "effattack_untimed"
TOLD_ONCE = ("effattack_victim", "effattack_data", "effattack_evaluation")
"""Fixtures whose failure is that of every test that needs them."""
NONE = pytest.param(
    Asked("none"), marks=pytest.mark.skip("none registered: give --effattack-victim")
)


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)
    try:
        settings = settings_of(config)
    except UsageError as error:
        raise pytest.UsageError(for_pytest(error)) from None
    config.stash[SESSION] = Session(
        settings,
        folder=config.invocation_params.dir,
        command=shlex.join(["pytest", *map(str, config.invocation_params.args)]),
        worker=getattr(config, "workerinput", {}).get("workerid", ""),
    )
    prepare(config.stash[SESSION])
    config.pluginmanager.register(_Told(config.stash[SESSION]))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Names only: a victim is loaded when the first test that needs it runs."""
    settings = metafunc.config.stash[SESSION].settings
    if "effattack_victim_asked" in metafunc.fixturenames:
        try:
            victims = victims_of(settings, marked(metafunc.definition))
        except UsageError:  # an error of that test alone, which its setup tells
            victims = [Asked("")]
        metafunc.parametrize(
            "effattack_victim_asked",
            victims or [NONE],
            ids=str,
            indirect=True,
            scope="session",
        )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> None:
    item.config.stash[SESSION].item = item


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """Remember a fixture that failed, so that it is told by one test, not by each that needs it."""
    session = request.config.stash[SESSION]
    ours = fixturedef.argname in TOLD_ONCE
    try:
        with noting(session.item if ours else None):
            return (yield)
    except (Exception, pytest.fail.Exception):
        if ours and session.item is not None:
            key = fixturedef.argname, victim_of(session.item)
            session.broken.setdefault(key, session.item.name)
        raise


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    session, needed = item.config.stash[SESSION], getattr(item, "fixturenames", ())
    with in_words():
        asked = marked(item)
        if "effattack_victim_asked" in needed:
            victims_of(session.settings, asked)
    for name in TOLD_ONCE:
        if name in needed and (test := session.broken.get((name, victim_of(item)))):
            pytest.skip(f"{name} could not be made: {test} says why")
    with in_words():
        begin(item)


@pytest.fixture(scope="session")
def effattack_victim_asked(request: pytest.FixtureRequest) -> Asked:
    """The parameter behind effattack_victim."""
    found: Asked = request.param
    return found


@pytest.fixture(scope="session")
def effattack_victim_name(effattack_victim_asked: Asked) -> str:
    """Name, factory path or file of the victim under test."""
    return effattack_victim_asked.name


@pytest.fixture(scope="session")
def effattack_victim(effattack_victim_asked: Asked, pytestconfig: pytest.Config) -> Victim:
    """The victim of --effattack-victim; without that option, each registered victim in turn."""
    with users_code(pytestconfig.stash[SESSION], effattack_victim_asked.name):
        from effattack.victim import load_victim

        return load_victim(*effattack_victim_asked)


@pytest.fixture(scope="session")
def effattack_data(effattack_victim: Victim, pytestconfig: pytest.Config) -> tuple[Batch, Tensor]:
    """Inputs and labels of --effattack-data; without that option, the victim's own; under
    --effattack-replay, those that are stored."""
    session, victim = pytestconfig.stash[SESSION], effattack_victim
    data = session.settings.data or victim.data
    with users_code(session, data or "no data"):
        from effattack.inputs.source import checked, source_of, subset

        if session.settings.replay:
            return replaying.data(session.settings, victim)
        opened = source_of(data, victim).open(victim.domain)
        told = [f"{victim.name}: {remark}" for remark in opened.remarks(victim.num_classes)]
        session.remarks[victim.name] = told
        inputs, labels = subset(*checked(opened, victim), session.settings.samples)
        return victim.domain.place(inputs, victim.device), labels.to(victim.device)


@pytest.fixture(scope="session")
def effattack_evaluate(pytestconfig: pytest.Config) -> Callable[..., Evaluation]:
    """``effattack.evaluate``, whose result enters the summary and the report, and is judged.

    What its arguments leave open, the test's marker says, and then the options. The test fails
    where a limit of either is crossed, or something got worse since --effattack-compare.
    """
    session = pytestconfig.stash[SESSION]

    def evaluate(
        victim: Victim,
        inputs: Batch,
        labels: Tensor,
        attacks: Sequence[Attack | str] = (),
        **arguments: Any,
    ) -> Evaluation:
        __tracebackhide__ = True
        with in_words():
            asked = marked(session.item)
        limits = [*session.settings.limits, *asked.pop("limits")]
        for key in ("victims", "twin", "through"):
            asked.pop(key, None)
        attacks = attacks or asked.pop("attacks", ())
        with noting(session.item):
            with in_words():
                found = score(session, victim, inputs, labels, attacks, **{**asked, **arguments})
            if path := session.settings.compare:
                comparison = compared(session, found, path)
                hold_baseline(session, comparison, comparison.worse, path.stem)
            hold_limits(session, found, limits)
        return found

    return evaluate


@pytest.fixture(scope="session")
def effattack_evaluation(
    effattack_victim: Victim,
    effattack_data: tuple[Batch, Tensor],
    pytestconfig: pytest.Config,
) -> Evaluation:
    """The victim under the attacks of the options, evaluated once for all tests.

    Not held to limits; but where nothing was measured on it, what needs it fails.
    """
    __tracebackhide__ = True
    session, victim = pytestconfig.stash[SESSION], effattack_victim
    settings = session.settings
    with users_code(session, settings.fit_data):
        fit = fit_data(settings, victim, settings.attacks)
        found = score(session, victim, *effattack_data, fit=fit)
    hold_limits(session, found, [])
    return found


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """What an xdist worker says when it is done."""
    node.config.stash[SESSION].untimed |= getattr(node, "workeroutput", {}).get(UNTIMED, False)


class _Told:
    """Hears of every test, also of those of xdist's workers."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.session.note(report)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    ours = session.config.stash[SESSION]
    finish(ours)
    ours.written += [
        (f"{victim} was not scored: no suite of its family ran; run effattack.suites", True)
        for victim, left in ours.left.items()
        if left and not ours.worker
    ]
    if ours.settings.replay and not ours.worker:
        nothing = "nothing was replayed: name the victim with --effattack-victim"
        told = REPLAYED if ours.scored else nothing
        ours.written.append((f"{told} ({ours.settings.replay})", not ours.scored))
    green = session.exitstatus == pytest.ExitCode.OK and not ours.worker
    if green and not session.config.getoption("setuponly", False):
        ours.written += [(line, True) for line in ours.held.unheld()]
    if ours.worker:
        session.config.workeroutput[UNTIMED] = ours.untimed  # type: ignore[attr-defined]
    elif ours.untimed:
        warnings.warn(f"effattack measured no latency: {NO_TIMING}", stacklevel=1)
    if any(bad for _, bad in ours.written) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    reports = [report for group in terminalreporter.stats.values() for report in group]
    said = [*lines(reports), *config.stash[SESSION].written]
    if said:
        terminalreporter.section("effattack")
    encoding = getattr(config.get_terminal_writer()._file, "encoding", None)
    for line, bad in said:
        terminalreporter.write_line(encodable(shown(line), encoding), red=bad)
