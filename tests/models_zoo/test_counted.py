"""Counting from proposals: closed forms of the component, its work, and the scenes it counts in."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor
from toys import embedded_or_skip

from effattack.attacks import build
from effattack.domains import PartsBatch
from effattack.errors import UsageError
from effattack.models_zoo.detection import scenes
from effattack.models_zoo.detection.embedded import scenes_detector
from effattack.models_zoo.files import read_card
from effattack.models_zoo.multimodal import crowds
from effattack.models_zoo.multimodal.counting import Counting, CountsProposals, Line
from effattack.models_zoo.multimodal.questions import ANSWERS, MANY, WORDS
from effattack.threats import parse_threat
from effattack.victim import audit
from effattack.victim.checks import held_to

APART = 100.0
"""Pixels between objects, whose boxes are 10 wide."""


def drawn_lines(counting: Counting, seed: int) -> Counting:
    """Lines of any shape that never fall."""
    draw = Generator().manual_seed(seed)
    for parameter in counting.parameters():
        parameter.data = torch.randn(parameter.shape, generator=draw)
    return counting.double()


def boxes_of(objects: list[int]) -> Tensor:
    """(1, n, 4): so many equal boxes of each object."""
    left = APART * torch.arange(len(objects)).repeat_interleave(torch.tensor(objects).long())
    return torch.stack([left, 0 * left, left + 10, 0 * left + 10], 1).double()[None]


@pytest.mark.parametrize("seed", range(3))
def test_a_line_is_a_sum_of_sixteen_hinges(seed: int) -> None:
    line = Line()
    line.rises.data = torch.randn(16, generator=Generator().manual_seed(seed))
    x = torch.linspace(0, 1, 101)
    weights = line.rises.detach().abs() / line.rises.detach().abs().sum()
    hinges = (16 * x[:, None] - torch.arange(16)).clamp(0, 1)
    found = line(x).detach()
    assert torch.allclose(found, (hinges * weights).sum(1), atol=1e-6)
    assert found[0] == 0
    assert found[-1].item() == pytest.approx(1)
    assert (found.diff() >= -1e-6).all()


@settings(max_examples=40, deadline=None)
@given(
    objects=st.lists(st.integers(1, 4), max_size=5),
    others=st.lists(st.integers(1, 3), max_size=3),
    seed=st.integers(0, 1000),
)
def test_perfect_proposals_are_counted_whatever_was_learnt(
    objects: list[int], others: list[int], seed: int
) -> None:
    """Each object once, however often it is proposed; what is not asked for, not at all."""
    counting = drawn_lines(Counting(6), seed)
    boxes = boxes_of([*objects, *others])
    attention = torch.zeros(1, boxes.shape[1], dtype=torch.float64)
    attention[:, : sum(objects)] = 1
    found = counting.objects(counting.distances(boxes), attention)
    assert found.item() == pytest.approx(len(objects), abs=1e-5)


def by_loops(boxes: list[list[float]], a: list[float]) -> float:
    """The equations of section 4 with f(x) = x, one number after another."""
    n = range(len(a))

    def distance(i: int, j: int) -> float:
        (o, t, r, b), (m, u, s, c) = boxes[i], boxes[j]
        common = max(0.0, min(r, s) - max(o, m)) * max(0.0, min(b, c) - max(t, u))
        return 1 - common / ((r - o) * (b - t) + (s - m) * (c - u) - common)

    def alike(i: int, j: int) -> float:
        found = 1 - abs(a[i] - a[j])
        for k in n:
            found *= 1 - abs(a[i] * a[k] * distance(i, k) - a[j] * a[k] * distance(j, k))
        return found

    once = [1 / sum(alike(i, j) for j in n) for i in n]
    edges = sum(a[i] * a[j] * distance(i, j) * once[i] * once[j] for i in n for j in n)
    return (edges + sum(once[i] * a[i] ** 2 for i in n)) ** 0.5


@pytest.mark.parametrize("seed", range(4))
def test_overlaps_are_weighed_by_the_equations(seed: int) -> None:
    draw = Generator().manual_seed(seed)
    corner = 12 * torch.rand(7, 2, generator=draw, dtype=torch.float64)
    size = 4 + 8 * torch.rand(7, 2, generator=draw, dtype=torch.float64)
    boxes = torch.cat([corner, corner + size], 1)
    attention = torch.rand(7, generator=draw, dtype=torch.float64)
    counting = Counting(4).double()
    found = counting.objects(counting.distances(boxes[None]), attention[None])
    assert found.item() == pytest.approx(by_loops(boxes.tolist(), attention.tolist()))


@pytest.mark.parametrize("objects", [0, 1, 3, 4, 7])
def test_a_count_is_told_among_those_that_are_told_apart(objects: int) -> None:
    counting = Counting(4).double()
    boxes = boxes_of([2] * objects)
    found = counting(boxes, torch.ones(1, boxes.shape[1], dtype=torch.float64))
    assert found.argmax(1).item() == min(objects, 4) or objects == 0
    assert (found[0] > 1e-4).sum() == (objects > 0)


def test_between_two_numbers_both_have_a_share() -> None:
    counting = Counting(4).double()
    attention = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    distance = counting.distances(boxes_of([1, 1]))
    count = counting.objects(distance, attention).item()
    found = counting(boxes_of([1, 1]), attention)[0]
    assert 1 < count < 2
    assert (found[2] / found[1]).item() == pytest.approx((count - 1) / (2 - count))


def drawn_victim(**options: float) -> CountsProposals:
    """With the detector, and drawn otherwise."""
    torch.manual_seed(5)
    victim = CountsProposals(**options)  # type: ignore[arg-type]
    detector = embedded_or_skip("scenes_detector")
    victim.network.load_state_dict(detector.model.state_dict())
    return victim


def some(count: int = 10) -> PartsBatch:
    return crowds.counted("heldout")[0][:count]


def test_work_is_audited_to_the_last_triple() -> None:
    victim, batch = drawn_victim(), some(6)
    told, ran = victim.trace(batch), audit(victim, batch)
    assert torch.equal(ran.macs, told.macs)
    for name, count in told.also.items():
        assert torch.equal(ran.counts[name], count), name
    boxes = scenes_detector().trace(batch["image"]).also["boxes"]
    assert torch.equal(told.also["proposals"], boxes)
    assert torch.equal(told.also["triples"], boxes**3)


@pytest.mark.slow
def test_it_keeps_the_contract() -> None:
    victim = drawn_victim(most=12)
    assert (victim.trace(some()).also["proposals"] == 12).any(), "none at the cap"
    for check, on in held_to(victim):
        check(on, some())


def test_more_than_the_most_are_the_best() -> None:
    batch = some(4)
    victim, dense = drawn_victim(most=5), drawn_victim(score=0.0, most=5)
    assert torch.equal(victim.trace(batch).also["triples"], torch.full((4,), 125.0).double())
    assert torch.allclose(victim(batch), dense(batch), atol=1e-5)
    assert (victim.trace(batch).macs == victim.max_macs).all()
    assert (victim.ceiling(batch, "triples") == 125).all()


def test_a_scene_without_proposals_is_answered_for_nothing() -> None:
    victim, batch = drawn_victim(score=1.0), some(3)
    assert victim(batch).isfinite().all()
    trace = victim.trace(batch)
    assert not trace.also["triples"].any()
    assert (trace.macs == victim.least).all()


@pytest.mark.parametrize("options", [{"most": 0}, {"most": 256}, {"score": 1.5}])
def test_what_is_out_of_range_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        CountsProposals(**options)  # type: ignore[arg-type]


def test_the_question_moves_no_work() -> None:
    victim, batch = drawn_victim(), some()
    other = batch.replaced(question=batch["question"].flip(0))
    assert torch.equal(victim.trace(batch).also["triples"], victim.trace(other).also["triples"])
    assert not torch.equal(victim(batch), victim(other))


@pytest.mark.parametrize("name", ["Slowdown", "PhantomSponges", "Overload"])
def test_proposals_are_pushed_up(name: str) -> None:
    victim, batch = drawn_victim(), some(4)
    threat = parse_threat("image:linf:8/255")
    with torch.no_grad():
        clean, noise, attacked = (
            victim.trace(build(each, victim, threat)(batch)).also["triples"].sum()
            for each in ("clean", "noise", f"{name}(steps=6)")
        )
    assert attacked > 2 * clean
    assert attacked > 2 * noise


def test_it_counts_nearly_as_well_as_its_dense_model() -> None:
    card = read_card("questions_counted")
    assert card["accuracy"] >= 0.9 * card["dense_accuracy"]
    assert min(card["accuracy_by_answer"][str(n)] for n in range(4)) > 0.8


def test_answers_are_those_of_the_boxes() -> None:
    images, boxes, rows, ids, answers = crowds.drawn("test")
    assert images.shape == (200, 1, scenes.SIDE, scenes.SIDE)
    for scene, words, answer in zip(rows.tolist(), ids, answers.tolist(), strict=True):
        how, many, wanted, *blank = words.tolist()
        assert (WORDS[how], WORDS[many], set(blank)) == ("how", "many", {-1})
        kinds = [int(kind) for *_, score, kind in boxes[scene].tolist() if score > 0]
        assert len({*kinds}) <= 2
        assert ANSWERS[answer] == str(kinds.count(MANY.index(WORDS[wanted])))


def test_several_of_a_kind_are_asked_for_often() -> None:
    answers = crowds.counted("heldout")[1]
    assert sorted(answers.unique().tolist()) == [0, 1, 2, 3, 4]
    assert (answers > 1).double().mean() > 0.4
