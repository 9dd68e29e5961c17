"""The search against a victim whose worst case is known, and its rules one by one."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor
from toys import LinearSaver, grey_images

from effattack.attacks import CascadeAttack, DeepSloth, SlowAndWrong, Slowdown
from effattack.attacks.base import Composed
from effattack.attacks.objectives import Goal, MarginHinge
from effattack.attacks.searches import best as judging
from effattack.attacks.searches.memory import Heading, Moments
from effattack.attacks.searches.projected import (
    ProjectedAdam,
    ProjectedGradient,
    constant,
    cosine,
)
from effattack.errors import GradientError, UsageError
from effattack.threats import Linf
from effattack.victim import Gate, Trace, Victim
from effattack.victim.rounding import on_knife_edge


def opened(victim: Victim, images: Tensor) -> Tensor:
    """(B,) whether the only gate is open, on the deployed path's own decisions."""
    with torch.no_grad():
        return victim.trace(images).gates[0].active[:, 0]


def total_macs(victim: Victim, images: Tensor) -> Tensor:
    with torch.no_grad():
        return victim.trace(images).macs


def predictions(victim: Victim, images: Tensor) -> Tensor:
    """Image by image, as final rows are scored."""
    with torch.no_grad():
        return torch.cat([victim(image) for image in images.split(1)]).argmax(1)


@dataclass
class Spy:
    """The hinge times a factor; keeps the MACs and the values of all that was looked at."""

    factor: float = 1.0
    macs: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def check(self, trace: Trace, victim: Victim) -> None: ...

    def __call__(self, trace: Trace, goal: Goal) -> Tensor:
        value = self.factor * MarginHinge()(trace, goal)
        self.macs.append(trace.macs)
        self.values.append(value.detach())
        return value


def spied(victim: Victim, spy: Spy, search: ProjectedGradient, levels: int = 8) -> Composed:
    return Composed(victim, Linf(levels / 255), spy, search)


# the closed-form oracle


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("levels", [1, 2, 4, 8])
def test_opens_exactly_what_can_be_opened(levels: int, seed: int) -> None:
    victim, clean = LinearSaver(seed=seed), grey_images(120, seed)
    missing = victim.missing(clean)
    possible = missing < victim.reach(levels)
    decided = (missing - victim.reach(levels)).abs() > 1e-3
    assert (missing > 0)[possible].any(), "some are closed and can be opened"
    assert not possible.all(), "some cannot"
    found = Slowdown(victim, eps=levels / 255)(clean)
    assert torch.equal(opened(victim, found)[decided], possible[decided])


def test_a_fraction_of_a_level_buys_nothing() -> None:
    victim, clean = LinearSaver(), grey_images(120)
    whole, more = (Slowdown(victim, eps=levels / 255)(clean) for levels in (4, 4.99))
    assert torch.equal(opened(victim, whole), opened(victim, more))


# momentum


@given(
    gradients=arrays(np.float32, (4, 2, 1, 2, 2), elements=st.floats(-8, 8, width=16)),
    factor=st.floats(1e-6, 1e6),
    momentum=st.floats(0.1, 1),
)
def test_directions_add_up_gradients_of_mean_magnitude_one(
    gradients: np.ndarray, factor: float, momentum: float
) -> None:
    heading = scaled = Heading(torch.zeros(2, 1, 2, 2), momentum)
    expected = np.zeros((2, 1, 2, 2))
    for gradient in gradients:
        heading = heading.after(torch.from_numpy(gradient))
        scaled = scaled.after(torch.from_numpy(gradient) * factor)
        size = np.abs(gradient).mean((1, 2, 3), keepdims=True)
        expected = momentum * expected + gradient / np.where(size > 0, size, 1)
    np.testing.assert_allclose(heading.direction(), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scaled.direction(), expected, rtol=1e-4, atol=1e-4)


