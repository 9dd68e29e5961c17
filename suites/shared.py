"""What every family of victims is held to, whatever it saves by; each suite inherits it.

A suite is a class of tests with a ``family`` and, as its marker, the registered victims of that
family. It scores those, or in their place the user's own victim of --effattack-victim.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from effattack.pytest_plugin.judge import compared, hold_baseline, hold_limits
from effattack.pytest_plugin.session import SESSION, in_words
from effattack.pytest_plugin.summary import LEFT, SEVERITY
from effattack.results.limits import Limit

if TYPE_CHECKING:
    from torch import Tensor

    from effattack.results.evaluation import Evaluation
    from effattack.victim import Trace, Victim

INPUTS = 16
"""On which the contract is checked."""
BASELINES = Path(str(files("effattack"))) / "reports" / "baselines"
"""Of the registered victims: one file per level."""


class Suite:
    """Tests for the victims of one family."""

    family = ""

    @pytest.fixture(autouse=True)
    def _concerns(self, effattack_victim: Victim, pytestconfig: pytest.Config) -> None:
        """Skip what is of another family; a failure shows beside the victim's name."""
        session = pytestconfig.stash[SESSION]
        if not self.covers(effattack_victim):
            session.tell(effattack_victim.name, LEFT, True)
            whose = f"of the family {effattack_victim.family!r}"
            if apart(effattack_victim):
                whose = f"a victim of {effattack_victim.domain.nouns}"
            pytest.skip(f"{effattack_victim.name} is {whose}, which has a suite of its own")
        session.tell(effattack_victim.name, "verdict", SEVERITY[0])

    def covers(self, victim: Victim) -> bool:
        """Whether a victim is tested here: one of the family, unless it takes no images."""
        return victim.family == self.family and not apart(victim)

    def test_it_keeps_the_contract(
        self, effattack_victim: Victim, effattack_data: tuple[Tensor, Tensor]
    ) -> None:
        """What must hold before any number means anything: :mod:`effattack.victim.checks`.

        Both paths agree, no input depends on its batch, declared MACs are the executed ones,
        margins tell decisions, gradients reach the inputs. Of an artefact the paths are its twin's.
        """
        from effattack.errors import ContractError
        from effattack.victim.checks import held_to

        broken = []
        for check, on in held_to(effattack_victim):
            try:
                check(on, effattack_data[0][:INPUTS])
            except ContractError as error:
                broken.append(str(error))
        if broken:
            pytest.fail("\n".join(broken), pytrace=False)

    def test_its_scores_can_be_trusted(self, effattack_evaluation: Evaluation) -> None:
        """The self-checks: no blind gate, no chance, no control that beats the attacks."""
        checks = effattack_evaluation.checks()
        failed = [f"{c.victim}: {c.check}: {c.message}" for c in checks if c.passed is False]
        if failed:
            pytest.fail("self-check failed: " + "\n".join(failed), pytrace=False)

    def test_its_savings_keep_the_limit(
        self, effattack_evaluation: Evaluation, limit: Limit | None, pytestconfig: pytest.Config
    ) -> None:
        """The worst inside the budget takes back no more than the limit allows."""
        if limit is None:
            pytest.skip(
                "scored, not judged: give a limit, --effattack-fail-below savings_retained=0.6"
            )
        hold_limits(pytestconfig.stash[SESSION], effattack_evaluation, [limit])

    def test_it_is_as_good_as_the_baseline(
        self, effattack_evaluation: Evaluation, pytestconfig: pytest.Config
    ) -> None:
        """Nothing got worse, beyond the noise, since --effattack-compare.

        Registered victims are broken by design, and stay as they are: nothing of theirs may have
        moved, to the better or the worse, since the baseline in ``reports/``. Their clocks may.
        """
        session = pytestconfig.stash[SESSION]
        settings = session.settings
        path = settings.compare or BASELINES / f"{settings.level}.json"
        ours = settings.compare is None
        if ours and not (settings.scores_the_registered and path.exists()):
            pytest.skip("scored, not compared: give a baseline, --effattack-compare NAME")
        comparison = compared(session, effattack_evaluation, path)
        changes = comparison.worse
        if ours:
            changes = [change for change in comparison.moved if not change.of.timed]
        hold_baseline(session, comparison, changes, path.stem)
        if not comparison.judged:
            pytest.skip(f"not compared with {path.stem}: {'; '.join(comparison.notes)}")

    def test_opening_gates_never_saves_work(self, attacked: dict[str, Trace]) -> None:
        """Where one input opened every gate that another one did, it cost no less.

        Attacks open gates; were this wrong, they would push the wrong way.
        """
        import torch

        traces = list(attacked.values())
        if not traces[0].gates:
            pytest.skip("it has no gates")
        macs = torch.cat([trace.macs for trace in traces])
        active = torch.cat([units(trace) for trace in traces]).double()
        only_first = active @ (1 - active).T
        cheaper = (only_first.T == 0) & (macs[:, None] < macs[None, :])
        assert not cheaper.any(), f"{int(cheaper.sum())} pairs of inputs cost less with more open"


