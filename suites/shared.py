"""What every family of victims is held to, whatever it saves by; each suite inherits it.

A suite is a class of tests with a ``family`` and, as its marker, the registered victims of that
family. It scores those, or in their place the user's own victim of --effattack-victim.
"""

from __future__ import annotations

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

IMAGES = 16
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
        if not self.covers(effattack_victim.family):
            session.tell(effattack_victim.name, LEFT, True)
            pytest.skip(
                f"{effattack_victim.name} is of the family {effattack_victim.family!r}, which has "
                "a suite of its own"
            )
        session.tell(effattack_victim.name, "verdict", SEVERITY[0])

    def covers(self, family: str) -> bool:
        """Whether victims of that family are tested here."""
        return family == self.family

    def test_it_keeps_the_contract(
        self, effattack_victim: Victim, effattack_data: tuple[Tensor, Tensor]
    ) -> None:
        """What must hold before any number means anything: :mod:`effattack.victim.checks`.

        Both paths agree, no image depends on its batch, declared MACs are the executed ones,
        margins tell decisions, gradients reach the pixels.
        """
        from effattack.errors import ContractError
        from effattack.victim.checks import INVARIANTS

        broken = []
        for check in INVARIANTS:
            try:
                check(effattack_victim, effattack_data[0][:IMAGES])
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
        """Where one image opened every gate that another one did, it cost no less.

        Attacks open gates; were this wrong, they would push the wrong way.
        """
        import torch

        traces = list(attacked.values())
        if not traces[0].gates:
            pytest.skip("it has no gates")
        macs = torch.cat([trace.macs for trace in traces])
        active = torch.cat(
            [torch.cat([gate.active for gate in t.gates], 1) for t in traces]
        ).double()
        only_first = active @ (1 - active).T
        cheaper = (only_first.T == 0) & (macs[:, None] < macs[None, :])
        assert not cheaper.any(), f"{int(cheaper.sum())} pairs of images cost less with more open"


@pytest.fixture(scope="session")
def attacked(effattack_victim: Victim, effattack_evaluation: Evaluation) -> dict[str, Trace]:
    """Attack -> the trace of the attacked images that the evaluation keeps; ``clean`` first."""
    import numpy as np
    import torch

    from effattack.budgets import LEVELS
    from effattack.victim.undisturbed import undisturbed

    victim, found = effattack_victim, {}
    kept = effattack_evaluation.samples.dropna(subset=["image"])
    with in_words(), undisturbed(victim), torch.no_grad():
        for attack, rows in kept.groupby("attack", sort=False):
            levels = np.stack([np.frombuffer(image, np.uint8) for image in rows.image])
            images = torch.from_numpy(levels).view(-1, *victim.input_shape) / LEVELS
            found[str(attack)] = victim.trace(images.to(victim.device))
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per limit of the options; imported by every suite."""
    if "limit" in metafunc.fixturenames:
        limits: list[Limit | None] = [*metafunc.config.stash[SESSION].settings.limits] or [None]
        names = [f"{limit.score}={limit.value:g}" if limit else "no limit" for limit in limits]
        metafunc.parametrize("limit", limits, ids=names)


def depth(trace: Trace) -> Tensor:
    """How many decisions of a chain of gates each image was passed on by: (B,).

    Asserts that it is a chain: a decision is reached by those whom the one before passed on.
    """
    import torch

    onward = torch.ones_like(trace.gates[0].active)
    passed = torch.zeros_like(onward[:, 0], dtype=torch.long)
    for gate in trace.gates:
        assert gate.active.shape[1] == 1, f"{gate.name} decides on more than the image as a whole"
        assert torch.equal(gate.reached, onward), f"{gate.name} was reached by others than it says"
        onward = gate.active
        passed += onward[:, 0]
    return passed
