"""The ensemble: its budget, its stages, and that none of its members beats it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from toys import LinearSaver, embedded, grey_images

from effattack.attacks import ILFO, AutoSlow, DeepSloth, Slowdown
from effattack.attacks.house import auto
from effattack.attacks.objectives import (
    BatchGoal,
    MarginHinge,
    ReweightedHinge,
    StayUnnoticed,
    Step,
    Towards,
    UniformExits,
)
from effattack.attacks.published.ilfo import DesiredStates
from effattack.attacks.searches import projected
from effattack.attacks.searches.best import kept
from effattack.attacks.searches.projected import (
    Best,
    ProjectedAdam,
    ProjectedGradient,
    constant,
    input_gradient,
)
from effattack.errors import NotApplicable
from effattack.models_zoo.criteria import Criterion
from effattack.models_zoo.digits import digits
from effattack.models_zoo.early_exit.early_exit import EarlyExit
from effattack.models_zoo.generation.embedded import sums_lm
from effattack.threats import Linf
from effattack.victim import Opaque, Trace, Victim
from effattack.victim.margins import bounded, confidence_log_odds, spread


def macs(victim: Victim, images: Tensor) -> Tensor:
    with torch.no_grad():
        return victim.trace(images).macs


class Masked(LinearSaver):
    """The value of its margin is right, its slope leads away from the threshold."""

    def trace(self, images: Tensor) -> Trace:
        trace = super().trace(images)
        gate = trace.gates[0]
        turned = gate.margin.detach() * 2 - gate.margin
        return trace._replace(gates=(gate._replace(margin=turned),))


def test_the_published_losses_of_a_victim_join() -> None:
    def members(name: str) -> list[str]:
        return [type(stage.objective).__name__ for stage in AutoSlow(embedded(name)).stages]

    ends = ["DesiredStates", "MarginHinge", "ReweightedHinge"]
    chain = ["MarginHinge", "UniformExits", "DesiredStates", *["Towards"] * 4, *ends[1:]]
    assert members("digits_cnn_early_exit") == chain
    assert "WeightedSignificance" in members("digits_vit_ats")
    written = ["NeitherEndNorWritten", "Verbose", "Repeating"]
    plain = ["DesiredStates", *["MarginHinge"] * 3, "ReweightedHinge"]
    assert [type(stage.objective).__name__ for stage in AutoSlow(sums_lm()).stages] == [
        *("MarginHinge", *written, *plain)
    ]
    assert members("digits_skipnet") == ["MarginHinge", ends[0], *["MarginHinge"] * 2, *ends[1:]]


@pytest.mark.parametrize("keep", [False, True])
def test_its_stages(keep: bool) -> None:
    stages = AutoSlow(embedded("digits_cnn_early_exit"), keep_prediction=keep, seed=5).stages
    wanted = [stage.objective.slow if keep else stage.objective for stage in stages]  # type: ignore[attr-defined]
    assert wanted == [
        MarginHinge(auto.KAPPA),
        UniformExits(),
        DesiredStates(1.0, auto.KAPPA),
        *(Towards(rank) for rank in (1, 2, 3, 4)),
        MarginHinge(auto.FINE_KAPPA),
        ReweightedHinge(auto.KAPPA, 5),
    ]
    assert auto.FINE_KAPPA < auto.KAPPA / 10
    assert [stage.start for stage in stages] == [
        *("random", "best", "clean"),
        *["clean"] * 4,
        *("random", "best"),
    ]
    assert [type(stage.search) is ProjectedAdam for stage in stages] == [0, 0, 1, *[0] * 6]
    for stage in stages:
        assert stage.search.accept is (kept if keep else None)
        assert isinstance(stage.objective, StayUnnoticed) is keep


def test_baselines_and_cells_can_tell_the_editions_apart() -> None:
    victim = LinearSaver()
    assert "edition=3" in repr(AutoSlow(victim))
    assert "edition" not in repr(Slowdown(victim))


def test_values_of_different_objectives_are_not_compared() -> None:
    """The hinge is positive where a gate is open, DeepSloth's loss never; one would hide it."""
    victim, told = LinearSaver(), []
    victim.max_macs *= 10  # so that no image is finished early
    AutoSlow(victim, 8 / 255)(grey_images(30), callback=told.append)
    house, sloth, states, second, again, refined, queries = (
        [step.value for step in told if step.restart == number] for number in range(7)
    )
    assert (house[-1] > 0).any()
    assert all((value <= 0).all() for value in (*sloth, *states, *second))
    assert (again[-1] > 0).any()
    assert (refined[-1] > 0).any()
    assert all(((value >= 0) & (value <= 1)).all() for value in queries)
    assert len(queries) == auto.QUERIES


def test_the_budget_of_gradients_is_fixed_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Tensor] = []

    def counted(value: Tensor, images: Tensor, trace: Trace) -> Tensor:
        looks.append(images)
        return input_gradient(value, images, trace)

    monkeypatch.setattr(projected, "input_gradient", counted)
    attack = AutoSlow(LinearSaver(), 1 / 255)
    attack(grey_images(16))
    assert attack.gradients == len(looks) == 200
    assert {
        AutoSlow(embedded(name)).gradients
        for name in ("digits_skipnet", "digits_vit_ats", "digits_cnn_early_exit")
    } == {attack.gradients}


