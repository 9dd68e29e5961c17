"""Verbose Images: its weights against the official arithmetic, and its attack on a writer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prompts import Counted
from torch import Tensor

from effattack.attacks import build
from effattack.attacks.base import Attack
from effattack.attacks.objectives import BatchGoal
from effattack.attacks.published.generators_losses import Verbose
from effattack.attacks.published.verbose_images import Balance, InTime
from effattack.attacks.searches.parts import OnePart
from effattack.attacks.searches.projected import constant
from effattack.domains import PartsBatch
from effattack.errors import NotApplicable
from effattack.models_zoo.multimodal import questions
from effattack.models_zoo.multimodal.fusion import OneSequence, WritesAnswers
from effattack.threats import Linf, parse_threat
from effattack.victim.writing import STATES, STEPS, Writes


class Official:
    """The weights of the official code, step by step, in plain numbers."""

    def __init__(self) -> None:
        self.step, self.weights = 0, (0.0, 0.0)

    def __call__(self, unsure: float, end: float, diverse: float) -> tuple[float, float]:
        now = (
            abs(unsure / end / (10.0 * np.log(self.step + 1) - 20.0)),
            abs(unsure / diverse / (0.5 * np.log(self.step + 1) + 1.0)),
        )
        if self.step:
            first, second = self.weights
            now = 0.9 * first + 0.1 * now[0], 0.9 * second + 0.1 * now[1]
        self.step, self.weights = self.step + 1, now
        return now


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), steps=st.integers(1, 12))
def test_weights_follow_the_steps_as_in_the_official_code(seed: int, steps: int) -> None:
    draw = np.random.default_rng(seed)
    official, balance = Official(), Balance(torch.zeros(1), torch.zeros(1, 2), 0)
    for _ in range(steps):
        values = np.exp(draw.normal(0, 3, 3))
        expected = official(*values)
        balance = balance.weighing(torch.tensor(values).log()[None])
    assert balance.scales.exp()[0].tolist() == pytest.approx(expected)


def test_uphill_is_down_their_loss() -> None:
    x = torch.tensor([[0.3, -0.7, 1.1]], dtype=torch.float64, requires_grad=True)
    mixed = torch.tensor([[1.0, 2.0, 0.5], [0.2, 1.0, 3.0], [2.0, 0.1, 1.0]]).double()
    values = (x @ mixed).exp()
    balance = Balance(torch.zeros(1), torch.zeros(1, 2), 0).weighing(values.log().detach())
    first, second = Official()(*values[0].tolist())
    theirs = values[0, 0] + first * values[0, 1] - second * values[0, 2]
    (down,) = torch.autograd.grad(theirs, x, retain_graph=True)
    (up,) = torch.autograd.grad(balance.uphill(values.log()).sum(), x)
    assert torch.allclose(-down / down.norm(), up / up.norm())


def test_weights_stay_with_their_inputs() -> None:
    terms = torch.randn(4, 3)
    balance = Balance(torch.randn(4, 2), torch.zeros(4, 2), 0).weighing(terms)
    kept = torch.tensor([True, False, True, False])
    alone = Balance(balance.along[kept], torch.zeros(2, 2), 0).weighing(terms[kept])
    for found, expected in zip(balance.rows(kept), alone, strict=True):
        assert torch.equal(torch.as_tensor(found), torch.as_tensor(expected))


@pytest.fixture(scope="module")
def writer() -> WritesAnswers:
    """Of drawn weights, so large that some texts end early."""
    torch.manual_seed(2)
    victim = WritesAnswers(OneSequence())
    with torch.no_grad():
        for name, parameter in victim.named_parameters():
            if parameter.dim() > 1 and "trunk" not in name:
                parameter.mul_(8)
    return victim


@pytest.fixture(scope="module")
def batch(writer: WritesAnswers) -> PartsBatch:
    """Inputs whose texts do not reach the cap."""
    inputs = questions.asked("heldout")[0][:12]
    with torch.no_grad():
        return inputs[writer.spent(writer.trace(inputs)) < writer.cap]


def passes(victim: WritesAnswers, batch: PartsBatch) -> Tensor:
    with torch.no_grad():
        return victim.spent(victim.trace(batch))


def test_steps_are_those_of_the_official_loop(
    writer: WritesAnswers, batch: PartsBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one input, three steps: the sum of its three losses by autograd, and signs."""
    one = batch[:1]
    victim = OnePart(writer, "image", one)
    clean, seen = one["image"], []
    image, official = clean, Official()
    for _ in range(3):
        image = image.detach().requires_grad_()
        trace = victim.trace(image)
        logits, states = trace.aux[STEPS][0], trace.aux[STATES][0]
        unsure = -(logits.log_softmax(1).mean(1) + np.log(logits.shape[1])).mean()
        end = logits.softmax(1)[:, writer.task.end].mean()
        norm = torch.linalg.svdvals(states).sum()
        first, second = official(unsure.item(), end.item(), norm.item())
        (down,) = torch.autograd.grad(unsure + first * end - second * norm, image)
        image = (image - down.sign() / 255).clamp(clean - 8 / 255, clean + 8 / 255).clamp(0, 1)
        seen.append(image.detach())

    looked, traced = [], OnePart.trace

    def spy(self: OnePart, inputs: Tensor) -> object:
        looked.append(inputs.detach().clone())
        return traced(self, inputs)

    goal = BatchGoal.of(victim, clean, None)
    goal = BatchGoal(**{**vars(goal), "ceiling": None})
    monkeypatch.setattr(OnePart, "trace", spy)
    search = InTime(3, constant(0.125), random_start=False)
    search(clean, Linf(8 / 255).on(victim.domain), Verbose(), goal, torch.Generator())
    assert len(looked) == 4
    for found, expected in zip(looked[1:], seen, strict=True):
        assert (found - expected).abs().gt(1e-6).double().mean() < 0.01


@pytest.mark.slow
def test_it_writes_on_where_noise_does_not(writer: WritesAnswers, batch: PartsBatch) -> None:
    threat = parse_threat("image:linf:4/255")
    noise, attacked = (
        passes(writer, build(name, writer, threat)(batch)).mean()
        for name in ("noise", "VerboseImages(steps=25)")
    )
    assert attacked > 1.3 * noise


def test_words_are_refused(writer: WritesAnswers) -> None:
    for threat in ("question:swap:1", "image:linf:8/255+question:swap:1"):
        with pytest.raises(NotApplicable, match="swap:1 has no steepest step"):
            build("VerboseImages", writer, parse_threat(threat))


def test_what_writes_no_text_is_refused() -> None:
    with pytest.raises(NotApplicable, match="counted writes no text, or shows no logits"):
        build("VerboseImages", Counted())


def test_a_part_of_a_writer_writes(writer: WritesAnswers, batch: PartsBatch) -> None:
    victim = OnePart(writer, "image", batch)
    assert isinstance(victim, Writes)
    with torch.no_grad():
        trace = victim.trace(batch["image"])
        found: Attack = build("AutoSlow", writer, parse_threat("image:linf:1/255"))
        assert (passes(writer, found(batch[:2])) >= passes(writer, batch[:2])).all()
    text = victim.read_by(trace.logits)
    alike = zip(
        victim.continued(trace.aux["prompts"], text),
        writer.continued(trace.aux["prompts"], text),
        strict=True,
    )
    assert all(torch.equal(mine, its) for mine, its in alike)
