"""What the pytest plugin knows during one session: its settings, and the results so far.

Imports neither torch nor pandas, as the plugin must not.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from effattack._pytest_summary import PREFIX, by_victim, damage, worst
from effattack.budgets import parse_eps
from effattack.errors import EffattackError, FactoryError, UsageError, unknown_name
from effattack.limits import Limit, parse_limit

if TYPE_CHECKING:
    from effattack.evaluation import Evaluation

WORKERS = ".workers"
_SAME_ROW = ["victim", "attack", "threat", "eps", "seed", "sample", "prediction", "macs"]


@dataclass
class Session:
    """Settings from the command line, and what was found so far."""

    victims: list[str]
    data: str | None
    attacks: list[str]
    eps: float
    samples: int
    limits: list[Limit]
    folder: Path
    """Where pytest was started: on the import path for factories."""
    out: Path | None
    command: str
    worker: str
    """Name of this xdist worker; empty in any other process."""
    item: pytest.Item | None = None
    """The test that runs now."""
    evaluations: list[Evaluation] = field(default_factory=list)
    warned: bool = False
    written: str = ""
    """What to say of the report."""

    def record(self, evaluation: Evaluation) -> None:
        """Keep a result for the report, and tell the worst of it with the current test."""
        found = worst(evaluation)
        self.evaluations.append(evaluation)
        for victim, facts in found.items():
            told = by_victim(self.item.user_properties).get(victim, {}) if self.item else {}
            if damage(facts) > damage(told):
                for key, value in facts.items():
                    self.tell(victim, key, value)

    def tell(self, victim: str, key: str, value: object) -> None:
        """Attach a fact about a victim to the current test."""
        if self.item is not None:
            name = f"{PREFIX}{victim}.{key}"
            others = [pair for pair in self.item.user_properties if pair[0] != name]
            self.item.user_properties[:] = [*others, (name, value)]

    def write(self) -> None:
        """Frames, scores and report of all results, this process's or its workers'."""
        if self.out is None:
            return
        parts = [] if self.worker else sorted(self.out.glob(f"{WORKERS}/*"))
        if not self.evaluations and not parts:
            return
        from effattack.evaluation import Evaluation
        from effattack.reporting.html import write

        try:
            found = Evaluation.concat([*self.evaluations, *map(Evaluation.load, parts)])
            if self.worker:
                found.save(self.out / WORKERS / self.worker)
                return
            data = self.data or "the victims' own images, or those of the tests"
            evaluation = Evaluation(
                found.samples.drop_duplicates(_SAME_ROW, ignore_index=True),
                {**found.meta, "command": self.command, "data": data},
            )
            evaluation.save(self.out)
            write(*evaluation.report(), self.out / "report.html")
        except Exception as error:  # whatever it is, the results of the tests come first
            self.written = f"no report in {self.out}: {type(error).__name__}: {for_pytest(error)}"
        else:
            shutil.rmtree(self.out / WORKERS, ignore_errors=True)
            self.written = f"report: {self.out / 'report.html'}"


SESSION = pytest.StashKey[Session]()


def session_of(config: pytest.Config) -> Session:
    """The session that the options of the command line describe.

    Raises:
        UsageError: for an option with a value that it cannot have.
    """
    victim, out = config.getoption("--effattack-victim"), config.getoption("--effattack-out")
    samples = config.getoption("--effattack-samples")
    known = [entry.name for entry in entry_points(group="effattack.victims")]
    if victim and ":" not in victim and victim not in known:
        raise unknown_name("victim", victim, known)
    if samples < 1:
        raise UsageError(f"--effattack-samples {samples}: score at least one image")
    below = config.getoption("--effattack-fail-below")
    above = config.getoption("--effattack-fail-above")
    session = Session(
        victims=[victim] if victim else known,
        data=config.getoption("--effattack-data"),
        attacks=config.getoption("--effattack-attack"),
        eps=parse_eps(config.getoption("--effattack-eps")),
        samples=samples,
        limits=[
            *(parse_limit(text, fail_below=True) for text in below),
            *(parse_limit(text, fail_below=False) for text in above),
        ],
        folder=config.invocation_params.dir,
        out=config.invocation_params.dir / out if out else None,
        command=shlex.join(["pytest", *map(str, config.invocation_params.args)]),
        worker=getattr(config, "workerinput", {}).get("workerid", ""),
    )
    if session.out and not session.worker:
        shutil.rmtree(session.out / WORKERS, ignore_errors=True)
    return session


def for_pytest(error: Exception) -> str:
    """The message, with the options of ``effattack run`` under the names they have here."""
    renamed = r"(?<![\w-])(?:--(?=(?:data|eps|out|samples)\b)|(?=fail-(?:below|above)\b))"
    return re.sub(renamed, "--effattack-", str(error))


@contextmanager
def in_words() -> Iterator[None]:
    """Fail the test with the one line of an effattack error, without a traceback."""
    try:
        yield
    except EffattackError as error:
        raise pytest.fail.Exception(for_pytest(error), pytrace=False) from None


@contextmanager
def users_code(session: Session, path: str) -> Iterator[None]:
    """Run a user's factory: its folder importable, a failure one line and one traceback."""
    folder = str(session.folder)
    if ":" in path and folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        yield
    except EffattackError as error:
        if isinstance(error, FactoryError) and session.item is not None:
            told = "".join(traceback.format_exception(error.__cause__))
            session.item.add_report_section("setup", "traceback", told)
        raise pytest.fail.Exception(for_pytest(error), pytrace=False) from None
