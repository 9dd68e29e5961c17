"""The network of Whisper: an encoder of sound, and a decoder that looks at what it heard.

Radford et al., ICML 2023 (arXiv 2212.04356): two convolutions above log-mel frames, the second of
which halves their number, layers with norms before each part, positions that are added, sines on
the side of the encoder; keys without a bias, and a head tied to the embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effattack.errors import UsageError
from effattack.models_zoo.generation.decoder import CausalNetwork, Memory, attended, mixed
from effattack.models_zoo.generation.price import Price, SourcePrice
from effattack.models_zoo.generation.translator import Heard, Kept
from effattack.models_zoo.sound import log_mel


class Sizes(NamedTuple):
    """Of both sides, which are of one width."""

    vocabulary: int
    width: int
    heads: int
    hidden: int
    encoder_layers: int
    decoder_layers: int
    positions: int
    """Of a window, two frames each."""
    context: int
    """Most tokens that the decoder reads, start tokens included."""
    bands: int = 80

    @property
    def window(self) -> int:
        """Samples."""
        return 2 * self.positions * log_mel.HOP

    @property
    def price(self) -> SourcePrice:
        """Of a position of the window, its two frames, 2 · 3 B W and 3 W² of the convolutions, B
        the bands, and per layer 4 W² + 2 W F; of a token of the text per layer 6 W² + 2 W F."""
        width, layers = self.width, self.decoder_layers
        sliding = log_mel.macs(self.bands) + 3 * self.bands * width
        thought = 2 * width * self.hidden
        token = layers * (6 * width**2 + thought)
        draw = width * self.vocabulary
        kept = 2 * layers * width
        return SourcePrice(
            token=2 * sliding + 3 * width**2 + self.encoder_layers * (4 * width**2 + thought),
            pair=2 * self.encoder_layers * width,
            kept=kept * width,
            look=kept,
            cached=kept,
            decoder=Price(token, kept, draw, kept, token + draw),
            again=sliding,
        )


class Listener(CausalNetwork):
    """Hears sound, writes tokens.

    Args:
        sizes: of both sides.
        start: the tokens that the decoder reads first.

    Raises:
        UsageError: for a width that the heads do not divide, or start tokens that are none.
    """

    def __init__(self, sizes: Sizes, start: Sequence[int]) -> None:
        super().__init__()
        if sizes.width % sizes.heads:
            raise UsageError(
                f"a width of {sizes.width} and {sizes.heads} heads: give a multiple of the heads"
            )
        if not start or not all(0 <= token < sizes.vocabulary for token in start):
            raise UsageError(
                f"the start tokens {[*start]} are none of the {sizes.vocabulary} ids of the "
                "decoder: give those which it was trained to begin with"
            )
        self.start = tuple(start)
        self.sizes, self.price = sizes, sizes.price._replace(start=len(start))
        self.context, self.vocabulary = sizes.context, sizes.vocabulary
        self.encoder = Encoder(sizes)
        self.words = nn.Embedding(sizes.vocabulary, sizes.width)
        self.places = nn.Parameter(torch.zeros(sizes.context, sizes.width))
        self.layers = nn.ModuleList(Writing(sizes) for _ in range(sizes.decoder_layers))
        self.norm = nn.LayerNorm(sizes.width)

    def hear(self, sound: Tensor) -> Tensor:
        """Samples (B, 1, n) of at most a window -> (B, positions, width)."""
        return self.encoder(self.framed(sound))

    def framed(self, sound: Tensor) -> Tensor:
        """Frames (B, bands, 2 · positions) of samples (B, 1, n), silence behind them."""
        return self.encoder.frames(F.pad(sound[:, 0], (0, self.sizes.window - sound.shape[2])))

    def lift(self, ids: Tensor) -> Tensor:
        return self.words(ids)

    def read(self, rows: Tensor, memory: Memory = None) -> tuple[Tensor, Memory]:
        """Of rows (B, n, width) behind a memory that begins as ``Heard(states)``."""
        heard: Heard = memory
        source = heard.source or [layer.between.kept(heard.states) for layer in self.layers]
        rows = rows + self.places[heard.read : heard.read + rows.shape[1]]
        after = []
        for number, layer in enumerate(self.layers):
            before = None if heard.text is None else heard.text[number]
            rows, kept = layer(rows, before, source[number])
            after.append(kept)
        return rows, Heard(None, source, after)

    def draw(self, state: Tensor) -> Tensor:
        return F.linear(self.norm(state), self.words.weight)

    def rows_of(self, memory: Memory, index: Tensor) -> Memory:
        return memory.rows(index)

    def stored(self, memory: Memory) -> int:
        return memory.stored()


class NothingBehind(Listener):
    """Hears as ``faster-whisper`` does: frames behind a recording are zeros, no silence."""

    def framed(self, sound: Tensor) -> Tensor:
        frames = super().framed(sound)
        heard = sound.shape[2] // log_mel.HOP
        return F.pad(frames[..., :heard], (0, frames.shape[2] - heard))


class Encoder(nn.Module):
    """Frames (B, bands, 2 · positions) -> states (B, positions, width)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.frames = log_mel.LogMel(sizes.bands)
        self.near = nn.Conv1d(sizes.bands, sizes.width, 3, padding=1)
        self.halve = nn.Conv1d(sizes.width, sizes.width, 3, stride=2, padding=1)
        self.places = nn.Parameter(torch.zeros(sizes.positions, sizes.width))
        self.layers = nn.ModuleList(Hearing(sizes) for _ in range(sizes.encoder_layers))
        self.norm = nn.LayerNorm(sizes.width)

    def forward(self, frames: Tensor) -> Tensor:
        rows = F.gelu(self.halve(F.gelu(self.near(frames))))
        rows = rows.transpose(1, 2) + self.places
        for layer in self.layers:
            rows = layer(rows)
        return self.norm(rows)


