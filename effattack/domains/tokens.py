"""Prompts as token ids of different lengths, padded at the end."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

from effattack.domains.alignment import aligned, edits
from effattack.domains.base import Domain, check_tensor
from effattack.errors import UsageError

PAD = -1
"""Behind the last token of a row. No vocabulary has it: end tokens often pad, and are tokens."""

TOLD = 5000
"""Ids whose text a report can show: of larger vocabularies it shows the ids."""

_allowed: WeakKeyDictionary[Tokens, Tensor] = WeakKeyDictionary()


class Tokenizer(Protocol):
    """What turns text into ids and back, adding nothing of its own."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: list[int]) -> str: ...


class Tokens(Domain):
    """Prompts (B, L), integer ids in [0, vocabulary), padded with -1 behind their last token.

    Only what a user writes; the template around it is the victim's.

    Args:
        vocabulary: how many ids there are.
        longest: most tokens of one prompt.
        tokenizer: of the deployed model, without special tokens: then an attacker's prompt counts
            only if, decoded and encoded again, it has the ids that were judged. None: he sends ids.
        special: ids that no user can write.

    Raises:
        UsageError: for a size that is none.
    """

    kind, noun, nouns, smooth = "tokens", "prompt", "prompts", False
    shape = (None,)
    _units = "tokens"
    _make = "tokenize them first, with the victim's tokenizer"
    _known = "use the victim's own tokenizer"

    def __init__(
        self,
        vocabulary: int,
        longest: int,
        tokenizer: Tokenizer | None = None,
        *,
        special: Collection[int] = (),
    ) -> None:
        for name, size in {"vocabulary": vocabulary, "longest": longest}.items():
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise UsageError(f"Tokens: {name} = {size!r}: give a whole number of at least 1")
        self.vocabulary, self.longest, self.tokenizer = vocabulary, longest, tokenizer
        self.special = tuple(sorted(special))

    def check(self, inputs: Tensor) -> None:
        check_tensor(self.nouns, inputs)
        if inputs.is_floating_point() or inputs.is_complex() or inputs.dtype == torch.bool:
            raise UsageError(f"{self.nouns} have dtype {inputs.dtype}, not integer: {self._make}")
        if inputs.dim() and not len(inputs):
            raise UsageError(f"there are no {self.nouns}: the batch is empty")
        if inputs.dim() != 2:
            raise UsageError(
                f"{self.nouns} have shape {tuple(inputs.shape)}, the victim takes ids (B, L): pad "
                f"shorter {self.nouns} with {PAD} at the end"
            )
        ids = inputs.long()
        count = lengths(ids)
        broken = {
            "is empty: drop it": count == 0,
            f"has {PAD} before its last {self._units[:-1]}: pad at the end only": count
            != (ids != PAD).sum(1),
            f"has more than {self.longest} {self._units}: shorten it": count > self.longest,
            f"has ids outside [0, {self.vocabulary}): {self._known}": (
                ((ids < 0) & (ids != PAD)) | (ids >= self.vocabulary)
            ).any(1),
        }
        for what, rows in broken.items():
            if rows.any():
                raise UsageError(f"{self.noun} {int(rows.nonzero()[0])} {what}")

    def place(
        self, inputs: Tensor, device: torch.device | str, dtype: torch.dtype | None = None
    ) -> Tensor:
        return inputs.detach().to(device, torch.long)

    def stretched(self, inputs: Tensor) -> Tensor:
        """Every prompt over and over, up to the longest."""
        rows = [row[: int(size)] for row, size in zip(inputs, lengths(inputs), strict=True)]
        times = [-(-self.longest // len(row)) for row in rows]
        return torch.stack(
            [row.repeat(n)[: self.longest] for row, n in zip(rows, times, strict=True)]
        )

    def snap(self, inputs: Tensor) -> Tensor:
        """Nothing behind the first padding, and no more tokens than the victim takes."""
        inside = (inputs == PAD).cumsum(1) == 0
        return torch.where(inside, inputs, PAD)[:, : self.longest]

    def example(self, count: int) -> Tensor:
        """The first ids of the vocabulary, in order."""
        return (torch.arange(min(self.longest, 8)) % self.vocabulary).repeat(count, 1)

    def pack(self, inputs: Tensor) -> list[bytes]:
        """The ids of each prompt, without padding, as 32-bit integers."""
        rows = inputs.detach().cpu().to(torch.int32)
        return [
            row[:count].numpy().tobytes()
            for row, count in zip(rows, lengths(rows).tolist(), strict=True)
        ]

    def unpack(self, rows: Sequence[bytes], like: Tensor) -> Tensor:
        """As wide as ``like``, or as the longest prompt if that is wider."""
        width = max([like.shape[1], *(len(row) // 4 for row in rows)])
        ids = torch.full((len(rows), width), PAD, dtype=torch.int32)
        for found, row in zip(ids, rows, strict=True):
            if row:
                found[: len(row) // 4] = torch.frombuffer(bytearray(row), dtype=torch.int32)
        return ids.to(like)

    def distances(self, inputs: Tensor, clean: Tensor) -> dict[str, Tensor]:
        pairs = zip(unpadded(inputs), unpadded(clean), strict=True)
        return {"edits": torch.tensor([edits(*pair) for pair in pairs], dtype=torch.float64)}

    def tokens(self, inputs: Tensor) -> Tensor:
        return lengths(inputs).double().cpu()

    def describe(self) -> dict[str, Any]:
        """With the text of every id, where that is not too much to store with every frame."""
        found = super().describe()
        if self.tokenizer is not None and self.vocabulary <= TOLD:
            found["pieces"] = [self.tokenizer.decode([word]) for word in range(self.vocabulary)]
        return found

    def disturbed(self, inputs: Tensor, generator: Generator) -> Tensor:
        noise = self.draw(inputs.shape, generator).to(inputs)
        other = (torch.rand(inputs.shape, generator=generator) < 0.5).to(inputs.device)
        return torch.where(other & (inputs != PAD), noise, inputs)

    def join(self, batches: Sequence[Tensor]) -> Tensor:
        width = max(batch.shape[1] for batch in batches)
        return torch.cat([padded(batch, width) for batch in batches])

    def singles(self, inputs: Tensor) -> list[Tensor]:
        """Each prompt without its padding."""
        counts = lengths(inputs).tolist()
        return [row[:, :count] for row, count in zip(inputs.split(1), counts, strict=True)]

    def kept(self, inputs: Tensor, clean: Tensor) -> Tensor:
        found = torch.full_like(clean, PAD)
        for row, after, before in zip(found, unpadded(inputs), unpadded(clean), strict=True):
            row[: len(before)] = aligned(after, before)
        return found

    def allowed(self) -> Tensor:
        """(vocabulary,) bool: ids that an attacker can write: not special, printable, and, decoded
        and encoded again, themselves."""
        if self not in _allowed:
            allowed = torch.ones(self.vocabulary, dtype=torch.bool)
            allowed[list(self.special)] = False
            if self.tokenizer is not None:
                for word in allowed.nonzero()[:, 0].tolist():
                    text = self.tokenizer.decode([word])
                    allowed[word] = text.isprintable() and self._comes_back([word])
            _allowed[self] = allowed
        return _allowed[self]

    def draw(self, shape: Sequence[int], generator: Generator) -> Tensor:
        """Ids drawn evenly from the allowed ones."""
        words = self.allowed().nonzero()[:, 0]
        return words[torch.randint(len(words), tuple(shape), generator=generator)]

    def stable(self, inputs: Tensor) -> Tensor:
        """(B,) bool: prompts whose text has the ids that are judged; all without a tokenizer."""
        if self.tokenizer is None:
            return torch.ones(len(inputs), dtype=torch.bool, device=inputs.device)
        again = [self._comes_back(row.tolist()) for row in unpadded(inputs)]
        return torch.tensor(again, device=inputs.device)

    def _comes_back(self, ids: list[int]) -> bool:
        """Whether ids, decoded and encoded again, are the same; a text that the tokenizer refuses
        is none that a user could send."""
        assert self.tokenizer is not None
        try:
            return list(self.tokenizer.encode(self.tokenizer.decode(ids))) == ids
        except UsageError:
            return False


def lengths(ids: Tensor) -> Tensor:
    """(B, L) -> (B,): tokens before the first padding."""
    return ((ids == PAD).cumsum(1) == 0).sum(1)


def padded(ids: Tensor, width: int) -> Tensor:
    """(B, L) -> (B, width), with padding behind; L is at most width."""
    return pad(ids, (0, width - ids.shape[1]), value=PAD)


def as_wide(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Both padded to the width of the wider one."""
    width = max(one.shape[1], other.shape[1])
    return padded(one, width), padded(other, width)


def unpadded(ids: Tensor) -> list[Tensor]:
    """The tokens of each row, on CPU."""
    ids = ids.detach().cpu()
    return [row[:count] for row, count in zip(ids, lengths(ids).tolist(), strict=True)]
