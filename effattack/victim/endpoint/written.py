"""What a server of OpenAI's protocol wrote, in one piece or in a stream."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

OPENS, CLOSES = "<think>", "</think>"
"""Marks of reasoning that a server leaves in the text."""
EVERY = 32
"""Pieces of a stream between two counts of what came."""


class Choice(NamedTuple):
    """One text of an answer, its reasoning apart."""

    text: str
    reasoning: str
    reason: str | None
    """Why it ended (``finish_reason``)."""


def read_choices(found: Any) -> tuple[tuple[Choice, ...], Mapping[str, Any] | None]:
    """Choices and usage of an answer in one piece.

    Raises:
        ValueError: for what is no answer of the protocol.
    """
    if not isinstance(found, Mapping) or not isinstance(found.get("choices"), list):
        raise ValueError("no choices")
    choices = []
    for one in found["choices"]:
        message = one.get("message") if isinstance(one, Mapping) else None
        if not isinstance(message, Mapping):
            raise ValueError("a choice without a message")
        choices.append(_choice(_text(message), _thought(message), one.get("finish_reason")))
    return tuple(choices), _usage(found)


class Writing:
    """What a stream has brought so far.

    Args:
        count: tokens of a text.
        limit: tokens after which nobody reads on.
    """

    def __init__(self, count: Callable[[str], int], limit: int) -> None:
        self.count, self.limit = count, limit
        self.usage: Mapping[str, Any] | None = None
        self.done = self.cut = False
        self.pieces = 0
        self.texts: dict[int, str] = {}
        self.thoughts: dict[int, str] = {}
        self.reasons: dict[int, str | None] = {}

    @property
    def ended(self) -> bool:
        """Whether every text that began has said why it ended."""
        return bool(self.reasons) and all(self.reasons.get(i) for i in self.texts)

    def add(self, data: bytes) -> None:
        """Another piece.

        Raises:
            ValueError: for what is no piece of the protocol.
        """
        if data == b"[DONE]":
            self.done = True
            return
        found = json.loads(data)
        if not isinstance(found, Mapping) or not isinstance(found.get("choices", []), list):
            raise ValueError("a piece without choices")
        self.usage = _usage(found) or self.usage
        for one in found.get("choices", []):
            delta = one.get("delta") if isinstance(one, Mapping) else None
            if not isinstance(delta, Mapping):
                raise ValueError("a choice without a delta")
            index = int(one.get("index") or 0)
            self.texts[index] = self.texts.get(index, "") + _text(delta)
            self.thoughts[index] = self.thoughts.get(index, "") + _thought(delta)
            self.reasons[index] = one.get("finish_reason") or self.reasons.get(index)
        self.pieces += 1
        if self.pieces % EVERY == 0:
            self.cut = self.tokens() > self.limit

    def tokens(self) -> int:
        """Of all that came."""
        return sum(self.count(text) for text in (*self.texts.values(), *self.thoughts.values()))

    def choices(self) -> tuple[Choice, ...]:
        """In the order of their indices."""
        return tuple(
            _choice(self.texts[i], self.thoughts[i], self.reasons[i]) for i in sorted(self.texts)
        )


def _choice(text: str, reasoning: str, reason: Any) -> Choice:
    while OPENS in text:  # a model may think again behind what the server told apart
        before, _, rest = text.partition(OPENS)
        thought, _, behind = rest.partition(CLOSES)
        reasoning, text = reasoning + thought, before.lstrip() + behind
    return Choice(text, reasoning, reason if isinstance(reason, str) else None)


def _text(message: Mapping[str, Any]) -> str:
    return str(message.get("content") or "")


def _thought(message: Mapping[str, Any]) -> str:
    return str(message.get("reasoning_content") or message.get("reasoning") or "")


def _usage(found: Mapping[str, Any]) -> Mapping[str, Any] | None:
    usage = found.get("usage")
    return usage if isinstance(usage, Mapping) else None
