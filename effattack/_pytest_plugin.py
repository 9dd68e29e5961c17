"""The pytest plugin: options, fixtures, and one section of the terminal summary.

pytest loads this module into every session of an environment that has effattack, so it imports
neither torch nor pandas; the fixtures do, once a test asks for one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from effattack._pytest_session import SESSION, for_pytest, in_words, session_of, users_code
from effattack._pytest_summary import lines
from effattack.errors import UsageError

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter
    from torch import Tensor

    from effattack.evaluation import Evaluation
    from effattack.victim import Victim


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("effattack", "how much of a model's savings an attacker takes back")
    group.addoption(
        "--effattack-victim",
        metavar="NAME|MODULE:FACTORY",
        help="what to score: a registered name, or a callable that returns an effattack.Victim "
        "(default: every registered victim)",
    )
    group.addoption(
        "--effattack-data",
        metavar="PATH|MODULE:FACTORY",
        help="image folder by class, .npz with images and labels, or a callable that returns both",
    )
    group.addoption(
        "--effattack-attack",
        action="append",
        default=[],
        metavar="NAME",
        help="attack to run, repeatable (default: all that apply)",
    )
    group.addoption(
        "--effattack-eps", default="8/255", help="l-inf budget of pixels in [0, 1] (8/255)"
    )
    group.addoption(
        "--effattack-samples", type=int, default=200, metavar="N", help="images to score (200)"
    )
    for side, worse in (("below", "less"), ("above", "more")):
        group.addoption(
            f"--effattack-fail-{side}",
            action="append",
            default=[],
            metavar="SCORE=VALUE",
            help="limit that effattack.suites hold the worst compute attack to, on a score where "
            f"{worse} is worse; repeatable",
        )
    group.addoption(
        "--effattack-out",
        metavar="DIR",
        help="keep finished cells here (the same command resumes), and write frames and a report",
    )


def pytest_configure(config: pytest.Config) -> None:
    try:
        config.stash[SESSION] = session_of(config)
    except UsageError as error:
        raise pytest.UsageError(for_pytest(error)) from None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Names only: a victim is loaded when the first test that needs it runs."""
    if "effattack_victim_name" in metafunc.fixturenames:
        names = metafunc.config.stash[SESSION].victims
        metafunc.parametrize("effattack_victim_name", names, indirect=True, scope="session")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> None:
    item.config.stash[SESSION].item = item


@pytest.fixture(scope="session")
def effattack_victim_name(request: pytest.FixtureRequest) -> str:
    """Name or factory path of the victim under test; the parameter behind effattack_victim."""
    return str(request.param)


@pytest.fixture(scope="session")
def effattack_victim(effattack_victim_name: str, pytestconfig: pytest.Config) -> Victim:
    """The victim of --effattack-victim; without that option, each registered victim in turn."""
    with users_code(pytestconfig.stash[SESSION], effattack_victim_name):
        from effattack.registry import load_victim

        return load_victim(effattack_victim_name)


@pytest.fixture(scope="session")
def effattack_data(effattack_victim: Victim, pytestconfig: pytest.Config) -> tuple[Tensor, Tensor]:
    """Images and labels of --effattack-data; without that option, the victim's own."""
    session, victim = pytestconfig.stash[SESSION], effattack_victim
    with users_code(session, session.data or victim.data or "no data"):
        from effattack.data import load_data, subset

        images, labels = subset(*load_data(session.data, victim), session.samples)
        return images.to(victim.device, victim.dtype), labels.to(victim.device)


@pytest.fixture(scope="session")
def effattack_evaluate(pytestconfig: pytest.Config) -> Callable[..., Evaluation]:
    """``effattack.evaluate``, whose result also enters the terminal summary and the report.

    ``eps`` and ``out`` default to those of the command line. Under xdist, latency is not measured.
    """
    session = pytestconfig.stash[SESSION]

    def evaluate(
        victim: Victim, images: Tensor, labels: Tensor, attacks: Any, **settings: Any
    ) -> Evaluation:
        __tracebackhide__ = True
        from effattack import evaluation

        settings = {"eps": session.eps, "out": session.out, **settings}
        if session.worker and settings.get("timed") != 0:
            settings["timed"] = 0
            if not session.warned:
                session.warned = True
                warnings.warn(
                    "effattack measures no latency in xdist workers, which disturb each other: "
                    "use -n 0 for that",
                    stacklevel=2,
                )
        found = evaluation.evaluate(victim, images, labels, attacks, **settings)
        session.record(found)
        return found

    return evaluate


@pytest.fixture(scope="session")
def effattack_evaluation(
    effattack_victim: Victim,
    effattack_data: tuple[Tensor, Tensor],
    effattack_evaluate: Callable[..., Evaluation],
    pytestconfig: pytest.Config,
) -> Evaluation:
    """The victim under the attacks of the command line, evaluated once for all tests."""
    from effattack.attacks import defaults

    session = pytestconfig.stash[SESSION]
    attacks = session.attacks or defaults(effattack_victim)
    with in_words():
        from effattack.data import held_out, load_data

        fit = held_out(*load_data(session.data, effattack_victim), session.samples)
        return effattack_evaluate(effattack_victim, *effattack_data, attacks, fit=fit)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    session.config.stash[SESSION].write()


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    reports = [report for group in terminalreporter.stats.values() for report in group]
    victims, written = lines(reports), config.stash[SESSION].written
    if victims or written:
        terminalreporter.section("effattack")
    for line, bad in victims:
        terminalreporter.write_line(line, red=bad)
    if written:
        terminalreporter.write_line(written)