class Writing(Suite):
    """Of victims that write text."""

    few = 8
    """Inputs that are run at their longest."""

    def test_the_cap_holds(
        self, effattack_victim: Victim, effattack_data: tuple[Tensor, Tensor]
    ) -> None:
        """Inputs as long as they can be are answered within the cap, and within the ceiling."""
        import torch

        victim = effattack_victim
        long = victim.domain.stretched(effattack_data[0][: self.few])
        with torch.no_grad():
            trace = victim.trace(long)
        cap = getattr(victim.task, "cap", None)
        assert cap is not None, f"{victim.name} declares no cap: nothing but its end token stops it"
        assert trace.logits.shape[1] <= cap
        assert (victim.spent(trace) <= victim.ceiling(long, victim.currency)).all()


@pytest.fixture(scope="session")
def attacked(
    effattack_victim: Victim,
    effattack_data: tuple[Tensor, Tensor],
    effattack_evaluation: Evaluation,
) -> dict[str, Trace]:
    """Attack -> the trace of the attacked inputs that the evaluation keeps; ``clean`` first."""
    import torch

    from effattack.victim.undisturbed import undisturbed

    victim, found = effattack_victim, {}
    kept = effattack_evaluation.samples.dropna(subset=["image"])
    with in_words(), undisturbed(victim), torch.no_grad():
        for attack, rows in kept.groupby("attack", sort=False):
            inputs = victim.domain.unpack([*rows.image], effattack_data[0])
            found[str(attack)] = victim.trace(inputs)
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per limit of the options; imported by every suite."""
    if "limit" in metafunc.fixturenames:
        limits: list[Limit | None] = [*metafunc.config.stash[SESSION].settings.limits] or [None]
        names = [f"{limit.score}={limit.value:g}" if limit else "no limit" for limit in limits]
        metafunc.parametrize("limit", limits, ids=names)


def reads_series(victim: Victim) -> bool:
    """Whether its inputs are series, which have a suite of their own."""
    return victim.domain.kind == "series"


def hears(victim: Victim) -> bool:
    """Whether it writes what it hears, which has a suite of its own."""
    return reads_series(victim) and victim.family == "generation"


def reads_text(victim: Victim) -> bool:
    """Whether its inputs are prompts that it classifies or tags: they have a suite of their own."""
    from effattack.tasks import Classes, Tags

    return victim.domain.kind == "tokens" and isinstance(victim.task, Classes | Tags)


def mixes(victim: Victim) -> bool:
    """Whether its inputs have parts of several kinds, which have a suite of their own."""
    parts = getattr(victim.domain, "parts", {})
    return len({part.kind for part in parts.values()}) > 1


def asks_a_graph(victim: Victim) -> bool:
    """Whether its inputs are queries to a graph, which have a suite of their own."""
    return victim.domain.kind == "graph"


def apart(victim: Victim) -> bool:
    """Whether a suite of its own is for what it takes, whatever its family."""
    return reads_series(victim) or reads_text(victim) or asks_a_graph(victim) or mixes(victim)


def units(trace: Trace) -> Tensor:
    """(B, units of all gates) bool: what was computed, in the order of evaluation."""
    import torch

    return torch.cat([gate.active for gate in trace.gates], 1)


def depth(trace: Trace) -> Tensor:
    """How many decisions of a chain each input was passed on by: (B,).

    Asserts that it is a chain: a decision is reached by those whom the one before passed on.
    """
    import torch

    active = units(trace)
    reached = torch.cat([gate.reached for gate in trace.gates], 1)
    onward = torch.cat([torch.ones_like(active[:, :1]), active[:, :-1]], 1)
    wrong = (reached != onward).any(0).nonzero().flatten().tolist()
    assert not wrong, f"decisions {wrong} of the chain were reached by others than they say"
    return active.sum(1)


def is_staircase(traces: Iterable[Trace]) -> None:
    """Assert that all who leave a chain at one step cost the same, and the next step costs more."""
    steps: dict[int, set[float]] = {}
    for trace in traces:
        for step, macs in zip(depth(trace).tolist(), trace.macs.tolist(), strict=True):
            steps.setdefault(step, set()).add(macs)
    assert all(len(costs) == 1 for costs in steps.values()), "one exit, several costs"
    costs = [min(steps[step]) for step in sorted(steps)]
    assert costs == sorted(set(costs)), "a later exit costs no more than an earlier one"
