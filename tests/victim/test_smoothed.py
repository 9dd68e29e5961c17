"""Noise at the door: the contract for every seed, and draws that searches have for themselves."""

from __future__ import annotations

import pytest
import torch
from toys import LinearSaver, embedded, grey_images

from effattack.attacks import (
    Clean,
    QueryAttack,
    Slowdown,
    UniversalAttack,
    UniversalSlowdown,
    build,
)
from effattack.errors import NotApplicable, UsageError
from effattack.inputs.source import load_data, subset
from effattack.results.selfchecks import check_victim
from effattack.victim import Opaque, Victim, audit
from effattack.victim.deployed.deployed import Deployed
from effattack.victim.draws import OverDraws
from effattack.victim.smoothed import Smoothed


def series(count: int) -> torch.Tensor:
    """Of the sizes that the early-exit GRU takes."""
    noise = torch.rand(count, 1, 128, generator=torch.Generator().manual_seed(0))
    return noise * 2 - 1


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "make",
    [LinearSaver, pytest.param(lambda: embedded("cbf_early_gru"), marks=pytest.mark.slow)],
    ids=["toy", "series"],
)
def test_contract_and_audit_hold_for_each_seed(make: type[Victim], seed: int) -> None:
    victim = Smoothed(make(), 0.1).seeded(seed)
    images = grey_images(6) if victim.domain.kind == "pixels" else series(6)
    checks = check_victim(victim, images)
    assert not [check.message for check in checks if check.passed is False]
    found = audit(victim, images)
    assert torch.equal(found.macs, victim.trace(images).macs)
    assert torch.equal(found.logits.argmax(1), victim.trace(images).logits.argmax(1))


def test_noise_is_that_of_seed_and_input_alone() -> None:
    victim, images = Smoothed(LinearSaver(), 0.2), grey_images(5)
    noisy = victim.noisy(images, "0")
    assert torch.equal(victim.noisy(images[[3, 1]], "0"), noisy[[3, 1]])
    assert not torch.equal(victim.noisy(images, "1"), noisy)
    assert torch.equal(victim(images), victim.seeded(0)(images))
    assert not torch.equal(victim(images), victim.seeded(1)(images))
    double = victim.in_float64()
    assert double is not None
    assert (double.noisy(images.double(), "0") - noisy).abs().max() < 1e-6


def test_noise_has_the_deviation_that_it_says_and_is_not_clamped() -> None:
    victim = Smoothed(LinearSaver(), 0.3)
    images = torch.rand(600, 1, 4, 4, generator=torch.Generator().manual_seed(0)).round()
    noise = victim.noisy(images, "0") - images
    assert abs(noise.std().item() - 0.3) < 0.01
    assert (victim.noisy(images, "0") > 1).any()
    assert (victim.noisy(images, "0") < 0).any()


def test_searches_see_means_over_draws_that_no_score_is_of() -> None:
    victim, images = Smoothed(LinearSaver(), 0.2, draws=5), grey_images(4)
    seen = victim.searched(3)
    assert isinstance(seen, OverDraws)
    single = [victim.victim.trace(victim.noisy(images, f"search 3 {k}")) for k in range(5)]
    trace = seen.trace(images)
    assert torch.allclose(trace.macs, torch.stack([t.macs for t in single]).mean(0))
    assert torch.allclose(trace.logits, torch.stack([t.logits for t in single]).mean(0))
    (gate,) = trace.gates
    assert gate.margin.shape == (4, 5)
    assert torch.equal(gate.margin[:, 2:3], single[2].gates[0].margin)
    weighed = (gate.margin * gate.cost).sum(1)
    means = [(t.gates[0].margin * t.gates[0].cost).sum(1) for t in single]
    assert torch.allclose(weighed, torch.stack(means).mean(0))
    for seed in range(3):
        assert not torch.equal(victim.seeded(seed).noisy(images, str(seed)), images)
    assert LinearSaver().searched(3).name == "toy"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "attacks"),
    [
        ("digits_vit_ats", ["DeSparsify(steps=2)", "SlowFormer(epochs=1)", "Slowdown(steps=2)"]),
        ("digits_skipnet", ["GradAuto(steps=2)", "GradMDM(steps=2)", "ILFO(steps=2)"]),
        ("digits_cnn_early_exit", ["DeepSloth(steps=2)", "PGDAvg(steps=2)", "Sponge(steps=2)"]),
        ("digits_cnn_early_exit", ["foolbox.LinfPGD(steps=2)", "MinimalBudget"]),
    ],
)
def test_published_attacks_apply(name: str, attacks: list[str]) -> None:
    victim = Smoothed(embedded(name), 0.1, draws=2)
    images, labels = subset(*load_data(None, victim), 2)
    for text in attacks:
        attack = build(text, victim)
        if isinstance(attack, UniversalAttack):
            attack.fit(images, labels)
        attack(images, labels)  # which checks what comes out


def test_attacks_climb_the_mean_and_never_the_draw_that_judges() -> None:
    victim, images = Smoothed(LinearSaver(), 0.05), grey_images(12)
    attacks = [
        Slowdown(victim, eps=16 / 255, steps=20),
        QueryAttack(victim, eps=16 / 255, queries=40),
        UniversalSlowdown(victim, eps=16 / 255, epochs=3).fit(grey_images(12, seed=1)),
    ]
    seeds: set[object] = set()
    original = Smoothed.trace
    try:
        Smoothed.trace = lambda self, batch, leaf=None: (
            seeds.add(self.seed) or original(self, batch)
        )
        found = [attack(images) for attack in attacks]
    finally:
        Smoothed.trace = original
    assert seeds
    assert all(str(seed).startswith("search ") for seed in seeds)
    fresh = [victim.seeded(seed) for seed in range(100, 140)]

    def mean(batch: torch.Tensor) -> float:
        return torch.stack([each.trace(batch).macs for each in fresh]).mean().item()

    assert mean(found[0]) > mean(images) + 10
    assert mean(found[1]) > mean(images)
    assert torch.equal(Clean(victim)(images), images)


def test_models_that_cannot_be_opened_and_artefacts_are_smoothed_too() -> None:
    toy, images = LinearSaver(), grey_images(5)
    opaque = Smoothed(Opaque(toy, (1, 4, 4), max_macs=176), 0.1)
    plain = Smoothed(toy, 0.1)
    assert opaque.sees == "answers"
    assert torch.equal(audit(opaque, images).macs, audit(plain, images).macs)

    shipped = Deployed(toy, toy, lambda batch: toy.trace(batch).macs, name="shipped")
    deployed = Smoothed(shipped, 0.1)
    assert torch.equal(audit(deployed, images).macs, audit(plain, images).macs)
    assert audit(deployed, images).as_twin == (True,) * 5
    assert deployed.queried.sees == "answers"
    assert not deployed.queried.trace(images).gates


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), float("inf")])
def test_noise_without_size_is_refused(sigma: float) -> None:
    with pytest.raises(UsageError, match="give a positive number"):
        Smoothed(LinearSaver(), sigma)


def test_words_take_no_noise() -> None:
    from prompts import TokenExits

    with pytest.raises(NotApplicable, match="prompts"):
        Smoothed(TokenExits(), 0.1)
