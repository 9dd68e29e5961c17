"""Traps that published code fell into, each with a test that fails without the defence.

Those of the attack libraries are in ``tests/attacks/test_adapters.py``; where a trap has its test
beside the code it is not repeated here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Generator, Tensor, nn
from toys import LinearSaver, grey_images, noise_images

from effattack import evaluate
from effattack.attacks import Slowdown, build
from effattack.attacks.base import Attack
from effattack.budgets import LEVELS
from effattack.errors import AuditError, MeasurementError
from effattack.images import fingerprints
from effattack.measure.macs import count_macs
from effattack.models_zoo.digits import digits
from effattack.models_zoo.networks import small_vit
from effattack.models_zoo.token_sparsification.ats import ATS
from effattack.objectives import Goal
from effattack.scores import attack_success
from effattack.selfchecks import check_scores
from effattack.threats import Box, Linf
from effattack.victim import Trace, Victim


def rows(victim: Victim, images: Tensor, attack: Attack | str, **settings: Any) -> pd.DataFrame:
    labels = torch.zeros(len(images)).long()
    found = evaluate(victim, images, labels, [attack], timed=0, **settings).samples
    return found[found.attack == (attack if isinstance(attack, str) else attack.name)]


class Returns(Attack):
    """Returns images that were made elsewhere."""

    def __init__(self, victim: Victim, found: Tensor, threat: Any) -> None:
        self.found = found
        super().__init__(victim, threat)

    def run(self, clean: Tensor, goal: Goal, generator: Generator) -> Tensor:
        return self.found


class BatchRounding(LinearSaver):
    """Rounds otherwise in a batch than alone, as kernels do."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits.flip(1) if len(images) > 1 else logits


def test_success_does_not_depend_on_the_batch_shape() -> None:
    """DeepFool's images lie on the boundary: success 0.80 one by one, 0.52 as a batch."""
    victim, images = BatchRounding(), grey_images(5)
    alone = torch.cat([victim(image) for image in images.split(1)]).argmax(1)
    assert (alone != victim(images).argmax(1)).all(), "the victim sets the trap"
    assert rows(victim, images, "clean").prediction.tolist() == alone.tolist()


def test_savings_that_are_only_masked_are_found_out() -> None:
    """Most published code masks tokens and multiplies them all the same."""

    class Masked(LinearSaver):
        def forward(self, images: Tensor) -> Tensor:
            trace = self.trace(images)
            return trace.logits  # base and saver both ran

    with pytest.raises((AuditError, MeasurementError), match="declares"):
        rows(Masked(), grey_images(8), "clean")


def test_macs_are_averaged_not_tokens() -> None:
    """Attention is convex in the tokens: MACs of the mean number under-report the mean MACs."""
    torch.manual_seed(0)
    vit = small_vit(image=16, width=8, depth=3, heads=2, classes=3)
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape))
    victim = ATS(vit, ats_blocks=(0,))
    trace = victim.trace(noise_images(8, 2, (3, 16, 16)))
    kept = 1 + trace.gates[0].active.sum(1).double()
    assert len(kept.unique()) > 1, "else means say nothing"
    of_mean = victim._macs([17.0] + [kept.mean()] * 3)
    assert trace.macs.mean() > of_mean + 1
    executed = [count_macs(victim, x) for x in noise_images(8, 2, (3, 16, 16)).split(1)]
    assert trace.macs.mean().item() == sum(executed) / 8


def test_success_may_be_negative_and_dense_success_above_one() -> None:
    """A cascade's worst case costs more than its base; accuracy attacks often save compute."""
    assert attack_success(*map(pd.Series, ([20.0], [30.0], [100.0]))) < 0
    victim = LinearSaver()
    scores = evaluate(
        victim, grey_images(20), torch.zeros(20).long(), [Slowdown(victim, threat="box")], timed=0
    ).scores()
    slow = scores.set_index("attack").loc["Slowdown"]
    assert slow.attack_success == 1
    assert slow.attack_success_dense > 1


