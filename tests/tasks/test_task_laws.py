"""What every task has to keep, and when its answers agree: closed forms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from drawn import generators, reproducible
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor
from torch.nn.functional import pad

from effattack.domains import Tokens
from effattack.errors import ContractError, UsageError
from effattack.tasks import Boxes, Classes, Matches, Tags, Task, Text, check_task
from effattack.tasks.boxes import overlaps
from effattack.tasks.matches import LEAST_LEAD
from effattack.tasks.properties import LAWS
from effattack.tasks.shares import enough

TASKS: dict[str, Task] = {
    "classes": Classes(5),
    "tags": Tags(3),
    "text": Text(cap=6),
    "text with an end": Text(end=1),
    "boxes": Boxes(),
    "boxes, half of them": Boxes(overlap=0.3, share=0.5),
    "matches": Matches(pixels=2.0),
    "matches, and what was not taken": Matches(pixels=2.0, share=0.7, least=0.4),
}

LED = {"boxes", "boxes, half of them", "matches, and what was not taken"}
"""Sets with a lead."""


@reproducible
@given(st.sampled_from(sorted(TASKS)), generators())
def test_every_law_holds_on_any_outputs(name: str, generator: Generator) -> None:
    task = TASKS[name]
    outputs = task.example(5, generator)
    for law in LAWS:
        assert law(task, outputs), law.__doc__


@pytest.mark.parametrize("name", TASKS)
def test_the_house_tasks_pass_the_check_at_run_time(name: str) -> None:
    check_task(TASKS[name])


@pytest.mark.parametrize("name", TASKS)
def test_what_is_no_number_is_no_answer(name: str) -> None:
    task = TASKS[name]
    outputs = task.example(3, Generator().manual_seed(1)).double()
    broken = outputs.clone()
    broken[1] = torch.nan
    assert task.valid(broken).tolist()[1] is False
    assert not task.close(broken, outputs, 1e9)[1] or name.startswith("text")


def test_classes_agree_where_the_largest_logit_is_the_same() -> None:
    task = Classes(3)
    outputs = torch.tensor([[1.0, 2.0, 0.0], [3.0, 2.0, 1.0]])
    answers = task.answer(outputs)
    assert answers.tolist() == [1, 0]
    assert task.text(answers[0]) == 1
    assert task.agree(answers, torch.tensor([1, 1])).tolist() == [True, False]
    assert task.right(answers, torch.tensor([0, 0])).tolist() == [False, True]
    lead = task.lead(outputs, answers)
    assert torch.allclose(lead, torch.tensor([1 / 2, 1 / 2])), "1 / (s + 1), s = 1 here"


def test_names_of_classes_are_told_and_as_many() -> None:
    assert Classes(2, ["no", "yes"]).describe() == {"noun": "class", "names": ["no", "yes"]}
    assert Classes(2).describe() == {"noun": "class"}
    with pytest.raises(UsageError, match="3 names for 2 classes: give one of each, or none"):
        Classes(2, "abc")


def test_classes_are_close_relative_to_the_largest_logit() -> None:
    task = Classes(2)
    expected, found = torch.tensor([[10.0, 0.0], [0.1, 0.0]]), torch.tensor([[10.5, 0], [0.15, 0]])
    assert torch.allclose(task.gap(found, expected), torch.tensor([0.05, 0.05]))
    assert task.close(found, expected, 0.06).all()


tag_rows = st.lists(st.integers(0, 2), min_size=2, max_size=6)


@reproducible
@given(tag_rows, st.data())
def test_tags_are_compared_on_every_token_that_was_not_changed(
    tags: list[int], data: st.DataObject
) -> None:
    task, domain = Tags(3), Tokens(99, 20)
    prompt = list(range(10, 10 + len(tags)))
    at = data.draw(st.integers(0, len(tags) - 1))
    edit = data.draw(st.sampled_from(["suffix", "prefix", "swap"]))
    attacked, said = {
        "suffix": ([*prompt, 50, 51], [*tags, 0, 0]),
        "prefix": ([50, *prompt], [0, *tags]),
        "swap": ([*prompt], [*tags]),
    }[edit]
    if edit == "swap":
        attacked[at], said[at] = 50, 2 - tags[at]
    kept = domain.kept(torch.tensor([attacked]), torch.tensor([prompt]))
    clean, answer = torch.tensor([tags]), torch.tensor([said])
    assert task.agree(clean, answer, kept).all(), "what stands where it was has its tag"
    assert task.right(answer, clean, kept).all(), "and only that has a label"
    place = next(iter(p for p in kept[0].tolist() if p >= 0), None)
    if place is not None:
        answer[0, place] = (answer[0, place] + 1) % 3
        assert not task.agree(clean, answer, kept).any()
        assert not task.right(answer, clean, kept).any()


def test_tags_behind_the_last_token_are_none() -> None:
    outputs = torch.randn(2, 4, 3)
    outputs[1, 2:] = -torch.inf
    task = Tags(3)
    assert (task.answer(outputs)[1] == -1).tolist() == [False, False, True, True]
    assert task.valid(outputs).all()
    assert task.text(torch.tensor([2, 0, -1])) == "2 0"
    assert task.right(torch.tensor([[2, 0, -1]]), torch.tensor([[2, 0]])).all()


token_rows = st.lists(st.integers(2, 6), min_size=0, max_size=6)


@reproducible
@given(token_rows, token_rows)
def test_a_text_agrees_where_it_begins_with_the_clean_one(
    clean: list[int], attacked: list[int]
) -> None:
    task = Text(end=1)
    one, other = (task.answer(torch.tensor([[*ids, 1, -1]])) for ids in (clean, attacked))
    assert bool(task.agree(one, other)) == (attacked[: len(clean)] == clean)
    assert bool(task.right(one, other)) == (clean == attacked)


def test_the_end_of_a_text_is_no_part_of_the_answer() -> None:
    answers = Text(end=1).answer(torch.tensor([[4, 1, 7], [4, 5, -1], [1, -1, -1]]))
    assert answers.tolist() == [[4, -1, -1], [4, 5, -1], [-1, -1, -1]]
    assert Text().text(answers[1]) == "4 5"
    assert Text(cap=2).valid(torch.tensor([[4, 1, 7]])).tolist() == [False], "above its cap"
    assert Text().valid(torch.tensor([[4, -1, 7]])).tolist() == [False], "-1 inside"


@reproducible
@given(st.integers(0, 10), st.integers(1, 10))
def test_overlap_of_a_box_pushed_aside_is_known(shift: int, width: int) -> None:
    box = torch.tensor([[0.0, 0.0, width, 4.0]])
    moved = box + torch.tensor([[shift, 0, shift, 0]])
    common = max(width - shift, 0)
    assert overlaps(box, moved).item() == pytest.approx(common / (2 * width - common))


def boxes(*rows: tuple[float, float, float, float, float, int]) -> Tensor:
    """One image."""
    return torch.tensor(rows, dtype=torch.float32).view(1, -1, 6)


A, B = (0, 0, 10, 10, 0.9, 1), (20, 0, 30, 10, 0.8, 2)


@pytest.mark.parametrize(
    ("one", "other", "share"),
    [
        (boxes(A, B), boxes(B, A), 1),
        (boxes(A, B), boxes(A), 1 / 2),
        (boxes(A), boxes((*A[:5], 2)), 0),
        (boxes(A, A), boxes(A), 1 / 2),
        (boxes(A, A), boxes(A, A), 1),
        (boxes(), boxes(A), 0),
        (boxes(), boxes(), 1),
        (boxes(A), boxes((0, 0, 10, 5, 0.9, 1)), 1),
        (boxes(A), boxes((0, 0, 10, 4.9, 0.9, 1)), 0),
        (boxes((3, 3, 3, 3, 0.5, 0)), boxes((3, 3, 3, 3, 0.5, 0)), 1),
        (boxes(A), boxes(A, (-1, -1, -1, -1, -1, -1)), 1),
    ],
)
def test_share_of_boxes_with_a_counterpart(one: Tensor, other: Tensor, share: float) -> None:
    task = Boxes(overlap=0.5, share=0.9)
    assert task.shares(one, other).item() == task.shares(other, one).item() == share
    assert bool(task.agree(one, other)) == (share >= 0.9)


def test_every_box_has_one_counterpart_and_as_many_as_can_have_one() -> None:
    """a is like x and y, b like x alone: whoever is asked first, both find one."""
    a, b = (0, 0, 10, 10, 0.9, 1), (0, 0, 10, 6, 0.9, 1)
    x, y = (0, 0, 10, 8, 0.9, 1), (0, 2, 10, 12, 0.9, 1)
    task = Boxes(overlap=0.6)
    assert task.alike(boxes(a, b)[0], boxes(x, y)[0]).tolist() == [[True, True], [True, False]]
    assert task.shares(boxes(a, b), boxes(x, y)).item() == 1


@pytest.mark.parametrize(
    ("found", "lead", "slopes"),
    [
        (boxes(A, B), 0.8, [0, 1]),
        (boxes(B), -1.0, [0]),
        (boxes(A, B, (40, 0, 50, 10, 0.7, 1)), -0.7, [0, 0, -1]),
        (boxes(A, (40, 0, 50, 10, 0.7, 1)), -0.85, [0, -1 / 2]),
        (boxes(A, A), -0.95, [0, -1 / 2]),
        (boxes(), -1.0, []),
    ],
)
def test_boxes_that_were_not_wanted_are_told_to_go(
    found: Tensor, lead: float, slopes: list[float]
) -> None:
    found = found.clone().requires_grad_()
    leads = Boxes(overlap=0.5).lead(found, boxes(A, B))
    assert leads.item() == pytest.approx(lead)
    if any(slopes):
        (slope,) = torch.autograd.grad(leads.sum(), found)
        assert slope[0, :, 4].tolist() == pytest.approx(slopes)
        assert not slope[0, :, :4].any()


@pytest.mark.parametrize(
    ("proposals", "leads", "slopes"),
    [
        ((A, B), [0.9, 0.8], [1, 1]),
        ((A, (*A[:4], 0.2, 1), B), [0.9, 0.8], [1, 0, 1]),
        (((*A[:4], -0.3, 1), (40, 0, 50, 10, 0.7, 1)), [-0.3, -1.0, -0.7], [1, -1]),
        ((A, (*B[:4], 0.8, 1)), [0.9, -1.0, -0.8], [1, -1]),
        ((), [-1.0, -1.0], []),
    ],
)
def test_what_is_proposed_leads_where_it_is_wanted(
    proposals: tuple[Any, ...], leads: list[float], slopes: list[int]
) -> None:
    """Of A and B, the best proposal of each; of all others, how surely they are refused."""
    wanted = boxes(A, B)
    found = boxes(*proposals).requires_grad_()
    (told,) = Boxes(overlap=0.5).leads(found, wanted)
    assert told.tolist() == pytest.approx(leads)
    (padded,) = Boxes(overlap=0.5).leads(pad(found, (0, 0, 0, 2), value=-1.0), wanted)
    assert padded.tolist() == pytest.approx([*leads, 1, 1])
    if any(slopes):
        (slope,) = torch.autograd.grad(told.sum(), found)
        assert slope[0, :, 4].tolist() == slopes


@reproducible
@given(st.sampled_from([name for name in sorted(TASKS) if name in LED]), generators())
def test_sets_lead_where_they_agree(name: str, generator: Generator) -> None:
    task: Any = TASKS[name]
    wanted, found = (task.example(6, generator) for _ in range(2))
    found = torch.where(torch.rand(6, 1, 1, generator=generator) < 0.5, wanted, found)
    leads = task.lead(found, wanted)
    assert torch.equal(leads > 0, task.agree(wanted, found))
    assert (leads.abs() <= 1).all()


@reproducible
@given(st.floats(0, 6), st.integers(1, 6), st.integers(0, 6))
def test_share_of_matches_that_stayed(moved: float, count: int, pushed: int) -> None:
    """Of matches 100 pixels apart, those whose far end was pushed beyond 3 pixels are lost."""
    pushed = min(pushed, count)
    there = torch.arange(count, dtype=torch.float32) * 100
    score = torch.ones(count)
    one = torch.stack([there, there, there, there, score], 1)[None]
    other = one.clone()
    other[0, :pushed, 2] += moved
    lost = pushed if moved > 3 else 0
    task = Matches(pixels=3.0, share=0.5)
    assert task.shares(one, other).item() == pytest.approx((count - lost) / count)
    assert bool(task.agree(one, other)) == ((count - lost) / count >= 0.5)


class NeverItself(Classes):
    """Agrees with nobody."""

    def agree(self, a: Tensor, b: Tensor, kept: Tensor | None = None) -> Tensor:
        return a != a


class OneWay(Classes):
    """Agrees with a larger class."""

    def agree(self, a: Tensor, b: Tensor, kept: Tensor | None = None) -> Tensor:
        return a <= b


class Lenient(Classes):
    """Whatever is said is right."""

    def right(self, answers: Tensor, labels: Any, kept: Tensor | None = None) -> Tensor:
        return torch.ones(len(answers), dtype=torch.bool)


class SeesMates(Classes):
    """Answers by the rank in the batch."""

    def answer(self, outputs: Tensor) -> Tensor:
        return torch.arange(len(outputs)) % self.count


@pytest.mark.parametrize(
    ("task", "law"),
    [
        (NeverItself(4), r"NeverItself breaks a law of tasks: agree\(a, a\) is true: correct"),
        (OneWay(4), r"OneWay breaks a law of tasks: agree\(a, b\) is agree\(b, a\)"),
        (Lenient(4), r"Lenient breaks a law of tasks: right\(a, a\) is true, and right\(a, b\)"),
        (SeesMates(4), r"SeesMates breaks a law of tasks: answer\(x\) of a row"),
    ],
)
def test_a_task_that_breaks_a_law_is_named(task: Task, law: str) -> None:
    with pytest.raises(ContractError, match=law):
        check_task(task)


@pytest.mark.parametrize(
    ("task", "labels", "message"),
    [
        (
            Classes(3),
            torch.tensor([0, 3]),
            r"labels lie in \[0, 3\], the victim has classes 0 to 2",
        ),
        (Tags(3), torch.tensor([0, 1]), r"labels must be a tensor \(B, L\) of integer tags"),
        (Tags(3), torch.tensor([[0], [5]]), "has tags 0 to 2, and -1 behind the last"),
        (Text(), torch.zeros(1, 3).long(), "there are 2 inputs but 1 rows of labels"),
        (Boxes(), torch.zeros(2, 3, 5), "rows left, top, right, bottom, score, class, with"),
        (Matches(), torch.full((2, 1, 5), torch.nan), "labels contain NaN or infinity"),
    ],
)
def test_labels_of_another_task_are_refused(task: Task, labels: Tensor, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        task.check(labels, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Text(cap=0), "cap = 0: give a whole number of at least 1"),
        (lambda: Boxes(share=0), r"Boxes: share = 0 is out of range: give a number in \(0, 1\]"),
        (lambda: Boxes(overlap=1.5), "Boxes: overlap = 1.5"),
        (lambda: Boxes(cap=0), "Boxes: cap = 0"),
        (lambda: Matches(pixels=float("nan")), "pixels = nan: give a finite number"),
        (lambda: Matches(least=0), r"least = 0: give a score in \(0, 1\), or None"),
        (lambda: Matches(least=float("nan")), "least = nan: give a score"),
    ],
)
def test_thresholds_that_are_none_are_refused(make: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


def points(*rows: tuple[float, float]) -> Tensor:
    """One pair of images: where a match lies, the same in both, and its score."""
    return torch.tensor([[at, 0, at, 0, score] for at, score in rows])[None]


THREE = points((0, 0.9), (100, 0.9), (200, 0.9))


def bounded_log(ratio: float) -> float:
    return math.log(ratio) / (1 + abs(math.log(ratio)))


@pytest.mark.parametrize(
    ("found", "lead", "pushed"),
    [
        (points((0, 0.8), (100, 0.4), (200, 0.1)), bounded_log(2), [1]),
        (points((0, 0.8), (100, 0.1), (200, 0.05)), bounded_log(1 / 2), [1]),
        (points((0, 0.1), (2, 0.05), (100, 0.1)), bounded_log(1 / 2), [0, 2]),
        (points((0, 0.8)), -1, []),
        (points(), -1, []),
        (torch.cat([THREE, points(*((at, 0.9) for at in (3e2, 4e2, 5e2, 6e2)))], 1), -1, []),
    ],
)
def test_matches_that_were_not_taken_are_told_to_come_back(
    found: Tensor, lead: float, pushed: list[int]
) -> None:
    """Two of three are needed, with scores above 0.2; four where seven were found."""
    task = Matches(pixels=3.0, share=0.5, least=0.2)
    found = found.view(1, -1, 5).clone().requires_grad_()
    leads = task.lead(found, THREE)
    assert leads is not None
    assert leads.item() == pytest.approx(lead)
    if pushed:
        (slope,) = torch.autograd.grad(leads.sum(), found)
        assert slope[0, :, 4].nonzero()[:, 0].tolist() == pushed
        assert (slope >= 0).all()


def test_two_matches_with_one_counterpart_do_not_lead() -> None:
    """The scores say that both are found."""
    task = Matches(pixels=3.0, share=0.9, least=0.2)
    leads = task.lead(points((1, 0.9)), points((0, 0.9), (2, 0.9)))
    assert leads is not None
    assert leads.item() == pytest.approx(-LEAST_LEAD)


def test_matches_without_a_least_score_have_no_lead() -> None:
    assert Matches().lead(THREE, THREE) is None


def test_what_was_not_taken_is_no_member_and_makes_no_gap() -> None:
    task = Matches(least=0.2, cap=1)
    one, other = points((0, 0.9), (50, 0.2)), points((0, 0.9))
    assert [len(rows) for rows in task.members(one)] == [1]
    assert task.shares(one, other).item() == 1
    assert task.gap(one, other).item() == 0
    assert task.valid(one).all(), "one match, as many as the cap allows"
    assert not task.valid(points((0, 0.9), (50, 0.3))).any()
    assert task.text(one[0]) == task.text(other[0])


@reproducible
@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=6), st.integers(1, 7))
def test_enough_are_positive_where_as_many_as_are_asked_for_are(
    excess: list[float], count: int
) -> None:
    margin = enough(torch.tensor(excess), count).item()
    assert (margin > 0) == (sum(x > 0 for x in excess) >= count)
    assert -1 <= margin <= 1
