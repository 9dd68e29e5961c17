"""Traps that published code fell into, each with a test that fails without the defence.

:data:`TRAPS` is the table of them. Those of the attack libraries have their tests in
``tests/attacks/``, others beside the code that defends against them; the rest is here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hand_made import samples
from torch import Generator, Tensor, nn
from toys import LinearSaver, grey_images, noise_images

from effattack import evaluate
from effattack.attacks import (
    GradAuto,
    MinimalBudget,
    Slowdown,
    Transfer,
    UniversalSlowdown,
    build,
)
from effattack.attacks.base import Attack
from effattack.attacks.objectives import Goal
from effattack.budgets import LEVELS
from effattack.counting.macs import count_macs
from effattack.domains import Pixels
from effattack.errors import AuditError, ContractError, MeasurementError
from effattack.models_zoo import load
from effattack.models_zoo.defences import digits as defended
from effattack.models_zoo.digits import digits
from effattack.models_zoo.networks import small_vit
from effattack.models_zoo.recipes import early_exit as recipes
from effattack.models_zoo.token_sparsification.ats import ATS
from effattack.results.resampling import attack_success
from effattack.results.scores import score_table
from effattack.results.selfchecks import check_scores
from effattack.threats import Box, Linf
from effattack.victim import Trace, Victim, audit
from effattack.victim.checks import beside_noise

TESTS = Path(__file__).parent
TRAPS = {
    # of attack libraries
    "success depends on the batch shape": "test_traps.py::"
    "test_success_does_not_depend_on_the_batch_shape",
    "NaN counts as success": "attacks/test_adapters.py::test_nan_means_not_attacked",
    "normalised input is accepted": "domains/test_pixels.py::test_images_that_are_none",
    "an exception leaves the model changed": "attacks/test_adapters.py::"
    "test_an_exception_undoes_side_effects_too",
    "results hold on to their graph": "attacks/test_adapters.py::test_what_is_returned_is_detached",
    "global seeds are set, and gradients left": "attacks/test_adapters.py::"
    "test_side_effects_are_undone",
    "seeded from the clock": "attacks/test_libraries.py::"
    "test_attacks_are_told_the_number_of_classes_and_the_seed",
    "fails under no_grad": "attacks/test_attacks.py::test_autograd_of_the_caller_does_not_matter",
    "fails in float64": "attacks/test_libraries.py::test_what_fails_in_float64_sees_float32",
    "the library must be there": "attacks/test_adapters.py::test_missing_library_names_the_extra",
    # of efficiency attacks
    "gates mask their gradients": "victim/test_contract.py::test_zero_gradient_is_a_warning",
    "saturated margins are blind": "attacks/test_attacks.py::test_scaled_logits_are_attacked_alike",
    "queries beat gradients": "results/test_selfchecks.py::"
    "test_a_query_search_that_beats_the_gradients_is_told",
    "success falls with the budget": "test_traps.py::"
    "test_success_that_falls_as_the_budget_rises_is_flagged",
    "savings are only masked": "test_traps.py::test_savings_that_are_only_masked_are_found_out",
    "MACs of the mean of tokens": "test_traps.py::test_macs_are_averaged_not_tokens",
    "success is clipped": "test_traps.py::test_success_may_be_negative_and_dense_success_above_one",
    "the structural max is never reached": "test_traps.py::"
    "test_what_was_reached_stands_beside_the_structural_max",
    "training mode": "test_traps.py::"
    "test_a_victim_in_training_mode_is_attacked_and_scored_in_eval_mode",
    "gates are drawn": "test_traps.py::test_gates_that_are_drawn_are_refused",
    "answers are drawn": "test_traps.py::test_answers_that_are_drawn_are_flagged",
    "a defence draws": "models_zoo/test_defences.py::test_a_draw_is_the_images_own",
    "images slow their batch mates": "measure/test_batching.py::"
    "test_a_batch_that_is_padded_pays_for_one_attacked_image",
    "the budget is left": "test_traps.py::test_what_leaves_the_budget_is_never_scored",
    "every image is distorted": "test_traps.py::test_tanh_rescaling_would_be_seen",
    "the best of noisy iterates": "test_traps.py::"
    "test_the_best_of_noisy_iterates_is_measured_afresh",
    "the attack raises the cap": "test_traps.py::test_a_cap_raised_under_attack_is_an_error",
    "thresholds are set on scored images": "test_traps.py::"
    "test_thresholds_are_set_on_images_that_are_not_scored",
    "no controls": "test_traps.py::test_the_controls_stand_in_every_table",
    "weaker than noise": "test_traps.py::test_an_attack_weaker_than_noise_is_flagged",
    "the defence is not attacked through": "models_zoo/test_defences.py::"
    "test_the_house_attack_reaches_the_capped_worst_case",
    "universal on what it was fitted on": "attacks/test_universal.py::"
    "test_evaluate_refuses_what_was_not_held_out",
    "fixed and random places are mixed up": "test_traps.py::"
    "test_a_fixed_place_and_a_random_place_are_different_threats",
    "the cost of crafting is not told": "test_traps.py::"
    "test_an_attack_takes_the_gradients_that_it_declares",
    "the cost of crafting is not amortised": "test_traps.py::"
    "test_a_universal_attack_costs_nothing_more_per_image",
    "a counter that stands still": "measure/test_energy.py::"
    "test_a_counter_that_does_not_advance_gives_nothing_and_the_reason",
    "values alone move the power": "measure/test_energy.py::"
    "test_controls_tell_compute_from_the_power_of_values",
    "accuracy is no agreement": "results/test_scores.py::"
    "test_accuracy_and_agreement_are_different_things",
}
"""Trap -> the test that fails where the defence against it is taken away."""


@pytest.mark.parametrize("test", TRAPS.values(), ids=TRAPS)
def test_the_table_names_tests_that_exist(test: str) -> None:
    file, _, name = test.partition("::")
    assert f"def {name}(" in (TESTS / file).read_text()


def rows(victim: Victim, images: Tensor, attack: Attack | str, **settings: Any) -> pd.DataFrame:
    labels = torch.zeros(len(images)).long()
    found = evaluate(victim, images, labels, [attack], timed=0, **settings).samples
    return found[found.attack == (attack if isinstance(attack, str) else attack.name)]


class Returns(Attack):
    """Returns images that were made elsewhere."""

    def __init__(self, victim: Victim, found: Tensor, threat: Any) -> None:
        self.found = found
        super().__init__(victim, threat=threat)

    def run(self, clean: Tensor, goal: Goal, generator: Generator) -> Tensor:
        return self.found


class BatchRounding(LinearSaver):
    """Rounds otherwise in a batch than alone, as kernels do; every image lies on the boundary."""

    def __init__(self) -> None:
        super().__init__(doubt=1e3)
        last = self.base[2]
        with torch.no_grad():
            last.weight[1] = last.weight[0]
            last.bias.copy_(torch.tensor([1e-5, 0.0]))

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits.flip(1) if len(images) > 1 and images.dtype == torch.float32 else logits


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
    assert attack_success(np.array([20.0, 30.0, 100.0])) < 0
    victim = LinearSaver()
    scores = evaluate(
        victim, grey_images(20), torch.zeros(20).long(), [Slowdown(victim, threat="box")], timed=0
    ).scores()
    slow = scores.set_index("attack").loc["Slowdown"]
    assert slow.attack_success == 1
    assert slow.attack_success_dense > 1


def test_what_was_reached_stands_beside_the_structural_max() -> None:
    """AdaViT was said to resist: its structural max of 4.6 G is never reached, 4.18 G was."""
    victim, images = LinearSaver(), grey_images(20)
    victim.max_macs = 1000.0  # beyond what any image executes
    found = evaluate(victim, images, torch.zeros(20).long(), [], timed=0, eps=1 / 255).scores()
    assert set(found.max_macs) == {1000.0}
    assert found.set_index("attack").reachable["clean"] == 32 + 144


class Drawing(LinearSaver):
    """A gate with noise on its margin, drawn anew every time."""

    def margin(self, logits: Tensor) -> Tensor:
        margin = super().margin(logits)
        return (margin + torch.randn_like(margin)).tanh()


def test_gates_that_are_drawn_are_refused() -> None:
    """One draw is no score, and an attack would pick the lucky ones: policies must not draw."""
    with pytest.raises((AuditError, MeasurementError), match="declares"):
        rows(Drawing(), grey_images(20), "clean")


class Noisy(LinearSaver):
    """Draws its answers, by so many units of rounding."""

    def __init__(self, units: float) -> None:
        super().__init__()
        self.units = units

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits + self.units * torch.finfo(logits.dtype).eps * torch.randn_like(logits)


def test_answers_that_are_drawn_are_flagged() -> None:
    """Within rounding; what is drawn beyond it breaks the contract."""
    labels = torch.zeros(4).long()
    for units, deterministic in ((8, False), (0, True)):
        checks = evaluate(Noisy(units), grey_images(4), labels, [], timed=0).checks()
        (passed,) = (check.passed for check in checks if "deterministic" in check.check)
        assert passed is deterministic
    with pytest.raises(ContractError, match=r"forward, run twice, differ .*draw nothing at random"):
        evaluate(Noisy(1e7), grey_images(4), labels, [], timed=0)


class Counting(LinearSaver):
    """Counts backward passes that reach the images, and images traced; none is ever done."""

    def __init__(self) -> None:
        super().__init__()
        self.max_macs *= 10
        self.backward = self.traced = 0

    def trace(self, images: Tensor) -> Trace:
        self.traced += len(images)
        if images.requires_grad:
            images = images.clone()
            images.register_hook(self.count)
        trace = super().trace(images)
        shares = trace.gates[0].margin.sigmoid()
        return trace._replace(aux={"shares": shares})

    def count(self, gradient: Tensor) -> None:
        self.backward += len(gradient)


@pytest.mark.parametrize(
    "name",
    [
        "Slowdown(steps=7)",
        "Slowdown(steps=7, restarts=2)",
        "DeepSloth(steps=5)",
        "CascadeAttack(steps=6)",
        "SlowAndWrong(steps=4)",
        "ILFO(steps=9)",
        "PGDAvg(steps=4)",
        "PGDMax(steps=4)",
        "Transfer",
        "AutoSlow",
        "QueryAttack(queries=8)",
        "noise",
        "foolbox.LinfPGD",
        "torchattacks.PGD",
        "torchattacks.PGD(steps=3)",
    ],
)
def test_an_attack_takes_the_gradients_that_it_declares(name: str) -> None:
    """An attack may cost hundreds of times what it makes its victim waste: it must be told."""
    if name.startswith("torchattacks"):
        pytest.importorskip("torchattacks")
    victim = Counting()
    if name == "Transfer":
        attack = Transfer(LinearSaver(), source=victim, attack="Slowdown(steps=6)")
    else:
        attack = build(name, victim)
    victim.backward = 0
    attack(grey_images(3))
    assert victim.backward == 3 * attack.gradients


@pytest.mark.parametrize(("weight", "passes"), [(0.0, 2), (1.0, 3)])
def test_a_merged_gradient_is_several(weight: float, passes: int) -> None:
    victim = Counting()
    victim.family = "layer skipping"
    attack = GradAuto(victim, 8 / 255, steps=5, logits_weight=weight)
    victim.backward = 0
    attack(grey_images(3))
    assert victim.backward == 3 * attack.gradients == 3 * 5 * passes


def test_a_search_for_the_smallest_budget_declares_all_of_its_attacks() -> None:
    victim = LinearSaver()
    attack = MinimalBudget(victim, 32 / 255, attack="Slowdown(steps=10)")
    assert attack.gradients == 10 * (1 + 5)


def test_a_universal_attack_costs_nothing_more_per_image() -> None:
    victim = Counting()
    attack = UniversalSlowdown(victim, epochs=2, batch=4).fit(grey_images(8))
    assert victim.backward == 2 * 8
    victim.backward = victim.traced = 0
    attack(grey_images(5, seed=1))
    assert (victim.backward, victim.traced) == (0, 5), "the clean prediction alone"
    assert attack.gradients == 0


def test_a_victim_in_training_mode_is_attacked_and_scored_in_eval_mode() -> None:
    victim = LinearSaver()
    victim.saver = nn.Sequential(nn.Dropout(0.9), victim.saver)  # in training mode, gates flip
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
            lucky = torch.is_grad_enabled() and self.calls % 3 == 1
            return trace._replace(macs=trace.macs * (1 + lucky))

    victim, images = Lucky(), grey_images(6)
    found = rows(victim, images, Slowdown(victim, 1 / 255, steps=4))
    with torch.no_grad():
        executed = [count_macs(victim, image) for image in images.split(1)]
    assert victim.calls > 3
    assert set(found.macs) <= {32.0, 176.0}
    assert found.clean_macs.tolist() == executed


def test_a_cap_raised_under_attack_is_an_error() -> None:
    """SlowLiDAR raised the victim's own cap: more MACs than the declared max are no success."""
    victim, images = LinearSaver(doubt=0.1), grey_images(40)
    images = images[victim.missing(images) > 0][:4]
    victim.max_macs = 100.0
    assert (audit(victim, beside_noise(images, 16, victim.domain)).macs <= victim.max_macs).all()
    with pytest.raises(ContractError, match=r"under (?!clean).* 176 MACs.*max"):
        evaluate(victim, images, torch.zeros(len(images)).long(), ["Slowdown"], timed=0)


