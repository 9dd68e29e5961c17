"""What is shown of one example, side by side."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from effattack.reporting.verdict import Row


class Html(Protocol):
    """What a page shows as it is: a drawing, or markup."""

    def __html__(self) -> str: ...


class Shown(NamedTuple):
    """One thing with its caption."""

    caption: str
    body: Html
    css: str = ""
    """How much of a row it takes: ``half``, ``whole``, or what the strip gives to each."""


class Pair(NamedTuple):
    """One input, clean and attacked, and the rows of the frame that stored it."""

    clean: Any
    """As :mod:`effattack.reporting.stored` reads it."""
    attacked: Any
    before: Row
    row: Row

    @property
    def sample(self) -> int:
        """Which one it is."""
        return int(self.row["sample"])


class Strips(NamedTuple):
    """The examples of one victim, in order."""

    examples: list[list[Shown]]
    detail: str
    """What stands beside the attack: how a difference was amplified, what was left out."""
