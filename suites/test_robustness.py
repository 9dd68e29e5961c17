"""How much of its savings the victim keeps under attack, and whether that number can be trusted.

The self-checks must hold. The scores are judged by the limits of --effattack-fail-below and
--effattack-fail-above; without a limit, they are scored, not judged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from effattack._pytest_session import SESSION, in_words
from effattack._pytest_summary import SEVERITY
from effattack.limits import Limit

if TYPE_CHECKING:
    from effattack.evaluation import Evaluation
    from effattack.limits import Verdict
    from effattack.victim import Victim

GRADIENT, DETERMINISTIC = "gradient through every gate", "deterministic forward"
NOISE = "is stronger than noise"


@pytest.fixture(autouse=True)
def _concerns(effattack_victim: Victim, pytestconfig: pytest.Config) -> None:
    """Whatever fails here shows beside the victim's name in the summary."""
    pytestconfig.stash[SESSION].tell(effattack_victim.name, "verdict", SEVERITY[0])


def test_gradients_pass_every_gate(effattack_evaluation: Evaluation) -> None:
    """Through a gate without a gradient attacks see nothing, and the scores flatter."""
    assert_self_checks(effattack_evaluation, GRADIENT)


def test_forward_is_deterministic(effattack_evaluation: Evaluation) -> None:
    """The same image gives the same logits twice: no score is one draw of many."""
    assert_self_checks(effattack_evaluation, DETERMINISTIC)


def test_attacks_are_stronger_than_noise(effattack_evaluation: Evaluation) -> None:
    """A compute attack that random noise beats is broken, or was blinded."""
    assert_self_checks(effattack_evaluation, NOISE)


def test_every_other_self_check_holds(effattack_evaluation: Evaluation) -> None:
    """Success that falls as the budget rises, and whatever else the library checks of itself."""
    assert_self_checks(effattack_evaluation, "", besides=(GRADIENT, DETERMINISTIC, NOISE))


def test_scores_keep_the_limit(verdict: Verdict | None) -> None:
    """The worst compute attack inside the budget takes back no more than the limit allows."""
    if verdict is None:
        pytest.skip("scored, not judged: give a limit, --effattack-fail-below savings_retained=0.6")
    if not verdict.passed:
        pytest.fail(verdict.message, pytrace=False)


@pytest.fixture
def verdict(
    effattack_victim: Victim,
    effattack_evaluation: Evaluation,
    limit: Limit | None,
    pytestconfig: pytest.Config,
) -> Verdict | None:
    """The victim against the limit; a score that could not be measured is an error."""
    from effattack.limits import judge

    if limit is None:
        return None
    session, victim = pytestconfig.stash[SESSION], effattack_victim.name
    session.tell(victim, "verdict", f"could not measure {limit.score}")
    with in_words():
        (verdict,) = judge(effattack_evaluation.scores(), effattack_evaluation.kinds, [limit])
    if verdict.passed:
        kept = f"passed: {limit.score} {'at least' if limit.fail_below else 'at most'}"
    else:
        kept = f"failed: {limit.score} {'below' if limit.fail_below else 'above'}"
    session.tell(victim, "verdict", f"{kept} {limit.value:g}")
    return verdict


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per limit of the command line."""
    if "limit" in metafunc.fixturenames:
        limits: list[Limit | None] = [*metafunc.config.stash[SESSION].limits] or [None]
        names = [f"{limit.score}={limit.value:g}" if limit else "no limit" for limit in limits]
        metafunc.parametrize("limit", limits, ids=names)


def assert_self_checks(
    evaluation: Evaluation, about: str, *, besides: tuple[str, ...] = ()
) -> None:
    """Fail with what the failed ones say; skip where none of a named kind applies."""
    checks = [c for c in evaluation.checks() if about in c.check and not c.check.endswith(besides)]
    failed = [f"{c.victim}: {c.check}: {c.message}" for c in checks if c.passed is False]
    if failed:
        pytest.fail("self-check failed: " + "; ".join(failed), pytrace=False)
    if about and not any(c.passed for c in checks):
        reasons = [c.message for c in checks]
        reasons += [skipped["reason"] for skipped in evaluation.meta["skipped"]]
        pytest.skip("; ".join(reasons) or "no compute attack was asked for")