def test_thresholds_are_set_on_images_that_are_not_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    images = Pixels((3, 32, 32))
    train, heldout, test = (
        set(images.fingerprints(digits(split)[0])) for split in ("train", "heldout", "test")
    )
    assert not test & heldout
    assert not test & train
    asked: list[str] = []

    def recorded(split: str) -> tuple[Tensor, Tensor]:
        asked.append(split)
        return digits(split)

    for module in (recipes, defended):
        monkeypatch.setattr(module, "digits", recorded)
    monkeypatch.setattr(recipes, "write_card", lambda *card: None)
    monkeypatch.setattr(recipes, "describe", lambda *told, **more: None)
    recipes.choose_threshold(
        "any", lambda: load("digits_cnn_early_exit"), lambda logits, labels: 0.5
    )
    defended._caps.__wrapped__("digits_vit_ats")
    assert asked == ["heldout", "heldout"]


def test_the_controls_stand_in_every_table() -> None:
    victim = LinearSaver()
    found = evaluate(victim, grey_images(4), torch.zeros(4).long(), [], timed=0)
    assert {"clean", "noise", "uniform"} <= set(found.scores().attack)


@pytest.mark.parametrize(
    ("attacked", "passed"), [(1.3, True), (1.05, False)], ids=["stronger", "weaker"]
)
def test_an_attack_weaker_than_noise_is_flagged(attacked: float, passed: bool) -> None:
    clean = [20.0] * 8
    costs = {"noise": 1.1, "Slowdown": attacked}
    frames = [samples(name, clean, [20 * ratio] * 8) for name, ratio in costs.items()]
    found = checked(*frames)
    assert found.pop("noise does not beat the attacks") is passed
    assert found == {"Slowdown is stronger than noise": passed}


def test_success_that_falls_as_the_budget_rises_is_flagged() -> None:
    budgets = {0.01: 60.0, 0.03: 44.0}
    frames = [samples("Slowdown", [20.0], [macs], eps=eps) for eps, macs in budgets.items()]
    assert checked(*frames) == {"Slowdown grows with the budget": False}


def checked(*frames: pd.DataFrame) -> dict[str, bool | None]:
    """The self-checks of these rows, and how they ended."""
    rows = pd.concat(frames, ignore_index=True)
    return {check.check: check.passed for check in check_scores(rows, score_table(rows))}


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
