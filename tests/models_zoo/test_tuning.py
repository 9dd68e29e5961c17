"""What trained victims meet next: digits that are turned, and teachers without labels."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
from torch import Tensor

from effattack.models_zoo.digits import digits, turned_digits
from effattack.models_zoo.networks import small_vit
from effattack.models_zoo.recipes import tuning
from effattack.models_zoo.recipes.tuning import TEMPERATURE, distil, distillation, divergence
from effattack.models_zoo.token_sparsification.ats import ATS


def small(seed: int, width: int = 16) -> ATS:
    """Over 16 patches, one block that samples; no two seeds answer alike."""
    torch.manual_seed(seed)
    vit = small_vit(patch=8, width=width, depth=2, heads=2)
    torch.nn.init.normal_(vit.head.weight)
    return ATS(vit, ats_blocks=(0,))


def images(count: int) -> Tensor:
    return digits("train")[0][:count]


def test_turned_digits_are_turned_by_an_eighth() -> None:
    """So is the centre of mass of each that stays inside, seen from the middle of the image."""
    (straight, labels), (turned, same) = digits("heldout"), turned_digits("heldout")
    assert torch.equal(labels, same)
    assert torch.equal((turned * 255).round() / 255, turned)
    at = torch.arange(32) - 15.5

    def centres(images: Tensor) -> Tensor:
        ink = images[:, 0] / images[:, 0].sum((1, 2), keepdim=True)
        across, up = ink.sum(1) @ at, -ink.sum(2) @ at
        return torch.complex(across, up)

    eighth = torch.tensor(complex(math.sqrt(0.5), math.sqrt(0.5)))
    apart = (centres(turned) - eighth * centres(straight)).abs()
    assert apart.median() < 0.15
    assert (centres(turned) - centres(straight)).abs().median() > 0.5


def test_divergence_by_hand() -> None:
    """A bit where a coin is known, and nothing where both say the same; what is dead in one of them
    counts as a millionth in the other."""
    sure, coin = torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5])
    assert divergence(sure, coin).item() == pytest.approx(math.log(2))
    assert divergence(coin, coin).item() == pytest.approx(0)
    by_hand = 0.5 * math.log(0.5) + 0.5 * math.log(0.5 / 1e-6)
    assert divergence(coin, sure).item() == pytest.approx(by_hand, rel=1e-5)


def test_the_loss_is_what_teacher_and_student_say_otherwise() -> None:
    teacher, student = small(0), small(1, width=8)
    told, said = teacher.trace(images(5)), student.trace(images(5))
    soft, own = ((logits / TEMPERATURE).softmax(1) for logits in (told.logits, said.logits))
    answers = (soft * (soft / own).log()).sum(1).mean() * 16
    p, q = told.aux["significance"][:, 0], said.aux["significance"][:, 0]
    tokens = (p * (p / q).log()).sum(1).mean()
    for matching in (0.0, 3.0):
        loss = distillation(student, teacher, matching)(images(5), torch.zeros(5))
        torch.testing.assert_close(loss, answers + matching * tokens)
    assert answers > 0.1
    assert tokens > 1e-3


def test_a_student_who_is_its_teacher_has_nothing_to_learn() -> None:
    teacher, student = small(0), small(0)
    loss = distillation(student, teacher, 1.0)(images(3), torch.zeros(3))
    loss.backward()
    torch.testing.assert_close(loss, torch.zeros(()), rtol=0, atol=1e-5)
    assert all(p.grad is None for p in teacher.parameters())
    grads = [p.grad.abs().amax() for p in student.parameters() if p.grad is not None]
    assert max(grads) < 1e-4


def test_distillation_uses_no_labels() -> None:
    """It is given none, reads none, and learns a teacher's answers that are no digits."""
    assert {"labels", "data"}.isdisjoint(inspect.signature(distil).parameters)
    teacher, student = small(0), small(1)
    loss = distillation(student, teacher, 1.0)
    assert torch.equal(loss(images(4), torch.zeros(4)), loss(images(4), torch.full((4,), 7.0)))


@pytest.mark.slow
def test_a_student_learns_what_its_teacher_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the best of all answers that are the same for every image: the teacher's mean."""
    monkeypatch.setattr(tuning, "moved", lambda images, generator: images)
    teacher, student, seen = small(0), small(1), images(256)
    with torch.no_grad():
        teacher.vit.head.weight *= 4
        soft = (teacher(seen) / TEMPERATURE).softmax(1)
        constant = TEMPERATURE**2 * divergence(soft, soft.mean(0).expand_as(soft)).mean()
    distil(student, teacher, seen, matching=0.0, epochs=30, rate=1e-2, seed=0)
    with torch.no_grad():
        assert distillation(student, teacher, 0.0)(seen, seen) < constant / 2
