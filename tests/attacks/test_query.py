"""The query attack: on gates without gradients, and on models that cannot be opened."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from toys import LinearSaver, grey_images

import effattack
from effattack.attacks import Noise, QueryAttack, defaults
from effattack.errors import NotApplicable, UsageError
from effattack.victim import Opaque, Victim


class Skipping(nn.Module):
    """Runs its second half for images that are not sure after the first."""

    def __init__(self) -> None:
        super().__init__()
        toy = LinearSaver()
        self.toy = toy

    def forward(self, images: Tensor) -> Tensor:
        return self.toy(images)


@pytest.fixture
def images() -> Tensor:
    return grey_images(16)


def test_it_opens_gates_that_noise_leaves_shut(images: Tensor) -> None:
    victim = LinearSaver()
    clean = victim.trace(images).macs.sum()
    noisy = victim.trace(Noise(victim)(images)).macs.sum()
    queried = victim.trace(QueryAttack(victim)(images)).macs.sum()
    assert queried > max(clean, noisy)


def test_it_stays_in_the_budget_and_never_does_worse(images: Tensor) -> None:
    victim = LinearSaver()
    found = QueryAttack(victim, 4 / 255, queries=20)(images)
    assert (found - images).abs().max() <= 4 / 255 + 1e-6
    assert torch.allclose(found * 255, (found * 255).round(), atol=1e-4)
    assert (victim.trace(found).macs >= victim.trace(images).macs).all()


def test_more_queries_never_cost_success(images: Tensor) -> None:
    victim = LinearSaver()
    few, many = (victim.trace(QueryAttack(victim, queries=q)(images)).macs for q in (5, 200))
    assert many.sum() >= few.sum()


def test_the_same_seed_gives_the_same_images(images: Tensor) -> None:
    victim = LinearSaver()
    assert torch.equal(QueryAttack(victim, seed=3)(images), QueryAttack(victim, seed=3)(images))
    assert not torch.equal(QueryAttack(victim, seed=3)(images), QueryAttack(victim, seed=4)(images))


def test_an_opaque_model_is_scored(images: Tensor) -> None:
    victim = Opaque(Skipping(), (1, 4, 4), name="opaque", max_macs=176)
    assert defaults(victim)[0] == "QueryAttack"
    labels = torch.zeros(len(images), dtype=torch.long)
    scores = effattack.evaluate(victim, images, labels, ["QueryAttack"], timed=0).scores()
    row = scores.set_index("attack").loc["QueryAttack"]
    assert row.macs_ratio > 1.1
    assert 0 < row.attack_success <= 1


def test_a_constant_victim_and_no_queries(int8: Victim) -> None:
    with pytest.raises(NotApplicable, match="MACs that can move"):
        QueryAttack(int8)
    with pytest.raises(UsageError, match="at least one"):
        QueryAttack(LinearSaver(), queries=0)
