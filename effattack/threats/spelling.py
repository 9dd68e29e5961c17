"""How the texts of a victim's prompts are spelled, and which a user can type."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from torch import Tensor

from effattack.domains.tokens import Tokenizer, Tokens, unpadded
from effattack.errors import UsageError

KEYS = "".join(map(chr, range(33, 127)))
"""What a keyboard has beside the blank: printable ASCII."""

_alphabets: WeakKeyDictionary[Tokens, str] = WeakKeyDictionary()


class Spelling:
    """Ids to text and back, by the tokenizer of a domain.

    Args:
        domain: with a tokenizer.
    """

    def __init__(self, domain: Tokens) -> None:
        assert domain.tokenizer is not None
        self.domain, self.tokenizer = domain, domain.tokenizer

    @property
    def alphabet(self) -> str:
        """Printable ASCII characters that the tokenizer gives back as they are, in order; the blank
        where it does so between two others."""
        if self.domain not in _alphabets:
            kept = "".join(key for key in KEYS if self._comes_back(key))
            blank = kept and self._comes_back(f"{kept[-1]} {kept[-1]}")
            _alphabets[self.domain] = f" {kept}" if blank else kept
        return _alphabets[self.domain]

    def texts(self, ids: Tensor) -> list[str]:
        """Of prompts (B, L)."""
        return [self.text(row.tolist()) for row in unpadded(ids)]

    def text(self, ids: list[int]) -> str:
        """Of one prompt."""
        return self.tokenizer.decode(ids)

    def ids(self, text: str) -> list[int] | None:
        """Of a text that a user can send and that comes back as it is; None of others."""
        ids = read(self.tokenizer, text)
        if not ids or len(ids) > self.domain.longest or set(ids) & set(self.domain.special):
            return None
        return ids if self.text(ids) == text else None

    def room(self, text: str, count: int) -> int:
        """Tokens that so many typing errors can add to a text, at most.

        A tokenizer reads word by word, and an error touches one word or two neighbours. Of these it
        leaves no more tokens than they have bytes, and its own.
        """
        spare = [len(word.encode()) - self._pieces(word) for word in text.split()]
        pairs = [one + other for one, other in zip(spare, [*spare[1:], 0], strict=True)]
        return sum(sorted(pairs, reverse=True)[:count]) + count

    def _pieces(self, word: str) -> int:
        """Tokens of a word, at the front of a text or behind a blank: the fewer."""
        ways = (len(read(self.tokenizer, text)) for text in (word, f" {word}"))
        return min(filter(None, ways), default=0)

    def _comes_back(self, text: str) -> bool:
        ids = read(self.tokenizer, text)
        return bool(ids) and self.text(ids) == text


def read(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text; none where the tokenizer refuses it."""
    try:
        return list(tokenizer.encode(text))
    except UsageError:
        return []
