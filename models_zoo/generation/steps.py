"""The steps of texts: how each is taken, when it is the last, and what was decided there."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import NamedTuple, Self

import torch
from torch import Tensor

from effattack.counting.tallies import tally
from effattack.domains.tokens import PAD
from effattack.models_zoo.generation.choice import Greedy
from effattack.models_zoo.generation.decoder import CausalNetwork, Memory


class Step(NamedTuple):
    """One more token of every text that goes on."""

    number: int
    running: Tensor
    """(n,): which rows of the batch they are."""
    logits: Tensor
    """(n, vocabulary): what the tokens were drawn from."""
    texts: Tensor
    """(n, number + 1): what is written by now, this token included."""


class Decided(NamedTuple):
    """What was decided at the steps of texts, (B, cap) each."""

    onward: Tensor
    """bool: to write on."""
    free: Tensor
    """bool: there was something to decide."""
    last: Tensor
    """The most passes that there can be behind this step, all before included."""


class Rule:
    """Texts that go on until an end token, or the cap.

    Args:
        choice: how a token is chosen from logits.
        cap: most tokens that are written, the end token included.
    """

    def __init__(self, choice: Greedy, cap: int) -> None:
        self.choice, self.cap = choice, cap

    def seeded(self, seed: int | str) -> Self:
        """The same under other chance; as it is where nothing is drawn."""
        found = copy.copy(self)
        found.choice = self.choice.seeded(seed)
        return found

    def choose(self, logits: Tensor, draws: Tensor, before: Tensor) -> Tensor:
        """The next tokens (n,) of texts (n, steps), of logits (n, vocabulary) and draws (n,)."""
        return self.choice.choose(logits, draws)

    def goes_on(self, texts: Tensor) -> Tensor:
        """Texts (n, steps), each of which was just written on -> (n,): whether a token follows."""
        return ~self.choice.is_end(texts[:, -1]) & (texts.shape[1] < self.cap)

    def weighed(self, logits: Tensor, draws: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Margin and slack, (n, m) each, of the last m steps of texts (n, steps), of their logits
        (n, m, vocabulary) and draws (n, m)."""
        return self.choice.margin(logits, draws), self.choice.slack(logits.detach(), draws)

    def decided(self, written: Tensor) -> Decided:
        """What :meth:`choose` and :meth:`goes_on` came to in texts (B, cap)."""
        happened = written != PAD
        onward = happened & ~self.choice.is_end(written)
        return Decided(onward, happened, torch.full_like(written, self.cap))


def steps(
    network: CausalNetwork,
    rule: Rule,
    rows: Tensor,
    memory: Memory,
    draws: Tensor,
    *,
    cached: bool = True,
) -> Iterator[Step]:
    """Write texts, telling their work as it is done (:func:`effattack.tally`).

    Args:
        network: reads tokens and draws logits.
        rule: which token is written, and whether another one follows.
        rows: (B, n, width), what is read in the first pass, of prompts of one length.
        memory: of what was read before, or None.
        draws: (B, cap), the chance of every step.
        cached: without, every pass reads all rows before it again.
    """
    running = torch.arange(len(rows), device=rows.device)
    texts = torch.full((len(rows), rule.cap), PAD, device=rows.device)
    for number in range(rule.cap):
        state, kept = network.read(rows, memory)
        logits, before = network.draw(state[:, -1]), texts[running, :number]
        words = rule.choose(logits, draws[running, number], before)
        tally("passes", len(running))
        tally("output_tokens", len(running))
        texts[running, number] = words
        yield Step(number, running, logits, texts[running, : number + 1])
        left = rule.goes_on(texts[running, : number + 1]).nonzero()[:, 0]
        if cached:
            ended = len(running) - len(left)
            tally("cache_bytes", network.stored(kept) // len(running) * ended)
        if not len(left):
            return
        new, all_left = network.lift(words[left])[:, None], len(left) == len(running)
        if cached:
            memory, rows = kept if all_left else network.rows_of(kept, left), new
        else:
            memory = None if memory is None else network.rows_of(memory, left)
            rows = torch.cat([rows[left], new], 1)
        running = running[left]


def read_once(network: CausalNetwork, rows: Tensor) -> tuple[Tensor, Memory]:
    """Prompts (B, P, width) -> what follows their common beginning, which is read once, and the
    memory of it, of every row."""
    same = (rows == rows[:1]).all(2).all(0)
    common = min(int(same.cumprod(0).sum()), rows.shape[1] - 1)
    if len(rows) == 1 or common == 0:
        return rows, None
    _, memory = network.read(rows[:1, :common])
    everyone = torch.zeros(len(rows), dtype=torch.long, device=rows.device)
    return rows[:, common:], network.rows_of(memory, everyone)
