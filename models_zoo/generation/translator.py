"""An encoder-decoder of our own: the layers of a decoder, on both sides, and attention between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from effattack.models_zoo.generation.decoder import Decoder, Layer, Memory, Sizes, mixed, turns
from effattack.models_zoo.generation.encoder_decoder import SourcedNetwork
from effattack.models_zoo.generation.price import SourcePrice

Kept = tuple[Tensor, Tensor]
"""Keys and values of one layer, (B, kv_heads, tokens, head) each."""


class Heard(NamedTuple):
    """What the decoder has of a prompt and of its own text."""

    states: Tensor | None
    """(B, S, width) of the encoder, until keys and values are made of them."""
    source: list[Kept] | None = None
    text: list[Kept] | None = None

    @property
    def read(self) -> int:
        """Tokens of the text so far."""
        return 0 if self.text is None else self.text[0][0].shape[2]

    def rows(self, index: Tensor) -> Heard:
        """Of some rows of a batch."""
        states = None if self.states is None else self.states[index]
        kept = (
            None if part is None else [(keys[index], values[index]) for keys, values in part]
            for part in (self.source, self.text)
        )
        return Heard(states, *kept)

    def stored(self) -> int:
        """Bytes of keys and values, all rows together."""
        pairs = [*(self.source or ()), *(self.text or ())]
        return sum(kept.numel() * kept.element_size() for pair in pairs for kept in pair)


class Translator(SourcedNetwork):
    """Reads a prompt at once, both ways; writes with attention on the text and on the prompt.

    Args:
        encoder: sizes of the side that reads; its context is the longest prompt.
        decoder: sizes of the side that writes; both sides have embeddings of their own, and grouped
            queries where it says so.

    Raises:
        UsageError: for sizes that do not divide each other.
    """

    def __init__(self, encoder: Sizes, decoder: Sizes) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(encoder), Decoder(decoder)
        self.between = nn.ModuleList(Between(encoder, decoder) for _ in range(decoder.layers))
        self.source_context, self.source_vocabulary = encoder.context, encoder.vocabulary
        self.context, self.vocabulary = decoder.context, decoder.vocabulary
        self.price = price(encoder, decoder)

    def lift(self, ids: Tensor) -> Tensor:
        return self.decoder.lift(ids)

    def lift_source(self, ids: Tensor) -> Tensor:
        return self.encoder.words(ids)

    def encode(self, rows: Tensor) -> Memory:
        return Heard(self.encoder(rows))

    def read(self, rows: Tensor, memory: Memory = None) -> tuple[Tensor, Memory]:
        heard: Heard = memory
        source = heard.source or [part.kept(heard.states) for part in self.between]
        text: Sequence[Kept | None] = [None] * len(source) if heard.text is None else heard.text
        turn = self.decoder.turns[:, heard.read : heard.read + rows.shape[1]]
        after = []
        parts = zip(self.decoder.layers, self.between, source, text, strict=True)
        for layer, between, of_source, of_text in parts:
            rows, kept = layer.look(rows, turn, of_text)
            rows = layer.think(between(rows, *of_source))
            after.append(kept)
        return rows, Heard(None, source, after)

    def draw(self, state: Tensor) -> Tensor:
        return self.decoder.draw(state)

    def rows_of(self, memory: Memory, index: Tensor) -> Memory:
        return memory.rows(index)

    def stored(self, memory: Memory) -> int:
        return memory.stored()


class Encoder(nn.Module):
    """Layers whose tokens look at all of a prompt, and a norm."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.words = nn.Embedding(sizes.vocabulary, sizes.width)
        self.layers = nn.ModuleList(BothWays(sizes) for _ in range(sizes.layers))
        self.norm = nn.RMSNorm(sizes.width, sizes.eps)
        self.register_buffer("turns", turns(sizes), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """Embedding rows of whole prompts (B, S, width) -> states of the same shape."""
        for layer in self.layers:
            rows, _ = layer(rows, self.turns[:, : rows.shape[1]], None)
        return self.norm(rows)


class BothWays(Layer):
    """A layer whose tokens look at those behind them, too."""

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return mixed(queries, keys, values)


class Between(nn.Module):
    """The attention of a text on the states of its prompt, behind a norm and beside a residual."""

    def __init__(self, encoder: Sizes, decoder: Sizes) -> None:
        super().__init__()
        self.head = decoder.head
        self.before = nn.RMSNorm(decoder.width, decoder.eps)
        self.queries = nn.Linear(decoder.width, decoder.width, bias=False)
        self.keys = nn.Linear(encoder.width, decoder.kept, bias=False)
        self.values = nn.Linear(encoder.width, decoder.kept, bias=False)
        self.out = nn.Linear(decoder.width, decoder.width, bias=False)

    def kept(self, states: Tensor) -> Kept:
        """Keys and values of states (B, S, width)."""
        return self._heads(self.keys(states)), self._heads(self.values(states))

    def forward(self, rows: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """(B, n, width) -> the same shape."""
        queries = self._heads(self.queries(self.before(rows)))
        return rows + self.out(mixed(queries, keys, values))

    def _heads(self, rows: Tensor) -> Tensor:
        return rows.unflatten(2, (-1, self.head)).transpose(1, 2)


def price(encoder: Sizes, decoder: Sizes) -> SourcePrice:
    """Beside what both sides cost by themselves, per layer of the decoder 2 E K of a token of the
    prompt, E the encoder's width and K that of the keys, 2 W² of a token of the text, and 2 W of a
    pair of them."""
    own, layers = decoder.price, decoder.layers
    asking = 2 * layers * decoder.width**2
    return SourcePrice(
        token=encoder.price.token,
        pair=encoder.price.pair,
        kept=2 * layers * encoder.width * decoder.kept,
        look=2 * layers * decoder.width,
        cached=2 * layers * decoder.kept,
        decoder=own._replace(token=own.token + asking, weights=own.weights + asking),
    )
