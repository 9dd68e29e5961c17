"""Whether each limit that was given was judged: a green session says that it was.

A limit is given by the options, or by the marker of a test that ran. What became of it travels as
``user_properties`` of the tests, as the facts of :mod:`effattack.pytest_plugin.summary` do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from effattack.pytest_plugin.marker import limits_of
from effattack.pytest_plugin.summary import PREFIX
from effattack.results.limits import Limit

GIVEN, JUDGED, MISSED = (f"{PREFIX}{key}" for key in ("given", "judged", "missed"))
"""Facts about a test: its marker's limits, those judged in it, and what failed in it."""


def by_options(limits: Iterable[Limit]) -> dict[str, Limit]:
    """Limits of the options by their names, as the user wrote them."""
    return {f"--effattack-fail-{_written(limit)}": limit for limit in limits}


def by_marker(item: pytest.Item) -> dict[str, Limit]:
    """Limits of a test's marker by their names; those of a class are one for all of its tests."""
    return {
        f"mark.effattack fail_{_written(limit)} of {node}": limit for node, limit in limits_of(item)
    }


def begin(item: pytest.Item) -> None:
    """Note what a test is given, and forget what an earlier run of it came to."""
    others = [pair for pair in item.user_properties if pair[0] not in (GIVEN, JUDGED, MISSED)]
    item.user_properties[:] = others
    _add(item, GIVEN, by_marker(item))


def was_judged(item: pytest.Item, options: Iterable[Limit], judged: Sequence[Limit]) -> None:
    """Note that these limits were judged in a test, whoever gave them."""
    given = by_options(options) | by_marker(item)
    _add(item, JUDGED, [name for name, limit in given.items() if limit in judged])


@contextmanager
def noting(item: pytest.Item | None) -> Iterator[None]:
    """Note what fails in here, for a test that catches it."""
    try:
        yield
    except pytest.skip.Exception:
        raise
    except BaseException as error:
        if item is not None:
            _add(item, MISSED, (str(error) or type(error).__name__).splitlines()[:1])
        raise


@dataclass
class Held:
    """What became of the limits, by the reports of all tests, also of those of xdist's workers."""

    given: dict[str, None]
    judged: set[str] = field(default_factory=set)
    ran: set[str] = field(default_factory=set)
    """Tests that passed."""
    expected: set[str] = field(default_factory=set)
    """Tests that failed as their marker ``xfail`` says."""
    missed: dict[str, list[str]] = field(default_factory=dict)
    """Test -> what failed in it, of tests that are over."""

    def note(self, report: pytest.TestReport) -> None:
        """Take in the report of one phase of a test."""
        test, facts = report.nodeid, dict(report.user_properties)
        self.judged |= {*_lines(facts, JUDGED)}
        if report.skipped and hasattr(report, "wasxfail"):
            self.expected.add(test)
        if report.when == "call" and report.passed:
            self.ran.add(test)
        if report.when == "teardown":
            self.given |= dict.fromkeys(_lines(facts, GIVEN) if test in self.ran else ())
            self.missed[test] = [] if test in self.expected else _lines(facts, MISSED)

    def unheld(self) -> list[str]:
        """What a session must not be green with, in lines; nothing where no test was run."""
        told = [
            f"{test} caught a failure ({missed}): let it fail the test"
            for test, several in self.missed.items()
            for missed in several
        ]
        unjudged = [name for name in self.given if name not in self.judged]
        if unjudged and self.missed:
            told.append(
                f"never judged: {', '.join(unjudged)}: run effattack.suites or a test that calls "
                "effattack_evaluate under it, or leave it out"
            )
        return told


def _written(limit: Limit) -> str:
    return f"{'below' if limit.fail_below else 'above'} {limit.score}={limit.value:.12g}"


def _lines(facts: dict[str, Any], name: str) -> list[str]:
    return str(facts.get(name, "")).splitlines()


def _add(item: pytest.Item, name: str, lines: Iterable[str]) -> None:
    """Facts that are there already stay: another victim may be scored in the same test."""
    told = dict.fromkeys([*_lines(dict(item.user_properties), name), *lines])
    if told:
        others = [pair for pair in item.user_properties if pair[0] != name]
        item.user_properties[:] = [*others, (name, "\n".join(told))]
