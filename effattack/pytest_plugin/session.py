"""What the pytest plugin knows during one session: its settings, and the results so far.

Imports neither torch nor pandas, as the plugin must not.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from effattack.errors import EffattackError, FactoryError
from effattack.pytest_plugin.held import Held, by_options
from effattack.pytest_plugin.options import Settings
from effattack.pytest_plugin.replaying import replayed
from effattack.pytest_plugin.summary import LEFT, PREFIX, TROUBLE, by_victim, damage, worst
from effattack.registry.borders import staying

if TYPE_CHECKING:
    from torch import Tensor

    from effattack.attacks import Attack
    from effattack.domains import Batch
    from effattack.results.evaluation import Evaluation
    from effattack.victim import Victim


@dataclass
class Session:
    """Settings, and what was found so far."""

    settings: Settings
    folder: Path
    """Where pytest was started: on the import path for factories."""
    command: str
    worker: str
    """Name of this xdist worker; empty in any other process."""
    item: pytest.Item | None = None
    """The test that runs now."""
    broken: dict[tuple[str, str], str] = field(default_factory=dict)
    """Fixture and victim that failed -> the test that tells why; the others that need it skip."""
    evaluations: list[Evaluation] = field(default_factory=list)
    left: dict[str, bool] = field(default_factory=dict)
    """Victims that tests were about -> whether all of these tests left them to another suite."""
    scored: bool = False
    """Whether a test scored anything."""
    untimed: bool = False
    """Whether a latency was asked for, here or in a worker, that xdist forbids."""
    remarks: dict[str, list[str]] = field(default_factory=dict)
    """Victim -> what is to be said of the data that it is scored on."""
    written: list[tuple[str, bool]] = field(default_factory=list)
    """What to say of the files written at the end, and whether it is bad news."""
    held: Held = field(init=False)
    """Which limits were given, and what became of them."""

    def __post_init__(self) -> None:
        self.held = Held(dict.fromkeys(by_options(self.settings.limits)))

    def record(self, evaluation: Evaluation) -> None:
        """Keep a result for the report, and tell the worst of it with the current test."""
        self.evaluations.append(evaluation)
        for victim, facts in worst(evaluation).items():
            told = by_victim(self.item.user_properties).get(victim, {}) if self.item else {}
            if damage(facts) > damage(told):
                for key, value in facts.items():
                    self.tell(victim, key, value)

    def note(self, report: pytest.TestReport) -> None:
        """Whether a test, of this process or a worker, was about a victim or left it to others."""
        self.held.note(report)
        for victim, facts in by_victim(report.user_properties).items():
            self.scored |= "work" in facts
            if facts.keys() & {LEFT, "verdict", "work"}:
                self.left[victim] = self.left.get(victim, True) and LEFT in facts

    def tell(self, victim: str, key: str, value: object) -> None:
        """Attach a fact about a victim to the current test."""
        if self.item is not None:
            name = f"{PREFIX}{victim}.{key}"
            others = [pair for pair in self.item.user_properties if pair[0] != name]
            self.item.user_properties[:] = [*others, (name, value)]


SESSION = pytest.StashKey[Session]()


def victim_of(item: pytest.Item | None) -> str:
    """What a test's victim is called in the options or its marker; empty where it has none."""
    callspec = getattr(item, "callspec", None)
    return str(callspec.params.get("effattack_victim_asked", "")) if callspec else ""


def score(
    session: Session,
    victim: Victim,
    inputs: Batch,
    labels: Tensor,
    attacks: Sequence[Attack | str] = (),
    **arguments: Any,
) -> Evaluation:
    """``effattack.evaluate`` with the session's settings for whatever is left open; recorded.

    Under --effattack-replay, what is stored for these inputs takes the place of attacks. Under
    xdist, latency is not measured.
    """
    from effattack.runs.evaluate import evaluate
    from effattack.runs.levels import attacks_of

    settings = session.settings
    if settings.replay:
        attacks = attacks or settings.attacks
        found = replayed(settings, victim, inputs, attacks, **arguments)
        session.record(found)
        session.tell(victim.name, "note", "\n".join(found.meta["replayed"]))
        return found
    asked = attacks or settings.attacks
    attacks = asked or attacks_of(settings.thoroughness, victim)
    common = {
        "eps": settings.budget,
        "by": settings.by,
        "certify": settings.certify,
        "seeds": settings.thoroughness.seeds,
        "batch_size": settings.batch_size,
        "out": settings.out,
        "corpus_mb": settings.corpus_mb,
    }
    if session.worker:
        session.untimed |= arguments.get("timed") != 0
        arguments["timed"] = 0
    found = evaluate(victim, inputs, labels, attacks, **{**common, **arguments})
    if told := session.remarks.get(victim.name):
        found.meta["notes"] += told
        session.tell(victim.name, "data", "; ".join(told))
    session.record(found)
    left_out = [f"{skip['attack']}: {skip['reason']}" for skip in found.meta["skipped"]]
    if asked and left_out:
        session.tell(victim.name, "skipped", f"skipped {'; skipped '.join(left_out)}")
    return found


def fit_data(
    settings: Settings, victim: Victim, attacks: Sequence[str]
) -> tuple[Batch, Tensor] | None:
    """What universal ones of these attacks learn from: none of the scored inputs.

    None where there is no such attack, or no input is left.
    """
    from effattack.attacks import UniversalAttack, attack_class
    from effattack.attacks.by_name import spelled_out
    from effattack.inputs.source import held_out, load_data

    named = spelled_out(attacks, [victim.domain.kind])
    learning = any(issubclass(attack_class(name), UniversalAttack) for name in named)
    if settings.replay or not learning:
        return None
    if settings.fit_data:
        return load_data(settings.fit_data, victim)
    return held_out(victim.domain, *load_data(settings.data, victim), settings.samples)


def for_pytest(error: Exception) -> str:
    """The message, with the options of ``effattack run`` under the names they have here."""
    options = (
        "attack|baselines|by|compare|corpus-mb|data|eps|fit-data|out|replay|samples|save|score|"
        "threat|through|twin|victim"
    )
    renamed = rf"(?<![\w-])(?:--(?=(?:{options})\b)|(?=fail-(?:below|above)\b))"
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
    """Run a user's factory: its folder importable, a failure one line and one traceback.

    The folder comes last on the import path: what is installed is not shadowed by a file there.
    """
    folder = str(session.folder)
    if ":" in path and folder not in sys.path:
        sys.path.append(folder)
    try:
        with staying(path or "the victim, or its data,"):
            yield
    except EffattackError as error:
        session.tell(path or "evaluation", TROUBLE, for_pytest(error))
        if isinstance(error, FactoryError) and session.item is not None:
            told = "".join(traceback.format_exception(error.__cause__))
            session.item.add_report_section("setup", "traceback", told)
        raise pytest.fail.Exception(for_pytest(error), pytrace=False) from None
