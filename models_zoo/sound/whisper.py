"""Whisper as a victim: what is said decides how many tokens are written."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Self

import torch
from torch import Tensor

from effattack.domains.tokens import PAD, Tokenizer
from effattack.errors import UsageError
from effattack.models_zoo.generation.choice import Greedy
from effattack.models_zoo.generation.decoder import Memory
from effattack.models_zoo.generation.steps import Decided, Rule
from effattack.models_zoo.generation.translator import Heard
from effattack.models_zoo.generation.writer import HELD, Writer
from effattack.models_zoo.sound.listener import Listener
from effattack.models_zoo.sound.log_mel import RATE
from effattack.models_zoo.sound.recordings import Recordings
from effattack.tasks import Text
from effattack.victim import Trace
from effattack.victim.leaf import Leaf

CAP = 224
"""Tokens of a window, the end token included: half of what the decoder can read."""


class Suppressed(Rule):
    """Texts without some tokens, and without some more in the first place.

    Whether the first token ends the text is no decision: no end token is drawn there.

    Args:
        choice: how a token is chosen from logits.
        cap: most tokens that are written, the end token included.
        vocabulary: how many ids there are.
        never: tokens that are not drawn.
        first: tokens that are not drawn first, beside the end tokens.
    """

    def __init__(
        self,
        choice: Greedy,
        cap: int,
        vocabulary: int,
        *,
        never: Sequence[int],
        first: Sequence[int],
    ) -> None:
        super().__init__(choice, cap)
        ids = torch.arange(vocabulary)
        self.never, self.first = (
            torch.isin(ids, torch.tensor(some, dtype=torch.long))
            for some in ([*never], [*choice.ends, *never, *first])
        )

    def by(self, choice: Greedy) -> Self:
        """The same by another choice from logits."""
        found = copy.copy(self)
        found.choice = choice
        return found

    def choose(self, logits: Tensor, draws: Tensor, before: Tensor) -> Tensor:
        return super().choose(self.drawn(logits[:, None], before.shape[1])[:, 0], draws, before)

    def weighed(self, logits: Tensor, draws: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        begin = texts.shape[1] - logits.shape[1]
        return super().weighed(self.drawn(logits, begin), draws, texts)

    def decided(self, written: Tensor) -> Decided:
        onward, free, last = super().decided(written)
        later = torch.arange(written.shape[1], device=written.device) > 0
        return Decided(onward & later, free & later, last)

    def likely(self, logits: Tensor, texts: Tensor) -> Tensor:
        """Log-probabilities (n, m) of the last m steps of texts (n, steps), by their logits (n, m,
        vocabulary); 0 behind a text."""
        begin = texts.shape[1] - logits.shape[1]
        words = texts[:, begin:]
        found = self.drawn(logits, begin).log_softmax(-1).gather(-1, words.clamp_min(0)[..., None])
        return torch.where(words == PAD, 0, found[..., 0])

    def drawn(self, logits: Tensor, begin: int) -> Tensor:
        """Logits (n, m, vocabulary) of steps from ``begin`` on, without what is not drawn there."""
        left_out = self.never.to(logits.device).expand(logits.shape[1], -1)
        if begin == 0:
            left_out = torch.cat([self.first.to(logits.device)[None], left_out[1:]])
        return logits.masked_fill(left_out, -torch.inf)


class Whisper(Writer):
    """Writes down what is said in a window of sound, greedily and without timestamps.

    Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", ICML 2023 (arXiv
    2212.04356). The encoder hears the whole window, whatever is said in it, and its keys and values
    are made once; the decoder then writes up to the end token, or the cap. Gradients are those of
    the samples.

    A batch of its writer is what was heard, ``network.hear(recordings)``: a trace hears once.

    Args:
        network: an encoder of sound, and a decoder that draws logits.
        end: the token that ends a text.
        never: tokens that are not drawn, such as brackets around noises.
        first: tokens that are not drawn first, beside the end token.
        cap: most tokens that are written, the end token included.
        words: the tokenizer of what is written.
        name, data: as of all victims.

    Raises:
        UsageError: for a cap or an end token that do not fit the network.
    """

    network: Listener
    domain: Recordings
    task: Text
    rule: Suppressed

    def __init__(
        self,
        network: Listener,
        *,
        end: int,
        never: Sequence[int] = (),
        first: Sequence[int] = (),
        cap: int = CAP,
        words: Tokenizer | None = None,
        name: str = "whisper",
        data: str | None = None,
    ) -> None:
        domain = Recordings(RATE, network.sizes.window, words)
        super().__init__(network, domain, cap=cap, end=end, words=words, name=name, data=data)
        self.rule = Suppressed(self.choice, cap, network.vocabulary, never=never, first=first)

    def forward(self, batch: Tensor) -> Tensor:
        """Recordings (B, 1, n) -> what is written of them, (B, cap), the end token included."""
        return super().forward(self.network.hear(batch))

    def trace(self, batch: Tensor, leaf: Leaf | None = None) -> Trace:
        """That of a writer, differentiable in the samples; ``aux`` holds what was heard."""
        found = super().trace(self.network.hear(batch))
        heard = self.network.sizes.price.encoder(self._asked(batch))
        return found._replace(stages={"hearing": heard, "writing": found.macs - heard})

    def begun(self, batch: Tensor, leaf: Leaf | None) -> tuple[Tensor, Memory]:
        start = torch.tensor(self.network.start, device=batch.device)
        return self.network.lift(start).expand(len(batch), -1, -1), Heard(batch)

    @property
    def _longest(self) -> int:
        return self.network.sizes.positions

    def _expect_fit(self, longest: int) -> None:
        network = self.network
        if (needed := len(network.start) + self.cap - 1) > network.context:
            raise UsageError(
                f"{self.name}: {len(network.start)} start tokens and a cap of {self.cap} need a "
                f"context of {needed}, the decoder has {network.context}: lower cap"
            )

    def _asked(self, batch: Tensor) -> Tensor:
        return torch.full((len(batch),), self._longest, device=batch.device)

    def _alike(
        self, batch: Tensor, leaf: Leaf | None = None
    ) -> Iterator[tuple[Tensor, Tensor, Leaf | None]]:
        everyone = torch.arange(len(batch), device=batch.device)
        for index in everyone.split(max(1, int(HELD // float(self._most_kept(batch[:1]))))):
            yield index, batch[index], None