@given(gradients=arrays(np.float32, (5, 3), elements=st.floats(-8, 8, width=16)))
def test_moments_move_as_adam_does(gradients: np.ndarray) -> None:
    """Against PyTorch's own."""
    theirs = torch.zeros(3, requires_grad=True)
    optimiser = torch.optim.Adam([theirs], lr=0.5, betas=(0.8, 0.95), maximize=True)
    ours, moments = torch.zeros(3), Moments.none(torch.zeros(3), (0.8, 0.95))
    for gradient in map(torch.from_numpy, gradients):
        theirs.grad = gradient.clone()
        optimiser.step()
        moments = moments.after(gradient)
        ours += 0.5 * moments.direction()
    torch.testing.assert_close(ours, theirs.detach())


@pytest.mark.parametrize(
    "search",
    [
        ProjectedGradient(6, constant(0.3), random_start=False, momentum=0.75),
        ProjectedAdam(6, constant(0.01), random_start=False),
    ],
)
def test_an_image_that_leaves_takes_its_direction_with_it(search: ProjectedGradient) -> None:
    """What is found of an image does not depend on which others are attacked beside it."""
    victim, clean = LinearSaver(), grey_images(30)
    together = spied(victim, Spy(), search)(clean)
    alone = torch.cat([spied(victim, Spy(), search)(image) for image in clean.split(1)])
    assert len(total_macs(victim, together).unique()) > 1, "some left before others"
    assert torch.equal(together, alone)


@pytest.mark.parametrize("momentum", [-0.1, 1.5])
def test_refuses_a_momentum_that_is_no_share(momentum: float) -> None:
    with pytest.raises(UsageError, match="momentum"):
        ProjectedGradient(4, constant(1.0), momentum=momentum)


# iterates are judged by executed MACs, never by the surrogate


