"""Sentences in JSON lines: what is read, and which line is blamed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from effattack.domains import Tokens
from effattack.errors import UsageError
from effattack.inputs.source import Source
from effattack.inputs.text_files import read_jsonl


class Letters:
    """A token per letter of words whose letters are a to e; a blank stands before each word."""

    def encode(self, text: str) -> list[int]:
        if wrong := [c for c in text if c not in "abcde "]:
            raise UsageError(f"nobody spells {wrong[0]!r}")
        return ["abcde".index(c) for c in text if c != " "]

    def decode(self, ids: list[int]) -> str:
        return "".join("abcde"[i] for i in ids)


DOMAIN = Tokens(5, 6, Letters())


def written(folder: Path, *lines: object) -> Path:
    path = folder / "a.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def test_labels(tmp_path: Path) -> None:
    path = written(tmp_path, {"text": "ab c", "label": 1}, "", {"text": "d", "label": 0})
    prompts, labels = read_jsonl(path, DOMAIN)
    assert prompts.tolist() == [[0, 1, 2], [3, -1, -1]]
    assert labels.tolist() == [1, 0]


def test_tags_stand_for_words_or_for_tokens(tmp_path: Path) -> None:
    path = written(tmp_path, {"text": "ab c", "tags": [2, 0]}, {"text": "ab", "tags": [1, 2]})
    prompts, tags = read_jsonl(path, DOMAIN)
    assert prompts.tolist() == [[0, 1, 2], [0, 1, -1]]
    assert tags.tolist() == [[2, 2, 0], [1, 2, -1]]


def test_answers_are_texts_of_the_same_tokenizer(tmp_path: Path) -> None:
    lines = {"text": "ab", "answer": "abc"}, {"text": "c", "answer": ""}
    prompts, answers = read_jsonl(written(tmp_path, *lines), DOMAIN)
    assert prompts.tolist() == [[0, 1], [2, -1]]
    assert answers.tolist() == [[0, 1, 2], [-1, -1, -1]]
    assert not answers.is_floating_point()


def test_answers_alone_may_be_longer_than_prompts_and_all_may_be_empty(tmp_path: Path) -> None:
    long = read_jsonl(written(tmp_path, {"text": "a", "answer": "abcdeabcde"}), DOMAIN)
    assert long[1].shape == (1, 10)
    none = read_jsonl(written(tmp_path, {"text": "a", "answer": ""}), DOMAIN)
    assert none[1].tolist() == [[-1]]


def test_it_is_data_of_a_victim_with_a_tokenizer(tmp_path: Path) -> None:
    path = written(tmp_path, *({"text": "abc"[: i + 1], "label": i} for i in range(3)))
    data = Source(str(path), (None,), samples=2, nouns="prompts").open(DOMAIN)
    assert data.whole()[1].tolist() == [0, 1]
    for domain in (None, Tokens(5, 6)):
        with pytest.raises(UsageError, match=r"without a tokenizer cannot read: give Tokens\("):
            Source(str(path), (None,)).open(domain)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{", "line 2: it is no JSON"),
        ("[" * 100_000, "line 2: it is no JSON"),
        ([1], "line 2: it is no object with a 'text'"),
        ({"text": 3, "label": 0}, "line 2: it is no object with a 'text'"),
        ({"text": "a"}, "line 2: give it either a 'label' or 'tags' or an 'answer'"),
        (
            {"text": "a", "label": 0, "tags": [0]},
            "line 2: give it either a 'label' or 'tags' or an 'answer'",
        ),
        ({"text": " ", "label": 0}, "line 2: its text is empty"),
        ({"text": "axb", "label": 0}, "line 2: nobody spells 'x'"),
        ({"text": "abcdabc", "label": 0}, "line 2: its text has 7 tokens, the victim takes 6"),
        ({"text": "a", "label": True}, "line 2: label True is no class"),
        ({"text": "a", "label": -1}, "line 2: label -1 is no class"),
        ({"text": "a", "label": "b"}, "line 2: label 'b' is no class"),
        ({"text": "a", "tags": 0}, "line 2: its 'tags' are no list"),
        ({"text": "ab cd", "tags": [0, 1, 2]}, "line 2: 3 tags for 2 words of 4 tokens"),
        ({"text": "a", "label": 0, "answer": "a"}, "line 2: give it either a 'label' or 'tags'"),
        ({"text": "a", "answer": 3}, "line 2: its 'answer' is no text"),
        ({"text": "a", "answer": "x"}, "line 2: of its answer: nobody spells 'x'"),
        ({"text": "a", "answer": "a"}, "line 2: other lines have a 'label' where it has 'answer'"),
        ({"text": "a", "tags": [0]}, "line 2: other lines have a 'label' where it has 'tags'"),
    ],
)
def test_it_blames_the_line(tmp_path: Path, line: object, fault: str) -> None:
    path = written(tmp_path, {"text": "a", "label": 0}, line)
    with pytest.raises(UsageError, match=r"a\.jsonl: ") as caught:
        read_jsonl(path, DOMAIN)
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("content", "fault"), [(b"\n", "it holds no lines"), (b"\xff", "no text")])
def test_a_file_without_text_is_refused(tmp_path: Path, content: bytes, fault: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=fault):
        read_jsonl(path, DOMAIN)
