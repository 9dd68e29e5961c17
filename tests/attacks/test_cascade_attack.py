"""The attack on cascades: its objective by hand, and what becomes of the base's prediction."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from toys import LinearSaver, embedded, grey_images

from effattack.attacks import CascadeAttack
from effattack.attacks.objectives import (
    AlsoAnswer,
    Answer,
    Goal,
    MarginHinge,
    prediction_leads,
    prediction_trails,
)
from effattack.attacks.published.cascade import DefeatSavers
from effattack.errors import NotApplicable, UsageError
from effattack.victim import Gate, Trace, Victim


def three_stages(base: Tensor) -> tuple[Trace, Goal]:
    """Two gates, the second not reached; the max of the toy is 176 MACs; it predicted class 1."""
    no = torch.zeros(1, 1, dtype=torch.bool)
    gates = (
        Gate("a", torch.tensor([[-0.5]]), no, ~no, 176.0, pushed=True),
        Gate("b", torch.tensor([[-0.25]]), no, no, 88.0, pushed=True),
    )
    stages = torch.stack([torch.zeros(1, 3), torch.zeros(1, 3), base], dim=1)
    trace = Trace(stages[:, 0], gates, torch.ones(1).double(), stages)
    return trace, Goal(LinearSaver(), torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([0]))


def defeat(answer: Answer) -> DefeatSavers:
    return DefeatSavers(AlsoAnswer(MarginHinge(0.05), answer, 0.1, 0.05))


def test_every_stage_is_pushed_and_the_base_asked() -> None:
    trace, goal = three_stages(torch.tensor([[1.0, 0.0, 2.0]]))
    slow, behind = -0.5 - 0.5 * 0.25, -2 / (1 + 2)
    assert defeat(prediction_leads)(trace, goal).item() == pytest.approx(slow + 0.1 * behind)
    assert defeat(prediction_trails)(trace, goal).item() == pytest.approx(slow + 0.1 * 0.05)


@pytest.mark.parametrize("answer", [prediction_leads, prediction_trails])
def test_a_safe_answer_is_not_pushed_further(answer: Answer) -> None:
    top = 1 if answer is prediction_leads else 0
    base = 9 * torch.eye(3)[[top]].requires_grad_()
    trace, goal = three_stages(base)
    found = defeat(answer)(trace, goal)
    assert found.item() == pytest.approx(-0.625 + 0.1 * 0.05)
    (gradient,) = torch.autograd.grad(found.sum(), base)
    assert not gradient.any()


@pytest.mark.parametrize("seed", [0, 3])
def test_kept_is_what_the_base_said(seed: int) -> None:
    victim, clean = LinearSaver(seed=seed), grey_images(60, seed=1)
    found = CascadeAttack(victim, 16 / 255)(clean)
    with torch.no_grad():
        before, after = victim.trace(clean), victim.trace(found)
    base = before.stage_logits[:, 1].argmax(1)  # type: ignore[index]
    moved = (found != clean).flatten(1).any(1)
    assert (before.logits.argmax(1) != base).any(), "the saver disagrees with the base"
    assert torch.equal(after.logits.argmax(1)[moved], base[moved])
    assert after.macs.sum() > before.macs.sum()


def test_broken_is_slow_and_wrong() -> None:
    victim, clean = LinearSaver(seed=1), grey_images(60, seed=1)

    def kept(attack: CascadeAttack) -> float:
        with torch.no_grad():
            trace = victim.trace(attack(clean))
            base = victim.trace(clean).stage_logits[:, 1].argmax(1)  # type: ignore[index]
        slow = trace.macs == victim.max_macs
        assert slow.float().mean() > 0.9
        return (trace.logits.argmax(1) == base)[slow].float().mean().item()

    assert kept(CascadeAttack(victim, 24 / 255)) == 1
    assert kept(CascadeAttack(victim, 24 / 255, base="break")) < 0.8


def test_it_takes_the_savings_of_a_real_cascade_back(digit_images: Tensor) -> None:
    victim = embedded("digits_tinysaver_cascade")
    found = CascadeAttack(victim, steps=15)(digit_images)
    with torch.no_grad():
        before, after = victim.trace(digit_images), victim.trace(found)
    assert after.macs.mean() > 0.9 * victim.max_macs > 3 * before.macs.mean()
    assert torch.equal(after.logits.argmax(1), before.stage_logits[:, 1].argmax(1))  # type: ignore[index]


def test_the_base_of_a_real_cascade_breaks_after_the_savings_are_gone(
    digit_images: Tensor,
) -> None:
    """The saver falls in a few steps; images that left at the max would keep their prediction."""
    victim = embedded("digits_tinysaver_cascade")
    found = CascadeAttack(victim, base="break", steps=30)(digit_images)
    with torch.no_grad():
        before, after = victim.trace(digit_images), victim.trace(found)
    assert after.macs.mean() > 0.99 * victim.max_macs
    broken = after.logits.argmax(1) != before.stage_logits[:, 1].argmax(1)  # type: ignore[index]
    assert broken.float().mean() > 0.4


def test_stages_are_needed(ats: Victim) -> None:
    with pytest.raises(NotApplicable, match=rf"every stage \(cascade, early exit\); {ats.name} is"):
        CascadeAttack(ats)

    class Closed(LinearSaver):
        def trace(self, images: Tensor) -> Trace:
            return super().trace(images)._replace(stage_logits=None)

    with pytest.raises(NotApplicable, match="every stage"):
        CascadeAttack(Closed())


def test_the_base_is_kept_or_broken() -> None:
    with pytest.raises(UsageError, match="choose 'keep' or 'break'"):
        CascadeAttack(LinearSaver(), base="ignore")  # type: ignore[arg-type]
