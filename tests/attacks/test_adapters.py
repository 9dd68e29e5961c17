"""Attacks of other libraries, and the traps they set (research: peers, 1.3)."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from detectors import detector
from torch import Tensor, nn
from toys import LinearSaver, grey_images

from effattack.attacks import Foolbox, Torchattacks, build
from effattack.attacks.base import Attack
from effattack.attacks.foreign import libraries
from effattack.budgets import LEVELS
from effattack.domains.pixels import to_grid
from effattack.errors import NotApplicable, UsageError
from effattack.victim import Victim

foolbox = pytest.importorskip("foolbox")


def torchattacks_pgd(victim: Victim, **options: Any) -> Attack:
    pytest.importorskip("torchattacks")
    return Torchattacks(victim, "PGD", **options)


def foolbox_pgd(victim: Victim, **options: Any) -> Attack:
    return Foolbox(victim, "LinfPGD", **options)


both = pytest.mark.parametrize("pgd", [torchattacks_pgd, foolbox_pgd])
Made = Callable[..., Attack]


def errors(victim: Victim, images: Tensor, labels: Tensor) -> int:
    """Wrong predictions, image by image, as final rows are scored."""
    with torch.no_grad():
        logits = torch.cat([victim(image) for image in images.split(1)])
    return int((logits.argmax(1) != labels).sum())


@both
def test_accuracy_falls(
    pgd: Made, early_exit: Victim, digit_images: Tensor, digit_labels: Tensor
) -> None:
    found = pgd(early_exit, eps=16 / 255)(digit_images, digit_labels)
    moved = (found - digit_images).abs().max() * LEVELS
    assert 0 < moved < 16.001
    assert torch.equal(found, to_grid(found))
    before = errors(early_exit, digit_images, digit_labels)
    assert errors(early_exit, found, digit_labels) > before


@both
def test_int8_victims_have_a_gradient(
    pgd: Made, int8: Victim, digit_images: Tensor, digit_labels: Tensor
) -> None:
    clean, labels = digit_images[:4], digit_labels[:4]
    found = pgd(int8, eps=16 / 255, steps=5)(clean, labels)
    noise = build("noise", int8, 16 / 255)(clean)

    def loss(images: Tensor) -> Tensor:
        with torch.no_grad():
            return nn.functional.cross_entropy(int8(images), labels)

    assert loss(found) > loss(noise)


@both
def test_detectors_have_no_class_to_lose(pgd: Made) -> None:
    with pytest.raises(NotApplicable, match=r"Tiny one answers with boxes; noise applies"):
        pgd(detector(name="Tiny one"), eps=8 / 255)


@both
def test_options_reach_the_library(pgd: Made) -> None:
    victim, clean = LinearSaver(), grey_images(4)
    few, many = (pgd(victim, steps=steps, random_start=False)(clean) for steps in (1, 20))
    assert not torch.equal(few, many)


@both
def test_unknown_option_shows_the_signature(pgd: Made) -> None:
    with pytest.raises(UsageError, match=r"cannot be made with .*stepz.*signature is .*steps"):
        pgd(LinearSaver(), stepz=3)(grey_images(2))


@both
def test_seed(pgd: Made) -> None:
    victim, clean = LinearSaver(), grey_images(4)
    first = pgd(victim, seed=1, steps=1)(clean)
    torch.rand(5)
    assert torch.equal(pgd(victim, seed=1, steps=1)(clean), first)
    assert not torch.equal(pgd(victim, seed=2, steps=1)(clean), first)


class FakeAttack:
    """A foolbox attack of which each test says what it does."""

    perturb: Callable[[Any, Tensor, Tensor], Tensor]

    def __call__(self, model: Any, images: Tensor, labels: Tensor, epsilons: float) -> Any:
        assert epsilons == pytest.approx(8 / 255)
        found = type(self).perturb(model, images, labels)
        return found, found, torch.ones(len(images), dtype=torch.bool)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Attack]:
    """Makes an attack that returns what ``perturb(model, images, labels)`` returns."""

    def make(perturb: Callable[[Any, Tensor, Tensor], Tensor], victim: Victim) -> Attack:
        monkeypatch.setattr(FakeAttack, "perturb", staticmethod(perturb), raising=False)
        monkeypatch.setattr(FakeAttack, "distance", foolbox.distances.linf, raising=False)
        monkeypatch.setattr(foolbox.attacks, "FakeAttack", FakeAttack, raising=False)
        return Foolbox(victim, "FakeAttack")

    return make


Fake = Callable[..., Attack]


def test_nan_means_not_attacked(fake: Fake) -> None:
    def half_broken(model: Any, images: Tensor, labels: Tensor) -> Tensor:
        found = images + 2 / LEVELS
        found[0, 0, 0, 0] = torch.nan
        found[1] = torch.inf
        return found

    clean = grey_images(4)
    found = fake(half_broken, LinearSaver())(clean)
    assert torch.equal(found[:2], clean[:2])
    torch.testing.assert_close(found[2:], clean[2:] + 2 / LEVELS)


def test_what_leaves_the_budget_is_put_back(fake: Fake) -> None:
    clean = grey_images(4)
    found = fake(lambda model, images, labels: images * 0 - 5, LinearSaver())(clean)
    torch.testing.assert_close(found, clean - 8 / LEVELS)
    assert torch.equal(found, to_grid(found))


def test_what_is_returned_is_detached(fake: Fake) -> None:
    victim = LinearSaver()

    def attached(model: Any, images: Tensor, labels: Tensor) -> Tensor:
        return images.requires_grad_() * 1.0

    clean = grey_images(2)
    assert not fake(attached, victim)(clean).requires_grad
    assert not clean.requires_grad


def test_in_place_changes_do_not_move_the_clean_image(fake: Fake) -> None:
    clean = grey_images(2)
    given = clean.clone()
    found = fake(lambda model, images, labels: images.add_(1), LinearSaver())(given)
    assert torch.equal(given, clean)
    torch.testing.assert_close(found, clean + 8 / LEVELS)


def test_side_effects_are_undone(fake: Fake) -> None:
    victim = LinearSaver().train()
    victim.base.eval()

    def rude(model: Any, images: Tensor, labels: Tensor) -> Tensor:
        torch.manual_seed(0), np.random.seed(0), random.seed(0)
        victim.eval()
        victim.base.train()
        for parameter in victim.parameters():
            parameter.requires_grad_(True)
        victim.trace(images).logits.sum().backward()
        return images

    state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    victim.saver.weight.requires_grad_(False)
    fake(rude, victim)(grey_images(2))
    assert (victim.training, victim.saver.training, victim.base.training) == (True, True, False)
    assert all(p.grad is None for p in victim.parameters())
    assert not victim.saver.weight.requires_grad
    assert victim.base[0].weight.requires_grad
    assert torch.equal(state[0], torch.get_rng_state())
    assert state[1:] == (random.getstate(), np.random.get_state()[1].tolist())


def test_an_exception_undoes_side_effects_too(fake: Fake) -> None:
    victim = LinearSaver().train()

    def broken(model: Any, images: Tensor, labels: Tensor) -> Tensor:
        np.random.rand()
        raise ZeroDivisionError("in their code")

    state = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    with pytest.raises(ZeroDivisionError, match="in their code"):
        fake(broken, victim)(grey_images(2))
    assert victim.training
    assert all(p.requires_grad for p in victim.parameters())
    assert state == (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


def test_the_seed_covers_every_global_generator(fake: Fake) -> None:
    def noisy(model: Any, images: Tensor, labels: Tensor) -> Tensor:
        drawn = random.random() + np.random.rand() + torch.rand(1).item()
        return images + (drawn - 1.5) * 5 / LEVELS

    victim, clean = LinearSaver(), grey_images(2)
    found = [fake(noisy, victim)(clean) for _ in range(3)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_success_that_they_report_does_not_count(fake: Fake) -> None:
    clean = grey_images(3)
    found = fake(lambda model, images, labels: images, LinearSaver())(clean)
    assert torch.equal(found, clean), "they said that all three succeeded"


def test_they_attack_the_traced_logits(fake: Fake) -> None:
    victim, seen = LinearSaver(), []

    def look(model: Any, images: Tensor, labels: Tensor) -> Tensor:
        seen.append(model(images))
        return images

    fake(look, victim)(grey_images(3))
    torch.testing.assert_close(seen[0], victim.trace(grey_images(3)).logits.detach())


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("torchattacks.PGD", r"torchattacks does not import .*pip install '\.\[torchatt"),
        ("foolbox.LinfPGD", r"foolbox does not import .*pip install foolbox"),
    ],
)
def test_missing_library_names_the_extra(
    name: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(module: str) -> None:
        raise ModuleNotFoundError(f"No module named {module!r}")

    monkeypatch.setattr(libraries, "import_module", missing)
    with pytest.raises(UsageError, match=remedy):
        build(name, LinearSaver())(grey_images(2))


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("torchattacks.PDG", "unknown torchattacks attack 'PDG': did you mean .*PGD"),
        ("torchattacks.Attack", "unknown torchattacks attack"),
        ("foolbox.LInfPGD", "unknown foolbox attack 'LInfPGD': did you mean .*LinfPGD"),
    ],
)
def test_unknown_attack_suggests_the_nearest(name: str, nearest: str) -> None:
    pytest.importorskip(name.partition(".")[0])
    with pytest.raises(UsageError, match=nearest):
        build(name, LinearSaver())(grey_images(2))


def test_names_are_library_and_class() -> None:
    assert Torchattacks(LinearSaver(), "FGSM").name == "torchattacks.FGSM"
    assert Foolbox(LinearSaver(), "LinfPGD").name == "foolbox.LinfPGD"
