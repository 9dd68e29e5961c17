"""Cells: what changes their hash, and what survives."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from toys import LinearSaver, embedded, embedded_or_skip, grey_images

from effattack.cells import CellSpec, data_digest, victim_digest
from effattack.victim import Opaque

SPEC = CellSpec(
    work="attack",
    victim="toy",
    victim_digest="v",
    attack="Slowdown",
    settings="Slowdown(eps=8/255)",
    eps=8 / 255,
    seed=0,
    first=0,
    last=100,
    data_digest="d",
    kept=100,
    device="cpu",
    threads=1,
    code="0.1.0+abc",
    torch="2.15.0",
)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("work", "timing"),
        ("victim_digest", "w"),
        ("settings", "Slowdown(eps=8/255, steps=9)"),
        ("eps", 4 / 255),
        ("seed", 1),
        ("first", 100),
        ("data_digest", "e"),
        ("threads", 2),
        ("code", "0.1.1"),
    ],
)
def test_everything_that_decides_the_rows_decides_the_key(key: str, value: object) -> None:
    assert replace(SPEC, **{key: value}).key != SPEC.key
    assert replace(SPEC).key == SPEC.key


def test_a_victim_is_known_by_weights_and_settings() -> None:
    victim = LinearSaver()
    digest = victim_digest(victim)
    assert victim_digest(copy.deepcopy(victim)) == digest
    assert victim_digest(copy.deepcopy(victim).train()) == digest
    assert victim_digest(LinearSaver(doubt=2.0)) != digest
    with torch.no_grad():
        victim.saver.weight[0, 0] += 1e-3
    assert victim_digest(victim) != digest


def test_the_threshold_inside_a_policy_counts() -> None:
    victim = copy.deepcopy(embedded("digits_cnn_early_exit"))
    digest = victim_digest(victim)
    victim.criterion.thresholds = 0.99
    assert victim_digest(victim) != digest


class Inner(torch.nn.Module):
    """A model inside a victim, with all that a digest could overlook."""

    def __init__(self, private: int = 1, shift: float = 0.0, policy: object = None) -> None:
        super().__init__()
        self._private = private
        self.policy = {"nested": [policy]}
        self.register_buffer("shift", torch.tensor(shift), persistent=False)
        self.linear = torch.nn.Linear(16, 2)
        torch.nn.init.zeros_(self.linear.weight)
        torch.nn.init.zeros_(self.linear.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(images.flatten(1) + self.shift)


class Other(Inner):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return -super().forward(images)


class Policy:
    def __init__(self, level: float) -> None:
        self.level = level


def test_nothing_that_decides_is_overlooked() -> None:
    makers = [
        Inner,
        lambda: Inner(private=2),
        lambda: Inner(shift=1.0),
        lambda: Inner(policy=Policy(0.5)),
        lambda: Inner(policy=Policy(0.6)),
        Other,
    ]
    digests = {victim_digest(Opaque(make(), (1, 4, 4), name="opaque")) for make in makers}
    assert len(digests) == len(makers)
    again = {victim_digest(Opaque(make(), (1, 4, 4), name="opaque")) for make in makers}
    assert again == digests


def test_quantized_weights_have_a_stable_digest() -> None:
    victim = embedded_or_skip("digits_vit_int8")
    assert victim_digest(victim) == victim_digest(copy.deepcopy(victim))


def test_data_are_known_by_pixels_and_labels() -> None:
    images, labels = grey_images(4), torch.tensor([0, 1, 0, 1])
    digest = data_digest(images, labels)
    assert data_digest(images.clone(), labels.clone()) == digest
    assert data_digest(images.flip(0), labels) != digest
    assert data_digest(images, 1 - labels) != digest
