"""Scenes with questions: answers by another way of reading the boxes; questions of strangers."""

from __future__ import annotations

import pytest
import torch
from numpy.random import PCG64, Generator

from effattack.domains import PartsBatch
from effattack.errors import UsageError
from effattack.models_zoo.detection import scenes
from effattack.models_zoo.multimodal import questions
from effattack.models_zoo.multimodal.questions import ANSWERS, DIGITS, DOMAIN, MANY, WORDS
from effattack.models_zoo.text.pieces import Pieces


def expected(words: list[str], digits: list[tuple[float, int]]) -> str:
    """The answer to a question about digits with the middles of their boxes, read word by word."""
    match words:
        case ["how", "many", many]:
            return str(sum(kind == MANY.index(many) for _, kind in digits))
        case ["largest", "digit"]:
            return str(max(kind for _, kind in digits))
        case ["is", "there", "a", one, "left", "of", "the", other]:
            pairs = ((a, b) for a in digits for b in digits if a[0] < b[0])
            wanted = DIGITS.index(one), DIGITS.index(other)
            return "yes" if any((a[1], b[1]) == wanted for a, b in pairs) else "no"
    raise AssertionError(words)


def test_answers_are_those_of_the_boxes() -> None:
    batch, answers = questions.asked("test")
    _, boxes = scenes.scenes("test")
    pieces = Pieces(WORDS)
    for ids, rows, answer in zip(batch["question"], boxes, answers.tolist(), strict=True):
        digits = [
            ((left + right) / 2, int(kind))
            for left, _, right, _, score, kind in rows.tolist()
            if score > 0
        ]
        words = pieces.decode(ids[ids >= 0].tolist()).split()
        assert expected(words, digits) == ANSWERS[answer]


def test_every_form_and_most_answers_are_asked_for() -> None:
    batch, answers = questions.asked("heldout")
    first = batch["question"][:, 0].unique().tolist()
    assert sorted(WORDS[word] for word in first) == ["how", "is", "largest"]
    assert len(answers.unique()) == len(ANSWERS)
    pairs = answers[(answers == questions.YES) | (answers == questions.NO)]
    assert 0.2 < (pairs == questions.YES).double().mean() < 0.6


@pytest.mark.slow
def test_how_often_what_is_asked_for_is_there() -> None:
    """As the docstring of ``question`` tells it, of the training questions."""
    rows, ids, answers = questions.drawn("train")
    _, boxes = scenes.scenes("train")
    first = WORDS.index("how"), WORDS.index("is")
    counted, compared = (ids[:, 0] == word for word in first)
    assert (answers[counted] > 0).double().mean().item() == pytest.approx(0.6, abs=0.03)
    there = torch.stack([(boxes[..., 5] == kind).any(1) for kind in range(10)], 1)
    there = there[rows[compared]]
    pairs = ids[compared][:, [3, 7]] - WORDS.index(DIGITS[0])
    both = there.gather(1, pairs).all(1)[there.sum(1) > 1]
    assert both.double().mean().item() == pytest.approx(3 / 4, abs=0.02)


def test_splits_ask_about_scenes_of_their_own() -> None:
    assert len(questions.asked("test")[1]) == 200
    assert len(questions.asked("heldout")[1]) == 600
    assert torch.equal(questions.asked("test")[0]["image"], scenes.scenes("test")[0])


def test_the_row_of_a_scene_is_read_from_the_left() -> None:
    boxes = torch.tensor([[40.0, 0, 50, 9, 1, 7], [3, 5, 9, 20, 1, 2], [20, 1, 30, 9, 1, 5]])
    assert questions.row_of(boxes) == "257"
    assert questions.left_of(boxes, 2, 7)
    assert not questions.left_of(boxes, 7, 2)
    assert not questions.left_of(boxes, 2, 2)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("how many zebras", "'zebras' is no word of these questions: use how, many, is"),
        ("how many Sevens", "'Sevens' is no word"),
        ("", "a question of 0 words: write 1 to 8"),
        ("how " * 9, "a question of 9 words: write 1 to 8"),
    ],
)
def test_questions_of_strangers_are_refused_with_a_remedy(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        questions.written(text)


def test_a_question_is_written_and_read_back() -> None:
    ids = questions.written("how many sevens")
    assert Pieces(WORDS).decode(ids[:3].tolist()) == "how many sevens"
    assert ids[3:].tolist() == [-1] * 5


def test_nothing_is_asked_about_a_scene_without_a_digit() -> None:
    with pytest.raises(UsageError, match="a scene without a digit: it has no largest one"):
        questions.question(torch.empty(0, 6), Generator(PCG64(0)))


@pytest.mark.parametrize("part", sorted(DOMAIN.parts))
def test_a_missing_part_is_named_with_what_is_taken(part: str) -> None:
    batch, _ = questions.asked("test")
    (other,) = DOMAIN.parts.keys() - {part}
    told = f"inputs have parts {other}, the victim takes image, question: give these"
    with pytest.raises(UsageError, match=told):
        DOMAIN.check(PartsBatch({other: batch[other]}))


def test_an_empty_question_is_refused() -> None:
    batch, _ = questions.asked("test")
    with pytest.raises(UsageError, match="part question"):
        DOMAIN.check(batch.replaced(question=torch.full_like(batch["question"], -1)))


def test_a_question_beyond_the_longest_is_refused() -> None:
    batch, _ = questions.asked("test")
    long = torch.zeros(200, questions.LONGEST + 1, dtype=torch.long)
    with pytest.raises(UsageError, match="part question"):
        DOMAIN.check(batch.replaced(question=long))
