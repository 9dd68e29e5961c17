"""Transfer: crafted on a source, scored on the victim."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from toys import LinearSaver, grey_images

from effattack.attacks import Transfer, build
from effattack.errors import NotApplicable, UsageError
from effattack.models_zoo.quantization.pruned import Pruned
from effattack.victim import Victim
from effattack.victim.digests import attack_digest


def plain() -> nn.Module:
    toy = LinearSaver()
    return nn.Sequential(nn.Flatten(), copy.deepcopy(toy.saver))


def pruned(model: nn.Module) -> Victim:
    return Pruned(model, (1, 4, 4), 0.5)


def test_int8_victims_know_their_float_model(
    int8: Victim, digit_images: Tensor, digit_labels: Tensor
) -> None:
    images, labels = digit_images[:4], digit_labels[:4]
    attack = build("Transfer(attack='foolbox.LinfPGD(steps=5)')", int8, 16 / 255)
    assert attack.name == "Transfer(attack='foolbox.LinfPGD(steps=5)')"
    noise = build("noise", int8, 16 / 255)

    def loss(found: Tensor) -> Tensor:
        with torch.no_grad():
            return nn.functional.cross_entropy(int8(found), labels)

    assert loss(attack(images, labels)) > loss(noise(images)) + 0.1


def test_it_is_the_attack_on_the_source() -> None:
    model, clean = plain(), grey_images(4)
    victim = pruned(model)
    assert victim.float_model is model
    labels = model(clean).argmax(1)
    direct = build("foolbox.LinfPGD", victim, seed=2)(clean, labels)
    transferred = Transfer(victim, seed=2)(clean, labels)
    expected = build("foolbox.LinfPGD", pruned_by_nothing(model), seed=2)(clean, labels)
    assert torch.equal(transferred, expected)
    assert not torch.equal(transferred, direct)


def pruned_by_nothing(model: nn.Module) -> Victim:
    return Pruned(model, (1, 4, 4), 0.0)


def test_compute_attacks_transfer_too() -> None:
    source, victim = LinearSaver(seed=0), LinearSaver(seed=1)
    victim.saver.load_state_dict(source.saver.state_dict())
    clean = grey_images(8)
    attack = Transfer(victim, 24 / 255, source=source, attack="Slowdown(steps=5)")
    assert attack.name == "Transfer(source='toy', attack='Slowdown(steps=5)')"
    with torch.no_grad():
        assert victim.trace(attack(clean)).macs.sum() > victim.trace(clean).macs.sum()


def test_a_source_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 2)).train()
    before = copy.deepcopy(model.state_dict())
    attack = Transfer(LinearSaver(), source=model, attack="foolbox.LinfPGD(steps=2)")
    attack(grey_images(3))
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_registered_source_goes_by_its_name(early_exit: Victim) -> None:
    attack = build("Transfer(source='digits_tinysaver_cascade', attack='Slowdown')", early_exit)
    assert isinstance(attack, Transfer)
    assert attack.source.name == "digits_tinysaver_cascade"
    assert attack.gradients == 50


def test_a_universal_attack_is_to_be_fitted_by_hand() -> None:
    with pytest.raises(UsageError, match="universal: fit it on the source"):
        Transfer(LinearSaver(), source=LinearSaver(1), attack="UniversalSlowdown")


def test_a_plain_source_is_told_what_applies() -> None:
    with pytest.raises(NotApplicable, match=r"has no gates.*torchattacks\.PGD and foolbox"):
        Transfer(LinearSaver(), source=plain(), attack="Slowdown")


def test_another_source_is_another_cell() -> None:
    first, second = plain(), plain()
    second[1].weight.data.mul_(2)
    victim = pruned(first)
    digests = {attack_digest(Transfer(victim, source=s)) for s in (first, second, plain())}
    assert len(digests) == 2


def test_no_source_says_who_has_one() -> None:
    with pytest.raises(NotApplicable, match=r"toy knows no float model.*Quantized, LLMInt8"):
        Transfer(LinearSaver())


def test_a_source_of_another_task_is_refused() -> None:
    source = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with pytest.raises(UsageError, match="3 classes and toy 2"):
        Transfer(LinearSaver(), source=source)
