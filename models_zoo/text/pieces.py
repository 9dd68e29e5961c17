"""Text in pieces of words, and back.

WordPiece, as BERT has it (Devlin et al. 2019, arXiv 1810.04805; Wu et al. 2016, arXiv 1609.08144):
of every word the longest piece of the vocabulary that it begins with, and so on to its end; pieces
inside a word begin with ``##``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from effattack.errors import UsageError

INSIDE = "##"


class Pieces:
    """A vocabulary of pieces, in which words stand between blanks. Capitals are small letters.

    Args:
        pieces: in the order of their ids, each once.

    Raises:
        UsageError: for a piece that comes twice.
    """

    def __init__(self, pieces: Sequence[str]) -> None:
        self.pieces = tuple(pieces)
        self._ids = {piece: index for index, piece in enumerate(self.pieces)}
        if len(self._ids) < len(self.pieces):
            twice = next(p for p in self.pieces if self.pieces.count(p) > 1)
            raise UsageError(f"piece {twice!r} comes twice in the vocabulary: leave one out")

    def __len__(self) -> int:
        return len(self.pieces)

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self.pieces))

    def encode(self, text: str) -> list[int]:
        """The ids of a text.

        Raises:
            UsageError: for a character that no piece has, with the word it stands in.
        """
        return [piece for word in text.lower().split() for piece in self.of_word(word)]

    def of_word(self, word: str) -> list[int]:
        """The ids of one word.

        Raises:
            UsageError: for a character that no piece has.
        """
        found: list[int] = []
        first = 0
        while first < len(word):
            before = INSIDE if first else ""
            ends = range(min(len(word), first + self._longest), first, -1)
            end = next((end for end in ends if before + word[first:end] in self._ids), None)
            if end is None:
                raise UsageError(
                    f"{word!r} has the character {word[first]!r}, which no piece of the vocabulary "
                    "spells: leave it out, or write it otherwise"
                )
            found.append(self._ids[before + word[first:end]])
            first = end
        return found

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids: a blank before every piece that begins a word."""
        text = ""
        for index in ids:
            piece = self.pieces[index]
            inside = piece.startswith(INSIDE)
            text += piece[len(INSIDE) :] if inside else f" {piece}"
        return text.strip()
