"""How texts are written: one token after the other, each text leaving its batch as it ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from effattack.counting.tallies import tally
from effattack.models_zoo.generation.choice import Greedy
from effattack.models_zoo.generation.decoder import CausalNetwork, Memory


class Step(NamedTuple):
    """One more token of every text that goes on."""

    running: Tensor
    """(n,): which rows of the batch they are."""
    logits: Tensor
    """(n, vocabulary): what the tokens were drawn from."""
    words: Tensor
    """(n,): the tokens."""


def write(
    network: CausalNetwork,
    choice: Greedy,
    rows: Tensor,
    draws: Tensor,
    *,
    cached: bool = True,
    memory: Memory = None,
) -> Iterator[Step]:
    """The steps of texts, told as they are done (:func:`effattack.tally`).

    Args:
        network: reads tokens and draws logits.
        choice: of the tokens; its end token ends a text.
        rows: prompts of one length (B, P, width), or what of them is still to be read.
        draws: (B, cap), what the choice takes of chance; no text has more tokens.
        cached: without, every pass reads all tokens before it again.
        memory: of what was read of the prompts.
    """
    running, cap = torch.arange(len(rows), device=rows.device), draws.shape[1]
    for step in range(cap):
        state, kept = network.read(rows, memory)
        logits = network.draw(state[:, -1])
        words = choice.choose(logits, draws[running, step])
        tally("passes", len(running))
        tally("output_tokens", len(running))
        yield Step(running, logits, words)
        onward = (words != choice.end) & (step < cap - 1)
        left = onward.nonzero()[:, 0]
        if cached:
            ended = len(running) - len(left)
            tally("cache_bytes", network.stored(kept) // len(running) * ended)
        if not len(left):
            return
        new = network.lift(words[left])[:, None]
        if not cached:
            rows = torch.cat([rows[left], new], 1)
        else:
            memory, rows = kept if len(left) == len(running) else network.rows_of(kept, left), new
        running = running[left]


def begun(network: CausalNetwork, rows: Tensor) -> tuple[Tensor, Memory]:
    """Prompts (B, P, width) -> what follows their common beginning, which is read once, and the
    memory of it, of every row."""
    same = (rows == rows[:1]).all(2).all(0)
    common = min(int(same.cumprod(0).sum()), rows.shape[1] - 1)
    if len(rows) == 1 or common == 0:
        return rows, None
    _, memory = network.read(rows[:1, :common])
    everyone = torch.zeros(len(rows), dtype=torch.long, device=rows.device)
    return rows[:, common:], network.rows_of(memory, everyone)