@pytest.mark.parametrize("classes", [2, 3, 4, 5, 10])
def test_however_many_classes_there_are(classes: int) -> None:
    stages = [nn.Sequential(nn.Flatten(), nn.Linear(16, 4)), nn.Linear(4, 4)]
    heads = [nn.Linear(4, classes) for _ in stages]
    victim = EarlyExit(stages, heads, LogOdds((0.0,)), (1, 4, 4))
    attack = AutoSlow(victim)
    wanted = [each.objective for each in attack.stages if isinstance(each.objective, Towards)]
    assert wanted == list(auto.TOWARDS[: classes - 1])
    assert attack.gradients == 200


def test_no_member_beats_it_on_its_whole_budget() -> None:
    victim, images = LinearSaver(), grey_images(40)
    whole = AutoSlow(victim, 3 / 255).gradients
    ours = macs(victim, AutoSlow(victim, 3 / 255)(images)).sum()
    for rival in (Slowdown, DeepSloth, ILFO):
        assert ours >= macs(victim, rival(victim, 3 / 255, steps=whole)(images)).sum()


def test_a_later_stage_goes_on_from_the_best_and_loses_nothing() -> None:
    victim, images = LinearSaver(), grey_images(20)
    goal = BatchGoal.of(victim, images, None)
    best = Best.of(images, goal)
    before = best.rank.work.clone()
    ProjectedGradient(8, constant(0.5)).climb(
        best, best.inputs.clone(), images, Linf(4 / 255), UniformExits(), goal
    )
    assert (best.rank.work >= before).all()
    assert (best.rank.work > before).any()


def test_queries_open_what_masked_gradients_leave_shut() -> None:
    victim, images = Masked(), grey_images(40)
    blind = macs(victim, Slowdown(victim, 16 / 255, steps=100)(images)).sum()
    assert macs(victim, AutoSlow(victim, 16 / 255)(images)).sum() > blind


def test_images_at_the_max_leave_at_once() -> None:
    victim, images = LinearSaver(doubt=1e9), grey_images(4)
    seen: list[Step] = []
    found = AutoSlow(victim)(images, callback=seen.append)
    assert not seen
    assert torch.equal(found, images)


def test_slow_and_right(digit_images: Tensor) -> None:
    victim = embedded("digits_cnn_early_exit")
    found = AutoSlow(victim, keep_prediction=True)(digit_images)
    assert torch.equal(victim(found).argmax(1), victim(digit_images).argmax(1))
    assert macs(victim, found).sum() > macs(victim, digit_images).sum()


@pytest.mark.parametrize("threat", ["patch:2", "pixels:3", "l2:0.3", "l1:1"])
def test_it_works_in_every_budget_and_repeats_itself(threat: str) -> None:
    victim, images = LinearSaver(), grey_images(8)
    found = AutoSlow(victim, threat=threat, seed=3)(images)
    assert torch.equal(found, AutoSlow(victim, threat=threat, seed=3)(images))
    assert (macs(victim, found) >= macs(victim, images)).all()


def test_a_model_that_cannot_be_opened_is_refused() -> None:
    with pytest.raises(NotApplicable, match="no gates"):
        AutoSlow(Opaque(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), (1, 4, 4)))


# blind margins


class LogOdds(Criterion):
    """Confidence with thresholds as log-odds: beyond ±36 they are no float64 probabilities."""

    def __init__(self, thresholds: Sequence[float]) -> None:
        self.thresholds = tuple(thresholds)

    def margin(self, stage_logits: Tensor) -> Tensor:
        logits = stage_logits[:, -1]
        threshold = self.thresholds[stage_logits.shape[1] - 1]
        return bounded(threshold - confidence_log_odds(logits), spread(logits))


class Louder(nn.Module):
    """A classifier whose logits are multiplied."""

    def __init__(self, head: nn.Module, factor: float) -> None:
        super().__init__()
        self.head, self.factor = head, factor

    def forward(self, features: Tensor) -> Tensor:
        return self.factor * self.head(features)


def recalibrated(victim: EarlyExit, factor: float, images: Tensor) -> EarlyExit:
    """Logits times a factor; from every exit as many images leave as before."""
    with torch.no_grad():
        trace = victim.trace(images)
    assert trace.stage_logits is not None
    here, thresholds = torch.ones(len(images), dtype=torch.bool), []
    for gate, logits in zip(trace.gates, trace.stage_logits.unbind(1), strict=False):
        confidence = confidence_log_odds(factor * logits)
        left = int(gate.active.sum())
        around = confidence[here].sort().values[left - 1 : left + 1]
        thresholds.append(around.mean().item())
        here &= confidence < thresholds[-1]
    heads = [Louder(head, factor) for head in victim.heads]
    return EarlyExit(list(victim.stages), heads, LogOdds(thresholds), victim.input_shape)


def success(attack: AutoSlow | Slowdown, images: Tensor) -> float:
    clean = macs(attack.victim, images).sum()
    gained = macs(attack.victim, attack(images)).sum() - clean
    return (gained / (len(images) * attack.victim.max_macs - clean)).item()


@pytest.mark.slow
def test_scaled_logits_do_not_blind_the_attacks() -> None:
    victim = embedded("digits_cnn_early_exit")
    assert isinstance(victim, EarlyExit)
    images = digits("test")[0][:60]
    louder = recalibrated(victim, 50, images)
    assert max(louder.criterion.thresholds) > 36  # type: ignore[attr-defined]
    calm = macs(victim, images).sum().item()
    assert macs(louder, images).sum().item() == pytest.approx(calm, rel=0.02)
    for attack, loss in ((AutoSlow, 0.02), (Slowdown, 0.05)):
        assert (
            success(attack(louder, 4 / 255), images)
            >= success(attack(victim, 4 / 255), images) - loss
        )
