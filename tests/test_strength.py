"""What the attacks must achieve on the shipped victims, at ε = 8/255 and 50 gradient evaluations.

Half the images of `effattack run`, so that the whole stays within a minute of one core.
"""

from __future__ import annotations

import pytest
import torch
from toys import embedded, embedded_or_skip

from effattack.attacks import Attack, DeepSloth, DeSparsify, Noise, Slowdown
from effattack.models_zoo.digits import digits
from effattack.models_zoo.files import read_card

COUNT = 100


def success(attack: Attack) -> float:
    """Attack success on the first test images, from the executed MACs of the batched trace."""
    images, labels = (part[:COUNT] for part in digits("test"))
    adversarial = attack(images, labels)
    with torch.no_grad():
        clean = attack.victim.trace(images).macs.sum().item()
        attacked = attack.victim.trace(adversarial).macs.sum().item()
    return (attacked - clean) / (COUNT * attack.victim.max_macs - clean)


@pytest.mark.parametrize(
    ("name", "published", "floor"),
    [
        ("digits_cnn_early_exit", DeepSloth, 0.85),
        ("digits_tinysaver_cascade", DeepSloth, 0.90),
        ("digits_vit_ats", DeSparsify, 0.60),
    ],
)
def test_the_house_attack_takes_the_savings_back(
    name: str, published: type[DeepSloth] | type[DeSparsify], floor: float
) -> None:
    victim = embedded(name)
    house = success(Slowdown(victim, 8 / 255, steps=50))
    assert house >= floor
    assert house >= success(published(victim, 8 / 255, steps=50)) - 0.02
    assert abs(success(Noise(victim, 8 / 255))) <= 0.05


def test_confidence_gates_fall_faster_to_the_hinge() -> None:
    victim = embedded("digits_tinysaver_cascade")
    house = success(Slowdown(victim, 4 / 255, steps=12))
    assert house >= success(DeepSloth(victim, 4 / 255, steps=50))


def test_a_slowdown_that_nobody_notices() -> None:
    victim = embedded("digits_cnn_early_exit")
    images = digits("test")[0][:COUNT]
    attack = Slowdown(victim, 8 / 255, keep_prediction=True)
    adversarial = attack(images)
    assert torch.equal(victim(adversarial).argmax(1), victim(images).argmax(1))
    assert success(attack) >= 0.85


@pytest.mark.parametrize(
    ("name", "savings"),
    [
        ("digits_cnn_early_exit", 0.45),
        ("digits_tinysaver_cascade", 0.25),
        ("digits_vit_ats", 0.70),
        ("digits_vit_int8", 1.0),
    ],
)
def test_victims_are_accurate_and_have_something_to_lose(name: str, savings: float) -> None:
    victim = embedded_or_skip(name)
    images, labels = digits("test")
    with torch.no_grad():
        trace = victim.trace(images)
    accuracy = (trace.logits.argmax(1) == labels).double().mean().item()
    assert accuracy >= 0.95
    assert accuracy >= read_card(name)["dense_accuracy"] - 0.015
    assert trace.macs.mean().item() <= savings * victim.max_macs
