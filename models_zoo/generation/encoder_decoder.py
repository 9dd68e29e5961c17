"""An encoder-decoder as a victim: the prompt is read once, by an encoder of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from effattack.domains.tokens import Tokens
from effattack.errors import UsageError
from effattack.models_zoo.generation.decoder import CausalNetwork, Memory
from effattack.models_zoo.generation.writer import Writer
from effattack.victim.leaf import Leaf


class SourcedNetwork(CausalNetwork):
    """What an :class:`EncoderDecoder` asks of a network: a decoder whose first memory is that of
    an encoded prompt, and which looks at it in every pass."""

    source_context: int
    """Most tokens that the encoder reads."""
    source_vocabulary: int

    def lift_source(self, ids: Tensor) -> Tensor:
        """Ids of a prompt (...) -> embedding rows of the encoder (..., width)."""
        raise NotImplementedError

    def encode(self, rows: Tensor) -> Memory:
        """A prompt (B, S, width), each of its tokens looking at all -> the memory that the decoder
        begins with."""
        raise NotImplementedError


class EncoderDecoder(Writer):
    """Writes what it makes of a prompt, as a translator does (Vaswani et al., "Attention is all you
    need", 2017, arXiv 1706.03762).

    The encoder reads a prompt in its template once. The decoder begins with a token of its own,
    looks back at what it wrote, and in every layer at the encoder's states, whose keys and values
    are made in the first pass and kept. Without a cache it makes them anew in every pass, and reads
    all that it wrote before again; the encoder still runs once.

    Args:
        network: an encoder, and a decoder that draws logits.
        domain: what users write, in the encoder's vocabulary.
        start: what the decoder reads first; by default the end token, which stands in no text.
        settings: cap, end token, template and the rest, as of a
            :class:`~effattack.models_zoo.generation.writer.Writer`. Gradients are those of the
            encoder's embedding rows, whether the decoder shares them or not.

    Raises:
        UsageError: for prompts longer than the encoder takes, a cap beyond the decoder's context,
            a start or end token, or a vocabulary that are not the network's.
    """

    network: SourcedNetwork
    domain: Tokens

    def __init__(
        self, network: SourcedNetwork, domain: Tokens, *, start: int | None = None, **settings: Any
    ) -> None:
        super().__init__(network, domain, **settings)
        self.start = self.choice.end if start is None else start
        if not 0 <= self.start < network.vocabulary:
            raise UsageError(
                f"{self.name}: the start token {start} is none of the {network.vocabulary} ids of "
                "the decoder: give that which it was trained to begin with"
            )

    def _lifted(self, ids: Tensor) -> Tensor:
        return self.network.lift_source(ids)

    def begun(self, batch: Tensor, leaf: Leaf | None) -> tuple[Tensor, Memory]:
        start = torch.full((len(batch), 1), self.start, device=batch.device)
        return self.network.lift(start), self.network.encode(self._prompted(batch, leaf))

    def _expect_fit(self, longest: int) -> None:
        network, domain = self.network, self.domain
        if domain.vocabulary != network.source_vocabulary:
            raise UsageError(
                f"{self.name}: the tokenizer has {domain.vocabulary} ids, the encoder "
                f"{network.source_vocabulary}: give the encoder's own tokenizer"
            )
        self.template.check(self.name, domain.vocabulary)
        if longest > network.source_context:
            raise UsageError(
                f"{self.name}: prompts of {domain.longest} tokens and a template of "
                f"{len(self.template)}, the encoder takes {network.source_context}: lower longest"
            )
        if self.cap > network.context:
            raise UsageError(
                f"{self.name}: a cap of {self.cap}, the decoder has a context of "
                f"{network.context}: lower cap"
            )