def test_of_equal_work_an_iterate_beyond_rounding_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second iterate is on a knife edge: it ranks below, whatever its value."""
    victim, clean, spy = LinearSaver(), grey_images(40), Spy()
    victim.max_macs *= 10  # so that no image is finished early
    unsafe: list[bool] = []

    def edge(trace: Trace) -> Tensor:
        unsafe.append(len(unsafe) % 2 == 1)
        return torch.full((len(trace.logits),), unsafe[-1])

    monkeypatch.setattr(judging, "on_knife_edge", edge)
    found = spied(victim, spy, ProjectedGradient(15, cosine(1.0)))(clean)
    macs, values = torch.stack(spy.macs[1:]), torch.stack(spy.values[1:])  # [0]: the clean images
    safe = ~torch.tensor(unsafe)[:, None]
    opened = ((macs == 176) & safe).any(0) & (spy.macs[0] < 176)
    best = values.masked_fill((macs < 176) | ~safe, -torch.inf).amax(0)
    goal = Goal(victim, torch.zeros(40, 2), torch.zeros(40))
    assert opened.any()
    torch.testing.assert_close(Spy()(victim.trace(found), goal).detach()[opened], best[opened])


def test_an_answer_at_a_tie_is_neither_kept_nor_changed() -> None:
    pairs = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0 - 1e-6]])
    logits = torch.cat([pairs, torch.full((4, 1), -9.0)], dim=1)
    trace = Trace(logits, (), torch.ones(4).double())
    goal = Goal(LinearSaver(), torch.tensor([[1.0, 0.0, 0.0]] * 4), torch.zeros(4).long())
    assert judging.kept(trace, goal).tolist() == [False, True, False, False]
    assert judging.changed(trace, goal).tolist() == [False, False, True, False]
    assert judging.wrong(trace, goal).tolist() == [False, False, True, False]


def test_the_house_attacks_keep_momentum_and_the_published_ones_have_none() -> None:
    victim = LinearSaver()
    for ours in (Slowdown, CascadeAttack, SlowAndWrong):
        assert ours(victim).search.momentum == 0.75
    assert DeepSloth(victim).search.momentum == 0


@pytest.mark.parametrize("factor", [1.0, -1.0], ids=["helpful", "misleading"])
def test_best_by_macs_then_by_value(factor: float) -> None:
    victim, clean, spy = LinearSaver(), grey_images(60), Spy(factor)
    victim.max_macs *= 10  # so that no image is finished early
    found = spied(victim, spy, ProjectedGradient(15, cosine(1.0)))(clean)
    macs, values = torch.stack(spy.macs), torch.stack(spy.values)
    most = macs.amax(0)
    assert torch.equal(total_macs(victim, found), most)
    best = values.masked_fill(macs < most, -torch.inf).amax(0)
    kept = Spy(factor)(
        victim.trace(found), Goal(victim, torch.zeros(60, 2), torch.zeros(60))
    ).detach()
    torch.testing.assert_close(kept, best)


def test_misleading_surrogate_never_costs_macs() -> None:
    victim, clean = LinearSaver(), grey_images(60)
    search = ProjectedGradient(10, cosine(1.0))
    found = spied(victim, Spy(-1.0), search)(clean)
    assert (total_macs(victim, found) >= total_macs(victim, clean)).all()
    assert opened(victim, clean).any()


def test_restarts_never_lose() -> None:
    victim, clean = LinearSaver(), grey_images(60)
    once, thrice = (Slowdown(victim, 4 / 255, steps=2, restarts=r)(clean) for r in (1, 3))
    assert (total_macs(victim, thrice) >= total_macs(victim, once)).all()


def test_finished_images_are_left_alone() -> None:
    victim, clean, spy = LinearSaver(), grey_images(60), Spy()
    spied(victim, spy, ProjectedGradient(20, cosine(1.0)))(clean)
    sizes = [len(macs) for macs in spy.macs]
    assert sizes[0] == 60, "the clean images"
    assert sizes[1] == (~opened(victim, clean)).sum(), "what can still gain work"
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] <= (victim.missing(clean) > victim.reach(8) - 1e-3).sum()


def test_stops_when_all_images_are_finished() -> None:
    victim, spy = LinearSaver(doubt=1e9), Spy()
    spied(victim, spy, ProjectedGradient(50, cosine(1.0)))(grey_images(10))
    assert len(spy.macs) == 1, "the clean images"


def test_a_step_is_one_trace_and_the_clean_images_are_traced_once() -> None:
    class Counting(LinearSaver):
        traced = 0

        def trace(self, images: Tensor) -> Trace:
            self.traced += 1
            return super().trace(images)

    victim = Counting()
    victim.max_macs *= 10  # so that no image is finished early
    attack = Slowdown(victim, steps=7)
    victim.traced = 0
    attack(grey_images(4))
    assert victim.traced == 1 + 7 + 1, "clean, every step, the last judgement"


def test_an_image_leaves_at_the_max_only_when_what_is_asked_holds() -> None:
    victim, clean, spy = LinearSaver(doubt=1e9), grey_images(30), Spy()  # all at the max

    def lead(trace: Trace) -> Tensor:
        return (trace.logits[:, 0] - trace.logits[:, 1]).detach()

    middle = lead(victim.trace(clean)).median()

    def ahead(trace: Trace, goal: Goal) -> Tensor:
        return lead(trace) > middle

    asked = lead(victim.trace(clean)) > middle
    found = spied(victim, spy, ProjectedGradient(10, constant(0.2), ask=ahead))(clean)
    sizes = [len(macs) for macs in spy.macs]
    assert sizes[:2] == [30, (~asked).sum()]
    assert 0 < sizes[1] < 30
    assert torch.equal(found[asked], clean[asked])
    assert torch.equal(total_macs(victim, found), total_macs(victim, clean))
    gained = (lead(victim.trace(found)) > middle)[~asked]
    assert gained.any(), "else going on had no use"


def test_a_search_that_never_steps_is_refused() -> None:
    with pytest.raises(UsageError, match="steps = 0"):
        Slowdown(LinearSaver(), steps=0)
    with pytest.raises(UsageError, match="restarts = 0"):
        Slowdown(LinearSaver(), restarts=0)


# keeping the prediction


def test_keep_prediction_keeps_every_prediction() -> None:
    victim, clean = LinearSaver(), grey_images(120)
    before = predictions(victim, clean)
    free, kept = (Slowdown(victim, keep_prediction=keep)(clean) for keep in (False, True))
    assert not torch.equal(predictions(victim, free), before), "else this shows nothing"
    assert torch.equal(predictions(victim, kept), before)
    gained = total_macs(victim, kept) - total_macs(victim, clean)
    assert (gained >= 0).all()
    assert gained.any()


def test_keep_prediction_on_digits(early_exit: Victim, digit_images: Tensor) -> None:
    found = Slowdown(early_exit, steps=20, keep_prediction=True)(digit_images)
    assert torch.equal(predictions(early_exit, found), predictions(early_exit, digit_images))
    assert total_macs(early_exit, found).sum() > total_macs(early_exit, digit_images).sum()


# determinism


@pytest.mark.parametrize("seed", [0, 7, -1])
def test_same_seed_same_bits(seed: int) -> None:
    victim, clean = LinearSaver(), grey_images(40)
    attack = Slowdown(victim, 2 / 255, steps=5, seed=seed)
    first = attack(clean)
    torch.rand(3)
    assert torch.equal(attack(clean), first)
    assert torch.equal(Slowdown(victim, 2 / 255, steps=5, seed=seed)(clean), first)
    assert not torch.equal(Slowdown(victim, 2 / 255, steps=5, seed=seed + 1)(clean), first)


# schedules, knife edges, gradients


def test_schedules() -> None:
    assert [cosine(1.0)(p) for p in (0.0, 0.5)] == pytest.approx([1.0, 0.5])
    assert cosine(1.0, 0.2)(1.0) == pytest.approx(0.2)
    assert {constant(0.3)(p) for p in (0.0, 0.5, 0.9)} == {0.3}


def test_knife_edge() -> None:
    def knife(margin: Tensor, reached: Tensor | None = None, proxy: bool = False) -> list[bool]:
        reached = torch.ones_like(margin, dtype=torch.bool) if reached is None else reached
        gate = Gate("g", margin, margin > 0, reached, 1.0, proxy)
        logits = torch.zeros(len(margin), 2)
        return on_knife_edge(Trace(logits, (gate,), logits.sum(1).double())).tolist()

    near = torch.tensor([[1e-6], [0.1], [-1e-6]])
    assert knife(near) == [True, False, True]
    assert knife(near.expand(-1, 4)) == [True, False, True]
    assert knife(torch.tensor([[0.5, 1e-6], [0.5, 0.5]])) == [True, False]
    assert knife(near, reached=torch.tensor([[False], [True], [True]])) == [False, False, True]
    assert knife(near, proxy=True) == [False] * 3


class TwoGates(LinearSaver):
    """A second gate that can be edited."""

    def second(self, gate: Gate) -> Gate:
        return gate

    def trace(self, images: Tensor) -> Trace:
        trace = super().trace(images)
        second = self.second(trace.gates[0]._replace(name="second"))
        return trace._replace(gates=(*trace.gates, second))


class OneDeafGate(TwoGates):
    def second(self, gate: Gate) -> Gate:
        return gate._replace(margin=gate.margin.detach())


class UnreachedDeafGate(TwoGates):
    def second(self, gate: Gate) -> Gate:
        return gate._replace(
            margin=gate.margin.detach(),
            active=torch.zeros_like(gate.active),
            reached=torch.zeros_like(gate.reached),
        )


class NoGradient(LinearSaver):
    def trace(self, images: Tensor) -> Trace:
        return super().trace(images.detach())


class InfiniteSlope(TwoGates):
    def second(self, gate: Gate) -> Gate:
        return gate._replace(margin=gate.margin - 0 * (gate.margin - gate.margin).sqrt())


@pytest.mark.parametrize(
    ("victim", "message"),
    [
        (NoGradient, "no gradient from gates saver reaches the pixels.*straight-through"),
        (OneDeafGate, "no gradient from gates second reaches"),
        (InfiniteSlope, "NaN or infinite"),
    ],
)
def test_gradients_that_are_none(victim: type[Victim], message: str) -> None:
    with pytest.raises(GradientError, match=message):
        Slowdown(victim())(grey_images(4))


def test_a_gate_that_nobody_reached_needs_no_gradient() -> None:
    Slowdown(UnreachedDeafGate(), steps=1)(grey_images(4))
