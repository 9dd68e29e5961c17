"""Victims of prompts, small enough to know everything about, and one that tells a count."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor, nn

import effattack
from effattack.counting.tallies import Count
from effattack.domains import Pixels, Tokens
from effattack.domains.tokens import PAD, lengths
from effattack.tasks import Classes, Text
from effattack.victim import Gate, Trace, Victim
from effattack.victim.leaf import Leaf

VOCABULARY, LONGEST, WIDTH, CLASSES, CAP, END = 13, 8, 5, 3, 6, 0


def some_prompts(count: int, seed: int = 0, shortest: int = 2, longest: int = 5) -> Tensor:
    """(count, longest) ids, padded; no end token among them."""
    generator = Generator().manual_seed(seed)
    ids = torch.randint(1, VOCABULARY, (count, longest), generator=generator)
    sizes = torch.randint(shortest, longest + 1, (count, 1), generator=generator)
    return ids.masked_fill(torch.arange(longest) >= sizes, PAD)


class Prompted(Victim):
    """What both victims of prompts share: the words, and drawn weights."""

    words: nn.Embedding

    def draw_weights(self, seed: int) -> None:
        """Weights of a normal distribution; in eval mode."""
        generator = Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        self.eval()

    def lift(self, batch: Tensor, places: Tensor) -> Leaf:
        return Leaf(self.words(batch.gather(1, places).clamp_min(0)), places)

    def read(self, batch: Tensor, leaf: Leaf | None) -> Tensor:
        """(B, L) -> (B, L, width): words, zero at padding; those of a leaf in its places."""
        found = self.words(batch.clamp_min(0))
        if leaf is not None:
            found = found.scatter(1, leaf.places[:, :, None].expand_as(leaf.rows), leaf.rows)
        return found * (batch != PAD)[:, :, None]


class TokenExits(Prompted):
    """Classifies the mean of the words; in doubt, that of the words after one more layer.

    Prompts of n tokens cost 5 · 3 MACs, and n · 5 · 5 + 5 · 3 more where the exit is not taken.
    """

    def __init__(self, sure: float = 0.6, seed: int = 0) -> None:
        super().__init__(
            name="token_exits",
            family="early exit",
            domain=Tokens(VOCABULARY, LONGEST),
            task=Classes(CLASSES),
            max_macs=2 * WIDTH * CLASSES + LONGEST * WIDTH**2,
        )
        self.sure = sure
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.exit = nn.Linear(WIDTH, CLASSES, bias=False)
        self.layer = nn.Linear(WIDTH, WIDTH, bias=False)
        self.head = nn.Linear(WIDTH, CLASSES, bias=False)
        self.draw_weights(seed)

    def ceiling(self, batch: Tensor, count: str = "macs") -> Tensor:
        return (2 * WIDTH * CLASSES + lengths(batch) * WIDTH**2).double()

    def margin(self, logits: Tensor) -> Tensor:
        """(B, classes) -> (B,): the policy."""
        return self.sure - logits.softmax(1).amax(1)

    def forward(self, batch: Tensor) -> Tensor:
        logits = torch.empty(len(batch), CLASSES, dtype=self.dtype)
        sizes = lengths(batch)
        for size in sizes.unique().tolist():
            rows = (sizes == size).nonzero()[:, 0]
            words = self.words(batch[rows, :size])
            said = self.exit(words.mean(1))
            onward = (self.margin(said) > 0).nonzero()[:, 0]
            if len(onward):
                deeper = self.layer(words[onward]).relu().mean(1)
                said = said.index_copy(0, onward, self.head(deeper))
            logits[rows] = said
        return logits

    def trace(self, batch: Tensor, leaf: Leaf | None = None) -> Trace:
        sizes = lengths(batch)[:, None]
        words = self.read(batch, leaf)
        early = self.exit(words.sum(1) / sizes)
        late = self.head(self.layer(words).relu().sum(1) / sizes)
        margin = self.margin(early)[:, None]
        onward = margin > 0
        cost = WIDTH * CLASSES + sizes.double() * WIDTH**2
        return Trace(
            logits=torch.where(onward, late, early),
            gates=(Gate("exit", margin, onward, torch.ones_like(onward), cost, pushed=True),),
            macs=WIDTH * CLASSES + (onward * cost)[:, 0],
            stage_logits=torch.stack([early, late], 1),
        )


class Decoder(Prompted):
    """Writes greedily: every token costs one pass, until the end token or the cap.

    A prompt of n tokens costs n · 5 · 5 MACs, a pass 5 · 13, and every one but the last 5 · 5 more.
    """

    def __init__(self, seed: int = 0, currency: str = "passes") -> None:
        super().__init__(
            name="decoder",
            family="generation",
            domain=Tokens(VOCABULARY, LONGEST),
            task=Text(CAP, end=END),
            max_macs=LONGEST * WIDTH**2 + CAP * WIDTH * VOCABULARY + (CAP - 1) * WIDTH**2,
            counts={"passes": Count("pass", _cap)},
            currency=currency,
        )
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.reader = nn.Linear(WIDTH, WIDTH, bias=False)
        self.writer = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.turn = nn.Linear(WIDTH, WIDTH, bias=False)
        self.draw_weights(seed)
        with torch.no_grad():
            self.writer.weight[END] *= 3  # else hardly any text ends before the cap

    def ceiling(self, batch: Tensor, count: str = "macs") -> Tensor:
        if count != "macs":
            return super().ceiling(batch, count)
        return self.macs(lengths(batch), torch.full((len(batch),), CAP))

    def macs(self, sizes: Tensor, passes: Tensor) -> Tensor:
        """(B,) float64, of prompt lengths and passes."""
        read, written = sizes * WIDTH**2, passes * WIDTH * VOCABULARY
        return (read + written + (passes - 1) * WIDTH**2).double()

    def onward(self, logits: Tensor) -> Tensor:
        """(..., vocabulary) -> (...): bounded log-odds of the best other word against the end."""
        end = torch.arange(VOCABULARY) == END
        best = logits.masked_fill(end, -torch.inf).amax(-1)
        return torch.tanh((best - logits[..., END]) / 4)

    def forward(self, batch: Tensor) -> Tensor:
        return torch.cat([self.write(row[None, : int(lengths(row[None]))]) for row in batch])

    def write(self, prompt: Tensor) -> Tensor:
        """(1, n) -> (1, cap): what is written after one prompt, the end token included."""
        state = self.reader(self.words(prompt)).mean(1)
        written = torch.full((1, CAP), PAD)
        for step in range(CAP):
            logits = self.writer(state)
            effattack.tally("passes")
            word = torch.where(self.onward(logits) > 0, _but_end(logits), END)
            written[0, step] = word
            if int(word) == END or step == CAP - 1:
                break
            state = torch.tanh(self.turn(state) + self.words(word))
        return written

    def trace(self, batch: Tensor, leaf: Leaf | None = None) -> Trace:
        state = self.reader(self.read(batch, leaf)).sum(1) / lengths(batch)[:, None]
        running = torch.ones(len(batch), dtype=torch.bool)
        written, margins, reached = [], [], []
        for _ in range(CAP):
            logits = self.writer(state)
            margin = self.onward(logits)
            word = torch.where(margin > 0, _but_end(logits), END).detach()
            written.append(torch.where(running, word, PAD))
            margins.append(margin)
            reached.append(running)
            running = running & (word != END)
            state = torch.tanh(self.turn(state) + self.words(word))
        ids = torch.stack(written, 1)
        happened = torch.stack(reached, 1)
        passes = happened.sum(1)
        left = torch.arange(CAP - 1, 0, -1) * (WIDTH * VOCABULARY + WIDTH**2)
        gate = Gate(
            "steps",
            torch.stack(margins[:-1], 1),
            happened[:, :-1] & (ids[:, :-1] != END),
            happened[:, :-1],
            left.double(),
        )
        return Trace(
            logits=ids,
            gates=(gate,),
            macs=self.macs(lengths(batch), passes),
            also={"passes": passes.double()},
            aux={"capped": happened[:, -1] & (ids[:, -1] != END)},
        )


class Counted(Victim):
    """MACs that never move, and ``boxes`` that do: one for every pixel above a half."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            name="counted",
            family="detection",
            domain=Pixels((1, 3, 3)),
            task=Classes(2),
            max_macs=18,
            counts={"boxes": Count("box", lambda batch: torch.full((len(batch),), 9.0))},
            **settings,
        )
        self.head = nn.Linear(9, 2)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=Generator().manual_seed(3)))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        effattack.tally("boxes", self.margin(images) > 0)
        return self.head(images.flatten(1))

    def margin(self, images: Tensor) -> Tensor:
        """(B, 9): the policy."""
        return images.flatten(1) - 0.5

    def trace(self, images: Tensor) -> Trace:
        margin = self.margin(images)
        boxes = margin > 0
        return Trace(
            logits=self.head(images.flatten(1)),
            gates=(Gate("boxes", margin, boxes, torch.ones_like(boxes), 1.0),),
            macs=torch.full((len(images),), 18.0, dtype=torch.float64),
            also={"boxes": boxes.sum(1).double()},
        )


def _cap(batch: Tensor) -> Tensor:
    return torch.full((len(batch),), float(CAP))


def _but_end(logits: Tensor) -> Tensor:
    """(..., vocabulary) -> (...): the best word that is not the end."""
    return logits.masked_fill(torch.arange(VOCABULARY) == END, -torch.inf).argmax(-1)
