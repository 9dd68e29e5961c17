"""Objectives against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from toys import LinearSaver, grey_images

from effattack.attacks.objectives import (
    Goal,
    KeepPrediction,
    MarginHinge,
    Objective,
    ReweightedHinge,
    StayUnnoticed,
    Towards,
    UniformExits,
    UniformSignificance,
    require_gates,
)
from effattack.errors import NotApplicable
from effattack.tasks import Boxes
from effattack.victim import Gate, Opaque, Trace
from effattack.victim.trace import CHOSEN_FROM


def a_trace(
    gates: tuple[Gate, ...] = (),
    logits: Tensor | None = None,
    stage_logits: Tensor | None = None,
    **aux: Tensor,
) -> Trace:
    logits = torch.zeros(2, 3) if logits is None else logits
    macs = torch.ones(len(logits), dtype=torch.float64)
    return Trace(logits=logits, gates=gates, macs=macs, stage_logits=stage_logits, aux=aux)


def a_gate(
    margin: Tensor, reached: Tensor | None = None, cost: float | Tensor = 1.0, pushed: bool = False
) -> Gate:
    """As the door shows it: (B,) is one unit."""
    margin = margin.view(len(margin), -1)
    everywhere = torch.ones_like(margin, dtype=torch.bool)
    reached = everywhere if reached is None else reached.view_as(margin)
    return Gate("g", margin, (margin > 0) & reached, reached, cost, pushed=pushed)


@pytest.fixture
def goal() -> Goal:
    """Of a victim whose max is 176 MACs; both images were of class 1."""
    return Goal(LinearSaver(), torch.tensor([[0.0, 1.0]] * 2), torch.tensor([1, 1]))


# Σ cost · min(margin, κ) over reached gates, over max MACs


def test_hinge_adds_up_reached_gates(goal: Goal) -> None:
    exit_gate = a_gate(torch.tensor([-0.5, 0.9]), cost=88.0)
    tokens = a_gate(
        torch.tensor([[-0.25, 0.01], [0.5, -1.0]]),
        reached=torch.tensor([[True, True], [True, False]]),
        cost=17.6,
    )
    found = MarginHinge(kappa=0.05)(a_trace((exit_gate, tokens)), goal)
    expected = [
        0.5 * -0.5 + 0.1 * (-0.25 + 0.01),
        0.5 * 0.05 + 0.1 * 0.05,
    ]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_hinge_takes_a_cost_per_unit(goal: Goal) -> None:
    gate = a_gate(torch.tensor([[-1.0, -1.0], [0.0, -1.0]]), cost=torch.tensor([176.0, 17.6]))
    found = MarginHinge()(a_trace((gate,)), goal)
    torch.testing.assert_close(found, torch.tensor([-1.1, -0.1]))


def test_hinge_stops_pushing_open_gates(goal: Goal) -> None:
    margin = torch.tensor([0.04, 0.06], requires_grad=True)
    MarginHinge(kappa=0.05)(a_trace((a_gate(margin),)), goal).sum().backward()
    assert margin.grad is not None
    assert (margin.grad != 0).tolist() == [True, False]


def test_reweighted_gates_count_by_weights_that_the_seed_draws(goal: Goal) -> None:
    first, second = a_gate(torch.tensor([-0.5, 0.9]), cost=88.0), a_gate(torch.tensor([-1.0, -0.5]))
    alone = [MarginHinge()(a_trace((gate,)), goal) for gate in (first, second)]
    found = [ReweightedHinge(seed=seed)(a_trace((first, second)), goal) for seed in (0, 0, 1)]
    assert torch.equal(found[0], found[1])
    weights = torch.linalg.solve(torch.stack(alone, dim=1), torch.stack(found, dim=1))
    assert (weights > 0).all()
    assert not torch.allclose(weights[:, 0], weights[:, 2], rtol=0.01)


def test_hinge_ignores_what_was_not_reached(goal: Goal) -> None:
    margin = torch.tensor([-0.5, -0.5], requires_grad=True)
    gate = a_gate(margin, reached=torch.tensor([True, False]), cost=176.0)
    value = MarginHinge()(a_trace((gate,)), goal)
    assert value.tolist() == [-0.5, 0.0]
    value.sum().backward()
    assert margin.grad is not None
    assert margin.grad.tolist() == [1.0, 0.0]


def test_of_stages_in_a_row_the_hinge_pushes_all(goal: Goal) -> None:
    margin = torch.tensor([-0.5, -0.25], requires_grad=True)
    gate = a_gate(margin, reached=torch.tensor([True, False]), cost=176.0, pushed=True)
    value = MarginHinge()(a_trace((gate,)), goal)
    assert value.tolist() == [-0.5, -0.25], "the next stage has answered, too"
    value.sum().backward()
    assert margin.grad is not None
    assert margin.grad.tolist() == [1.0, 1.0]


def test_gates_without_a_max_cannot_be_weighed() -> None:
    victim = LinearSaver()
    victim.max_macs = math.nan
    with pytest.raises(NotApplicable, match="declare the structural worst case"):
        MarginHinge().check(victim.trace(grey_images(1)), victim)


# − Σ over internal stages of CE(uniform, softmax)


def test_uniform_exits_is_best_at_uniform(goal: Goal) -> None:
    sure = torch.tensor([10.0, 0.0, 0.0])
    stages = torch.stack([torch.zeros(3, 3), torch.stack([sure, sure, torch.zeros(3)])])
    stages[:, 2] = torch.tensor([1e6, 0.0, -1e6])  # the last stage does not count
    found = UniformExits()(a_trace(stage_logits=stages), goal)
    log_z = math.log(math.exp(10) + 2)
    expected = [-2 * math.log(3), 2 * (10 / 3 - log_z)]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_uniform_exits_needs_stages() -> None:
    with pytest.raises(NotApplicable, match="toy has no internal classifiers"):
        UniformExits().check(a_trace(), LinearSaver())


# − Σ over closed gates of cost · |lead over one class| / spread


def towards_goal() -> Goal:
    """The clean order of classes is 2, 0, 1 of both images."""
    return Goal(LinearSaver(), torch.tensor([[1.0, 0.0, 2.0]] * 2), torch.tensor([2, 2]))


def test_towards_one_class_at_all_stages_that_are_closed() -> None:
    stages = torch.tensor(
        [
            [[1.0, 0.0, 3.0], [4.0, 1.0, 2.0], [9.0, 0.0, 0.0]],  # the last stage does not count
            [[1.0, 0.0, 3.0], [4.0, 1.0, 2.0], [0.0, 9.0, 0.0]],
        ]
    )
    deviations = [math.sqrt(7 / 3), math.sqrt(7 / 3)]  # with one degree of freedom less
    first = a_gate(torch.tensor([-0.5, -0.5]), cost=88.0, pushed=True)
    second = a_gate(torch.tensor([-0.5, 0.5]), cost=17.6, pushed=True)  # the other one is open
    trace = a_trace((first, second), torch.zeros(2, 3), stages)
    expected = {
        1: [-0.5 * 2 / deviations[0] - 0.1 * 2 / deviations[1], -0.5 * 2 / deviations[0]],
        2: [-0.5 * 3 / deviations[0] - 0.1 * 3 / deviations[1], -0.5 * 3 / deviations[0]],
    }
    for rank, values in expected.items():
        torch.testing.assert_close(Towards(rank)(trace, towards_goal()), torch.tensor(values))


def test_towards_pulls_a_stage_that_has_gone_past_the_class_back() -> None:
    stages = torch.zeros(2, 2, 3)
    stages[0, 0], stages[1, 0] = torch.tensor([0.0, 0.0, 2.0]), torch.tensor([2.0, 0.0, 0.0])
    stages.requires_grad_()
    trace = a_trace((a_gate(torch.tensor([-0.5, -0.5])),), torch.zeros(2, 3), stages)
    Towards(1)(trace, towards_goal()).sum().backward()
    assert stages.grad is not None
    assert stages.grad[0, 0, 2] < 0 < stages.grad[0, 0, 0], "class 0 catches up"
    assert stages.grad[1, 0, 0] < 0, "class 0 falls back"
    assert not stages.grad[:, 1].any()


def test_towards_needs_stages_and_a_class_of_its_rank() -> None:
    gates = (a_gate(torch.zeros(2)),)
    tokens = (a_gate(torch.zeros(2, 3)),)
    stages, victim = torch.zeros(2, 2, 2), LinearSaver()
    for trace in (
        a_trace(gates),
        a_trace(gates, stage_logits=torch.zeros(2, 3, 2)),
        a_trace(tokens, stage_logits=stages),
    ):
        with pytest.raises(NotApplicable, match="no logits of stages, one per gate"):
            Towards(1).check(trace, victim)
    Towards(1).check(a_trace(gates, stage_logits=stages), victim)
    with pytest.raises(NotApplicable, match="2 classes: none is of rank 2"):
        Towards(2).check(a_trace(gates, stage_logits=stages), victim)


# − mean over blocks of KL(S ‖ uniform over live tokens)


def significance_trace(scores: Tensor, live: Tensor) -> Trace:
    """Scores and live (B, blocks, n)."""
    gates = tuple(
        a_gate(s, reached) for s, reached in zip(scores.unbind(1), live.unbind(1), strict=True)
    )
    return a_trace(gates, significance=scores)


def test_significance_closed_form(goal: Goal) -> None:
    uniform, peak, pair = [0.25] * 4, [1.0, 0, 0, 0], [0.5, 0.5, 0, 0]
    everything, half = [True] * 4, [True, True, False, False]
    scores = torch.tensor([[uniform, pair], [peak, pair]])
    live = torch.tensor([[everything, half], [everything, everything]])
    found = UniformSignificance()(significance_trace(scores, live), goal)
    expected = [0.0, -(math.log(4) + math.log(2)) / 2]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-6, rtol=1e-6)


def test_significance_has_a_gradient_beside_dropped_tokens(goal: Goal) -> None:
    logits = torch.tensor([[[0.3, -0.2, 0.1, 0.0]]], requires_grad=True)
    live = torch.tensor([[[True, True, True, False]]])
    scores = logits.masked_fill(~live, -torch.inf).softmax(2)
    UniformSignificance()(significance_trace(scores, live), goal).sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0, 0, 0] < 0 < logits.grad[0, 0, 1], "towards uniform"


def test_significance_needs_significance() -> None:
    with pytest.raises(NotApplicable, match="shows no token significance"):
        UniformSignificance().check(a_trace(), LinearSaver())


# keeping the prediction


def test_keep_prediction_subtracts_cross_entropy(goal: Goal) -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0], [0.0, 5.0, 0.0]])
    gate = a_gate(torch.tensor([-0.5, 0.5]), cost=176.0)
    found = KeepPrediction(MarginHinge(), weight=0.1)(a_trace((gate,), logits), goal)
    second = math.log(2 + math.exp(5)) - 5
    expected = [-0.5 - 0.1 * math.log(3), 0.05 - 0.1 * second]
    torch.testing.assert_close(found, torch.tensor(expected))


@pytest.mark.parametrize("slow", [MarginHinge(), UniformExits(), UniformSignificance()])
def test_keep_prediction_needs_what_its_part_needs(slow: Objective) -> None:
    with pytest.raises(NotApplicable):
        KeepPrediction(slow, weight=1).check(a_trace(), LinearSaver())


# who can be attacked


def test_victims_without_gates_are_refused() -> None:
    victim = Opaque(LinearSaver(), (1, 4, 4))
    with pytest.raises(NotApplicable, match="cannot be opened"):
        MarginHinge().check(victim.trace(grey_images(1)), victim)
    victim.constant = True
    with pytest.raises(NotApplicable, match=r"its MACs are constant.*do not apply"):
        require_gates(a_trace(), victim)


def test_goal_of_some_images(goal: Goal) -> None:
    logits, labels = torch.eye(8)[[4, 5, 6]], torch.tensor([1, 2, 3])
    some = Goal(goal.victim, logits, labels, print).rows(torch.tensor([2, 0]))
    assert some.answer.tolist() == [6, 4]
    assert some.labels.tolist() == [3, 1]
    assert some.callback is print
    assert some.victim is goal.victim


# - openings · dearest cost / max MACs · Σ max(0, κ - lead) over all proposals


def test_each_proposal_that_is_otherwise_than_wanted_is_charged_for() -> None:
    """A face in the first image alone. Log-odds .03, .5; -.02, one that pads; all as it was."""
    victim = LinearSaver()
    victim.task = Boxes()
    face, none = [0.0, 0, 10, 10, 0.9, 0], [-1.0] * 6
    goal = Goal(victim, torch.tensor([[face], [none], [none]]), torch.zeros(3))
    near = [0.0, 0, 10, 9, 0.03, 0]
    far, hint, sure = ([50.0, 0, 60, 9, odds, 0] for odds in (0.5, -0.02, -3))
    proposals = torch.tensor([[near, far], [hint, none], [sure, none]]).requires_grad_()
    hinge = MarginHinge()
    dear, cheap = (a_gate(torch.tensor([-0.5, 0.9, 0.2]), cost=cost) for cost in (88.0, 8.0))
    trace = a_trace((cheap, dear), torch.zeros(3, 1, 6), **{CHOSEN_FROM: proposals})
    charged = hinge(trace, goal) - StayUnnoticed(hinge, openings=2.0, kappa=0.1)(trace, goal)
    assert charged.tolist() == pytest.approx([(0.1 - 0.03) + (0.1 + 0.5), 0.1 - 0.02, 0])
    (slope,) = torch.autograd.grad(charged.sum(), proposals)
    assert slope[1, :, 4].tolist() == pytest.approx([1, 0])
    assert not slope[2].any(), "what is as it was is not charged for"


def test_where_nothing_is_proposed_the_answer_leads(goal: Goal) -> None:
    """By the lead of the clean class, up to .05."""
    trace = a_trace((a_gate(torch.tensor([0.0, 0.0])),), torch.tensor([[0.0, 2.0], [1.0, 0.0]]))
    hinge = MarginHinge()
    lead = goal.victim.task.lead(trace.logits, goal.answer)
    assert (lead > 0.05).tolist() == [True, False]
    gained = StayUnnoticed(hinge)(trace, goal) - hinge(trace, goal)
    torch.testing.assert_close(gained, lead.clamp(max=0.05))
