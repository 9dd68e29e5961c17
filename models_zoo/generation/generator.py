"""A causal language model as a victim: what a prompt moves is how much is written."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from effattack.counting.tallies import Count
from effattack.domains.tokens import PAD, Tokens, lengths
from effattack.errors import UsageError
from effattack.models_zoo.generation.choice import Greedy
from effattack.models_zoo.generation.decoder import CausalNetwork, Memory
from effattack.models_zoo.generation.sampling import Sampled
from effattack.models_zoo.generation.writing import begun, write
from effattack.tasks import Text
from effattack.victim import Gate, Trace, Victim
from effattack.victim.leaf import Leaf

HELD = 2**30
"""Bytes of keys and values that are held at once; longer batches are written in parts."""


class Template(NamedTuple):
    """The tokens that stand around what a user writes."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.before) + len(self.after)


class Generator(Victim):
    """Writes after a prompt until the end token, or the cap.

    ``forward`` reads the prompt once and every token that was written once, with the keys and
    values of all before kept; prompts of one length are read together, and a text that ended leaves
    its batch. One gate, ``steps``, of cap - 1 units: reached where a token was drawn, active where
    it was not the end token. ``trace().aux["capped"]`` says which texts the cap ended.

    The currency are sequential passes: an output token takes many times the time of an input token
    at nearly equal MACs. Beside them stand MACs, output tokens, bytes of the cache at the end, and
    bytes that pass through memory, which are modelled.

    Args:
        network: reads tokens and draws logits.
        domain: what users write.
        cap: most tokens that are written, the end token included.
        end: the end token.
        template: what stands around the user's part.
        cached: without, every pass reads all tokens before it again.
        temperature: of the softmax that tokens are drawn from; None: the likeliest one is written.
        seed: of the texts that are drawn: they depend on it and on the prompt alone.
        name, data: as of all victims.

    Raises:
        UsageError: for a cap, an end token or a vocabulary that do not fit the network, or a
            temperature that is not positive.
    """

    def __init__(
        self,
        network: CausalNetwork,
        domain: Tokens,
        *,
        cap: int,
        end: int,
        template: Template | None = None,
        cached: bool = True,
        temperature: float | None = None,
        seed: int = 0,
        name: str = "Generator",
        data: str | None = None,
    ) -> None:
        template = template or Template()
        _check(name, network, domain, cap, end, template)
        super().__init__(
            name=name,
            family="generation",
            domain=domain,
            task=Text(cap, end, domain.tokenizer),
            counts={
                "passes": Count("pass", partial(_every, cap)),
                "output_tokens": Count("output token", partial(_every, cap)),
                "cache_bytes": Count("byte", self._most_kept),
                "moved_bytes": Count("byte", self._most_moved, audited=False),
            },
            currency="passes",
            data=data,
        )
        self.network, self.template, self.cached = network, template, cached
        self.cap, self.choice = cap, Greedy(end)
        if temperature is not None:
            self.choice = Sampled(end, domain, temperature, seed)
        longest = torch.tensor(domain.longest + len(template))
        self.max_macs = float(network.price.macs(longest, torch.tensor(cap), cached))
        self.eval()

    def ceiling(self, batch: Tensor, count: str = "macs") -> Tensor:
        """Of prompts of these lengths, written after up to the cap."""
        if count == "macs":
            return self.network.price.macs(*self._at_the_cap(batch), self.cached)
        return super().ceiling(batch, count)

    def seeded(self, seed: int | str) -> Self:
        """The same under other chance; itself where nothing is drawn."""
        found = copy.copy(self)
        found.choice = self.choice.seeded(seed)
        return found

    def searched(self, seed: int) -> Self:
        """Under chance of the search's own: choosing prompts by the draw on which they are judged
        would be choosing luck."""
        return self.seeded(f"search {seed}")

    def lift(self, batch: Tensor, places: Tensor) -> Leaf:
        """Embedding rows of places in the user's part."""
        inside = batch.gather(1, places.clamp_max(batch.shape[1] - 1)).clamp_min(0)
        return Leaf(self.network.lift(inside), places)

    def forward(self, batch: Tensor) -> Tensor:
        """Prompts (B, L) -> what is written after them, (B, cap), the end token included."""
        written = torch.full((len(batch), self.cap), PAD, device=batch.device)
        for index, rows, draws in self._alike(batch):
            steps = write(self.network, self.choice, rows, draws, cached=self.cached)
            for number, step in enumerate(steps):
                written[index[step.running], number] = step.words
        return written

    def trace(self, batch: Tensor, leaf: Leaf | None = None) -> Trace:
        """What is written without gradients is read again, at once, where a leaf asks for them.

        Prompts that begin alike have their common beginning read once; ``macs`` are those of the
        deployed path, which does not.
        """
        with torch.no_grad():
            written, margin, slack = self._watched(batch, leaf)
        if leaf is not None:
            margin = self._read_again(batch, written, leaf)
        passes = lengths(written)
        happened = written != PAD
        onward = happened & (written != self.choice.end)
        prompts, sizes = self._asked(batch), self._bytes_each
        price, steps = self.network.price, torch.arange(1, self.cap, device=batch.device)
        most = price.macs(*self._at_the_cap(batch), self.cached)
        spent = price.macs(prompts[:, None], steps, self.cached)
        gate = Gate(
            "steps",
            _as_decided(margin, onward)[:, :-1],
            onward[:, :-1],
            happened[:, :-1],
            cost=most[:, None] - spent,
        )
        return Trace(
            logits=written,
            gates=(gate,) if self.cap > 1 else (),
            macs=price.macs(prompts, passes, self.cached),
            also={
                "passes": passes.double(),
                "output_tokens": passes.double(),
                "cache_bytes": price.held(prompts, passes) * sizes * self.cached,
                "moved_bytes": price.moved(prompts, passes, self.cached) * sizes,
            },
            aux={"capped": onward[:, -1]},
            slack=slack.amin(1),
        )

    def _alike(
        self, batch: Tensor, leaf: Leaf | None = None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Prompts (B, L) that are written together: which they are, their rows, those of a leaf in
        their places, and their draws.

        Those of one length, as many as :data:`HELD` bytes of cache allow.
        """
        draws, sizes = self.choice.draws(batch, self.cap), lengths(batch)
        for size in sizes.unique().tolist():
            index = (sizes == size).nonzero()[:, 0]
            kept = self.network.price.cached * (size + len(self.template) + self.cap)
            for some in index.split(max(1, HELD // (kept * self._bytes_each))):
                part = None if leaf is None else Leaf(leaf.rows[some], leaf.places[some])
                yield some, self._prompted(batch[some, :size], part), draws[some]

    def _watched(self, batch: Tensor, leaf: Leaf | None) -> tuple[Tensor, Tensor, Tensor]:
        """(B, cap) each: what is written, and margin and slack of every step; of those that did
        not happen 0 and infinity."""
        written = torch.full((len(batch), self.cap), PAD, device=batch.device)
        margin = torch.zeros(written.shape, dtype=self.dtype, device=batch.device)
        slack = torch.full_like(margin, torch.inf)
        for index, rows, draws in self._alike(batch, leaf):
            memory: Memory = None
            if self.cached:
                rows, memory = begun(self.network, rows)
            steps = write(self.network, self.choice, rows, draws, cached=self.cached, memory=memory)
            for number, step in enumerate(steps):
                mine, chance = index[step.running], draws[step.running, number]
                written[mine, number] = step.words
                margin[mine, number] = self.choice.margin(step.logits, chance)
                slack[mine, number] = self.choice.slack(step.logits, chance)
        return written, margin, slack

    def _read_again(self, batch: Tensor, written: Tensor, leaf: Leaf) -> Tensor:
        """(B, cap): margins of every step, of one pass over prompts and texts."""
        count = int(lengths(written).max())
        prompts, rows = self._asked(batch), self._prompted(batch, leaf)
        place = torch.arange(count, device=batch.device)
        texts = self.network.lift(written[:, : count - 1].clamp_min(0))
        rows = torch.cat([rows, torch.zeros_like(texts)], 1)
        behind = (prompts[:, None] + place[:-1])[:, :, None].expand_as(texts)
        state, _ = self.network.read(rows.scatter(1, behind, texts))
        drawn_at = (prompts[:, None] - 1 + place)[:, :, None].expand(-1, -1, state.shape[2])
        logits = self.network.draw(state.gather(1, drawn_at))
        margin = self.choice.margin(logits, self.choice.draws(batch, self.cap)[:, :count])
        return pad(margin, (0, self.cap - count))

    def _prompted(self, batch: Tensor, leaf: Leaf | None) -> Tensor:
        """Prompts (B, L) in their template, as rows (B, template + L, width); what stands behind a
        shorter one is never looked at."""
        user = self.network.lift(batch.clamp_min(0))
        if leaf is not None:
            wide = torch.cat([user, user[:, :1]], 1)
            places = leaf.places.clamp_max(batch.shape[1])[:, :, None].expand_as(leaf.rows)
            user = wide.scatter(1, places, leaf.rows.to(user))[:, : batch.shape[1]]
        before, after = (
            self.network.lift(torch.tensor(part, dtype=torch.long, device=batch.device))
            for part in self.template
        )
        count = len(batch)
        rows = torch.cat([before.expand(count, -1, -1), user, after.expand(count, -1, -1)], 1)
        place = torch.arange(rows.shape[1], device=batch.device)
        gap = batch.shape[1] - lengths(batch)[:, None]
        moved = torch.where(
            place < self._asked(batch)[:, None] - after.shape[0], place, place + gap
        )
        moved = moved.clamp_max(rows.shape[1] - 1)
        return rows.gather(1, moved[:, :, None].expand_as(rows))

    def _asked(self, batch: Tensor) -> Tensor:
        """(B,): tokens of each prompt, with its template."""
        return lengths(batch) + len(self.template)

    def _at_the_cap(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        prompts = self._asked(batch)
        return prompts, torch.full_like(prompts, self.cap)

    @property
    def _bytes_each(self) -> int:
        return self.dtype.itemsize

    def _most_kept(self, batch: Tensor) -> Tensor:
        return self.network.price.held(*self._at_the_cap(batch)) * self._bytes_each

    def _most_moved(self, batch: Tensor) -> Tensor:
        moved = self.network.price.moved(*self._at_the_cap(batch), self.cached)
        return moved * self._bytes_each


def _every(cap: int, batch: Tensor) -> Tensor:
    return torch.full((len(batch),), float(cap), dtype=torch.float64, device=batch.device)


def _as_decided(margin: Tensor, onward: Tensor) -> Tensor:
    """Margins on the side of what was written; rounding may set those at a tie on the other."""
    least = torch.finfo(margin.dtype).tiny
    return torch.where(onward, margin.clamp_min(least), margin.clamp_max(0))


def _check(
    name: str, network: CausalNetwork, domain: Tokens, cap: int, end: int, template: Template
) -> None:
    """Refuse what does not fit together.

    Raises:
        UsageError: naming what, and the remedy.
    """
    if not isinstance(cap, int) or isinstance(cap, bool) or cap < 1:
        raise UsageError(f"{name}: cap = {cap!r}: give a whole number of at least 1")
    if (needed := domain.longest + len(template) + cap - 1) > network.context:
        raise UsageError(
            f"{name}: prompts of {domain.longest} tokens, a template of {len(template)} and a cap "
            f"of {cap} need a context of {needed}, the network has {network.context}: lower "
            "longest or cap"
        )
    if domain.vocabulary != network.vocabulary:
        raise UsageError(
            f"{name}: the tokenizer has {domain.vocabulary} ids, the network {network.vocabulary}: "
            "give the network's own tokenizer"
        )
    if not 0 <= end < network.vocabulary:
        raise UsageError(
            f"{name}: the end token {end} is none of the {network.vocabulary} ids of the network: "
            "give that which it was trained to end with"
        )