class Attention(nn.Module):
    """What rows ask of keys and values, behind a norm."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width, self.head = sizes.width, sizes.width // sizes.heads
        self.norm = nn.LayerNorm(width)
        self.queries = nn.Linear(width, width)
        self.keys = nn.Linear(width, width, bias=False)
        self.values = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def asked(self, rows: Tensor) -> Tensor:
        """Queries (B, heads, n, head) of rows behind the norm (B, n, width)."""
        return self._heads(self.queries(rows))

    def kept(self, states: Tensor) -> Kept:
        """Keys and values of what is looked at (B, s, width)."""
        return self._heads(self.keys(states)), self._heads(self.values(states))

    def _heads(self, rows: Tensor) -> Tensor:
        return rows.unflatten(2, (-1, self.head)).transpose(1, 2)


class Thought(nn.Sequential):
    """The feed-forward part, behind a norm."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(
            nn.LayerNorm(sizes.width),
            nn.Linear(sizes.width, sizes.hidden),
            nn.GELU(),
            nn.Linear(sizes.hidden, sizes.width),
        )


class Hearing(nn.Module):
    """A layer of the encoder, whose rows look at all others."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.own, self.think = Attention(sizes), Thought(sizes)

    def forward(self, rows: Tensor) -> Tensor:
        """(B, positions, width) -> the same shape."""
        seen = self.own.norm(rows)
        rows = rows + self.own.out(mixed(self.own.asked(seen), *self.own.kept(seen)))
        return rows + self.think(rows)


class Writing(nn.Module):
    """A layer of the decoder, whose rows look at those before, and at what was heard."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.own, self.between, self.think = Attention(sizes), Attention(sizes), Thought(sizes)

    def forward(self, rows: Tensor, before: Kept | None, source: Kept) -> tuple[Tensor, Kept]:
        """(B, n, width), with keys and values of the text before and of the sound -> the same
        shape, and keys and values of the text so far."""
        seen = self.own.norm(rows)
        keys, values = self.own.kept(seen)
        if before is not None:
            keys, values = torch.cat([before[0], keys], 2), torch.cat([before[1], values], 2)
        rows = rows + self.own.out(attended(self.own.asked(seen), keys, values))
        seen = self.between.norm(rows)
        rows = rows + self.between.out(mixed(self.between.asked(seen), *source))
        return rows + self.think(rows), (keys, values)
