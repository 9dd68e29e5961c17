"""Sentences and labels from JSON lines, read with the tokenizer of a victim.

One object per line: ``{"text": "book a flight to oslo", "label": 1}``, or with one tag per word or
per token ``{"text": "call rita", "tags": [0, 2]}``, or, for what writes text, with the answer that
is right ``{"text": "34+58=", "answer": "12,9,92"}``.
"""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from effattack.domains import Domain, Tokens
from effattack.domains.tokens import PAD, Tokenizer
from effattack.errors import UsageError, first_line
from effattack.inputs.text_lines import BrokenLine, lines_of, unreadable

SUFFIX = ".jsonl"
SAID = ("label", "tags", "answer")
"""What a line says of its text: one of them, all lines the same."""


class Sentence(NamedTuple):
    """One line of a file."""

    number: int
    ids: list[int]
    kind: str
    """One of ``SAID``."""
    said: int | list[int]
    """A label, one tag per token, or the ids of an answer."""


def read_jsonl(path: Path, domain: Domain | None) -> tuple[Tensor, Tensor]:
    """Prompts (B, L), and labels (B,), tags (B, L) or answers (B, A), -1 behind the last of each.

    Args:
        path: of the file.
        domain: of the victim; its tokenizer reads the text.

    Raises:
        UsageError: for a victim without a tokenizer, or with the number of the line for one that is
            no such object, an empty text, characters that the tokenizer cannot spell, more tokens
            than the victim takes, or tags that do not pair with words or tokens.
    """
    if not isinstance(domain, Tokens) or domain.tokenizer is None:
        takes = "a victim" if domain is None else f"this victim takes {domain.nouns} and"
        raise UsageError(
            f"{path} holds text, which {takes} without a tokenizer cannot read: give "
            "Tokens(..., tokenizer=...) to the victim, or token ids in an .npz"
        )
    try:
        rows = [
            _sentence(number, text, domain, domain.tokenizer) for number, text in lines_of(path)
        ]
        if not rows:
            raise ValueError("it holds no lines")
        return _padded([row.ids for row in rows]), _labels(rows)
    except (OSError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise unreadable(path, error) from error


def _sentence(number: int, line: str, domain: Tokens, tokenizer: Tokenizer) -> Sentence:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BrokenLine(number, f"it is no JSON ({error})") from error
    if not isinstance(found, dict) or not isinstance(found.get("text"), str):
        raise BrokenLine(number, "it is no object with a 'text'")
    if len(kinds := [kind for kind in SAID if kind in found]) != 1:
        raise BrokenLine(number, "give it either a 'label' or 'tags' or an 'answer'")
    ids = _encoded(number, found["text"], "text", tokenizer)
    if not ids:
        raise BrokenLine(number, "its text is empty: leave the line out")
    if len(ids) > domain.longest:
        raise BrokenLine(
            number, f"its text has {len(ids)} tokens, the victim takes {domain.longest}: shorten it"
        )
    (kind,) = kinds
    if kind == "label":
        return Sentence(number, ids, kind, _class(number, found[kind], "label"))
    if kind == "tags":
        return Sentence(
            number, ids, kind, _tags(number, found["text"], found[kind], ids, tokenizer)
        )
    if not isinstance(found[kind], str):
        raise BrokenLine(number, "its 'answer' is no text")
    return Sentence(number, ids, kind, _encoded(number, found[kind], "answer", tokenizer))


def _encoded(number: int, text: str, what: str, tokenizer: Tokenizer) -> list[int]:
    try:
        return list(tokenizer.encode(text))
    except UsageError as error:
        of = "" if what == "text" else f"of its {what}: "
        raise BrokenLine(number, of + first_line(error)) from error


def _class(number: int, value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BrokenLine(number, f"{what} {value!r} is no class: classes count from 0 on")
    return value


def _tags(number: int, text: str, given: Any, ids: list[int], tokenizer: Tokenizer) -> list[int]:
    if not isinstance(given, list):
        raise BrokenLine(number, "its 'tags' are no list")
    tags = [_class(number, tag, "tag") for tag in given]
    if len(tags) == len(ids):
        return tags
    words = [list(tokenizer.encode(word)) for word in text.split()]
    if len(tags) == len(words) and [*chain(*words)] == ids:
        return [tag for tag, word in zip(tags, words, strict=True) for _ in word]
    raise BrokenLine(
        number, f"{len(tags)} tags for {len(words)} words of {len(ids)} tokens: give one for each"
    )


def _labels(rows: list[Sentence]) -> Tensor:
    first = rows[0]
    for row in rows:
        if row.kind != first.kind:
            has = f"{'an' if first.kind == 'answer' else 'a'} {first.kind!r}"
            raise BrokenLine(row.number, f"other lines have {has} where it has {row.kind!r}")
    if first.kind == "label":
        return torch.tensor([row.said for row in rows])
    return _padded([row.said for row in rows if isinstance(row.said, list)])


def _padded(rows: list[list[int]]) -> Tensor:
    width = max(1, *map(len, rows))
    return torch.tensor([[*row, *[PAD] * (width - len(row))] for row in rows])