def test_a_victim_in_training_mode_is_attacked_and_scored_in_eval_mode() -> None:
    victim = LinearSaver()
    victim.base.insert(1, nn.Dropout(0.9))
    images = grey_images(8)
    expected = rows(victim.eval(), images, "Slowdown")
    with pytest.warns(UserWarning, match="training mode"):
        found = rows(victim.train(), images, "Slowdown")
    pd.testing.assert_series_equal(found.macs, expected.macs)
    pd.testing.assert_series_equal(found.prediction, expected.prediction)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda clean: clean - 20 / LEVELS,
        lambda clean: clean + 0.3 / LEVELS,
        lambda clean: clean * 4 - 2,
        lambda clean: clean * torch.nan,
    ],
    ids=["negative changes are unbounded", "off the grid", "normalised", "NaN"],
)
def test_what_leaves_the_budget_is_never_scored(spoil: Callable[[Tensor], Tensor]) -> None:
    clean = grey_images(4)
    with pytest.raises(MeasurementError, match="outside the budget"):
        Returns(LinearSaver(), spoil(clean), Linf(8 / 255))(clean)


def test_the_best_of_noisy_iterates_is_measured_afresh() -> None:
    """An attack may believe in its luckiest draw; its row is what the victim then executes."""

    class Lucky(LinearSaver):
        """Under attack its MACs look twice as high now and then."""

        calls = 0

        def trace(self, images: Tensor) -> Trace:
            trace = super().trace(images)
            self.calls += torch.is_grad_enabled()
            return trace._replace(macs=trace.macs * (1 + (self.calls % 3 == 1)))

    victim, images = Lucky(), grey_images(6)
    found = rows(victim, images, Slowdown(victim, 1 / 255, steps=4))
    with torch.no_grad():
        executed = [count_macs(victim, image) for image in images.split(1)]
    assert victim.calls > 3
    assert set(found.macs) <= {32.0, 176.0}
    assert found.clean_macs.tolist() == executed


def test_a_cap_raised_under_attack_is_an_error() -> None:
    """SlowLiDAR raised the victim's own cap: more MACs than the declared max are no success."""
    victim = LinearSaver()
    victim.max_macs = 100.0
    with pytest.raises(MeasurementError, match="max"):
        evaluate(victim, grey_images(8), torch.zeros(8).long(), ["Slowdown"], timed=0).scores()


def test_thresholds_are_set_on_images_that_are_not_scored() -> None:
    train, heldout, test = (set(fingerprints(digits(s)[0])) for s in ("train", "heldout", "test"))
    assert not test & heldout
    assert not test & train


def test_the_controls_stand_in_every_table() -> None:
    victim = LinearSaver()
    found = evaluate(victim, grey_images(4), torch.zeros(4).long(), [], timed=0)
    assert {"clean", "noise", "uniform"} <= set(found.scores().attack)


@pytest.mark.parametrize(
    ("attacked", "passed"), [(1.3, True), (1.05, False)], ids=["stronger", "weaker"]
)
def test_an_attack_weaker_than_noise_is_flagged(attacked: float, passed: bool) -> None:
    common = {"victim": "v", "threat": "linf", "eps": 0.03, "constant": False}
    scores = pd.DataFrame(
        [
            {**common, "attack": "noise", "macs_ratio": 1.1, "attack_success": 0.1},
            {**common, "attack": "Slowdown", "macs_ratio": attacked, "attack_success": 0.3},
        ]
    )
    (check,) = check_scores(scores, {"noise": "control", "Slowdown": "compute"})
    assert check.passed is passed


def test_success_that_falls_as_the_budget_rises_is_flagged() -> None:
    common = {"victim": "v", "attack": "Slowdown", "threat": "linf", "constant": False}
    scores = pd.DataFrame(
        [
            {**common, "eps": 0.01, "macs_ratio": 2.0, "attack_success": 0.5},
            {**common, "eps": 0.03, "macs_ratio": 1.5, "attack_success": 0.3},
        ]
    )
    (check,) = check_scores(scores, {"Slowdown": "compute"})
    assert check.passed is False


def test_a_fixed_place_and_a_random_place_are_different_threats() -> None:
    victim, clean = LinearSaver(), grey_images(4)
    fixed, free = (build(f"Slowdown(threat='{t}')", victim) for t in ("patch:2@1,1", "patch:2"))
    assert fixed.threat.name != free.threat.name
    changed = (fixed(clean) != clean).any(1)
    changed[:, 1:3, 1:3] = False
    assert not changed.any()


def test_tanh_rescaling_would_be_seen() -> None:
    """An attack whose zero step already distorts every image (GradAuto's tanh rescaling)."""
    clean = grey_images(4)
    distorted = ((clean * 2 - 1).mul(0.8).tanh() / 2 + 0.5).mul(LEVELS).round().div(LEVELS)
    with pytest.raises(MeasurementError, match="outside the budget"):
        Returns(LinearSaver(), distorted, Linf(2 / 255))(clean)
    assert torch.equal(Returns(LinearSaver(), distorted, Box())(clean), distorted)
