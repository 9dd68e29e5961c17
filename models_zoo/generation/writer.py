"""What all generators share: a text is written, told as a gate, and paid for."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from effattack.counting.tallies import Count, every
from effattack.domains import Domain
from effattack.domains.tokens import PAD, Tokenizer, Tokens, lengths
from effattack.errors import UsageError
from effattack.models_zoo.generation.choice import Greedy
from effattack.models_zoo.generation.decoder import CausalNetwork, Memory
from effattack.models_zoo.generation.draws import DRAWS, OverTexts
from effattack.models_zoo.generation.sampling import Sampled
from effattack.models_zoo.generation.steps import Rule, Step, read_once, steps
from effattack.tasks import Text
from effattack.victim import Gate, Trace, Victim
from effattack.victim.leaf import Leaf
from effattack.victim.writing import PROMPTS, STATES, STEPS

HELD = 2**30
"""Bytes of keys and values that are held at once; longer batches are written in parts."""


class Template(NamedTuple):
    """The tokens that stand around what a user writes."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.before) + len(self.after)

    def check(self, name: str, vocabulary: int) -> None:
        """Refuse tokens that the network of a victim does not know.

        Raises:
            UsageError: naming the first one.
        """
        for token in (*self.before, *self.after):
            if not 0 <= token < vocabulary:
                raise UsageError(
                    f"{name}: the template has the token {token}, none of the {vocabulary} ids of "
                    "prompts: make it with the network's own tokenizer"
                )


class Writer(Victim):
    """Writes after a prompt until the end token, or the cap.

    ``forward`` reads every token that was written once, with what the network keeps of all before;
    prompts of one length are read together, and a text that ended leaves its batch. One gate,
    ``steps``, of cap - 1 units: reached where a token was drawn, active where it was not the end
    token. ``trace().aux["capped"]`` says which texts the cap ended.

    The currency are sequential passes: an output token takes many times the time of an input token
    at nearly equal MACs. Beside them stand MACs, output tokens, bytes of the cache at the end, and
    bytes that pass through memory, which are modelled.

    Args:
        network: reads tokens and draws logits.
        domain: what users write, or say.
        cap: most tokens that are written, the end token included.
        end: the end token, or several: each ends a text.
        template: what stands around the user's part.
        cached: without, every pass reads all tokens before it again.
        temperature: of the softmax that tokens are drawn from; None: the likeliest one is written.
        top_k, top_p: of a softmax, what is drawn from: its likeliest tokens, and the fewest of them
            whose shares reach ``top_p``, as ``generate`` of transformers has it.
        seed: of the texts that are drawn: they depend on it and on the prompt alone.
        words: the tokenizer of what is written; None: that of the prompts, if they have one.
        name, data: as of all victims.

    Raises:
        UsageError: for a cap, an end token, a template or a vocabulary that do not fit the network,
            or a temperature, ``top_k`` or ``top_p`` that are none.
    """

    network: CausalNetwork

    def __init__(
        self,
        network: CausalNetwork,
        domain: Domain,
        *,
        cap: int,
        end: int | Sequence[int],
        template: Template | None = None,
        cached: bool = True,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        words: Tokenizer | None = None,
        name: str | None = None,
        data: str | None = None,
    ) -> None:
        name = name or type(self).__name__
        _check(name, network, cap, end)
        super().__init__(
            name=name,
            family="generation",
            domain=domain,
            task=Text(cap, end, words or getattr(domain, "tokenizer", None)),
            counts={
                "passes": Count("pass", partial(every, cap)),
                "output_tokens": Count("output token", partial(every, cap)),
                "cache_bytes": Count("byte", self._most_kept),
                "moved_bytes": Count("byte", self._most_moved, audited=False),
            },
            currency="passes",
            data=data,
        )
        self.network, self.template, self.cached = network, template or Template(), cached
        self.vocabulary = network.vocabulary
        self.cap, choice = cap, Greedy(end)
        if temperature is not None:
            choice = Sampled(end, domain, temperature, seed, top_k=top_k, top_p=top_p)
        elif (top_k, top_p) != (None, None):
            raise UsageError(
                f"{name}: top_k and top_p are of sampled texts: give a temperature, or leave them "
                "out to decode greedily"
            )
        self.rule = Rule(choice, cap)
        longest = self._longest
        self._expect_fit(longest)
        self.max_macs = float(network.price.macs(torch.tensor(longest), torch.tensor(cap), cached))
        self.eval()

    @property
    def choice(self) -> Greedy:
        """How a token is chosen from logits."""
        return self.rule.choice

    @property
    def _longest(self) -> int:
        """Most tokens of a prompt, with its template."""
        assert isinstance(self.domain, Tokens)
        return self.domain.longest + len(self.template)

    def _expect_fit(self, longest: int) -> None:
        """Refuse prompts of another vocabulary, and such of up to so many tokens, template
        included, as the network cannot read and write after up to the cap.

        Raises:
            UsageError: naming what does not fit, and the remedy.
        """
        raise NotImplementedError

    def begun(self, batch: Tensor, leaf: Leaf | None) -> tuple[Tensor, Memory]:
        """Prompts of one length (B, L), read as far as they are before the first pass: rows (B, n,
        width) above whose last the first token is drawn, and the memory of what was read."""
        raise NotImplementedError

    def _lifted(self, ids: Tensor) -> Tensor:
        """Ids of a prompt (...) -> their embedding rows (..., width)."""
        return self.network.lift(ids)

    def ceiling(self, batch: Tensor, count: str = "macs") -> Tensor:
        """Of prompts of these lengths, written after up to the cap."""
        if count == "macs":
            return self.network.price.macs(*self._at_the_cap(batch), self.cached)
        return super().ceiling(batch, count)

    def seeded(self, seed: int | str) -> Self:
        """The same under other chance; itself where nothing is drawn."""
        found = copy.copy(self)
        found.rule = self.rule.seeded(seed)
        return found

    def searched(self, seed: int) -> Victim:
        """Means over draws of the search's own, where anything is drawn: choosing prompts by the
        draw on which they are judged would be choosing luck."""
        if not isinstance(self.choice, Sampled):
            return self
        return OverTexts(self, [self.seeded(f"search {seed} {k}") for k in range(DRAWS)])

    def lift(self, batch: Tensor, places: Tensor) -> Leaf:
        """Embedding rows of places in the user's part."""
        inside = batch.gather(1, places.clamp_max(batch.shape[1] - 1)).clamp_min(0)
        return Leaf(self._lifted(inside), places)

    def forward(self, batch: Tensor) -> Tensor:
        """Prompts (B, L) -> what is written after them, (B, cap), the end token included."""
        written = torch.full((len(batch), self.cap), PAD, device=batch.device)
        draws = self.choice.draws(batch, self.cap)
        for index, prompts, part in self._alike(batch):
            for step in self._steps(*self.begun(prompts, part), draws[index]):
                written[index[step.running], step.number] = step.texts[:, -1]
        return written

    def trace(self, batch: Tensor, leaf: Leaf | None = None) -> Trace:
        """What is written without gradients is read again, at once, where a leaf asks for them, or
        a prompt that is no words.

        Prompts that begin alike have their common beginning read once; ``macs`` are those of the
        deployed path, which does not.
        """
        with torch.no_grad():
            written, margin, slack = self._watched(batch, leaf)
        aux = {PROMPTS: batch}
        if leaf is not None or (batch.requires_grad and torch.is_grad_enabled()):
            logits, states = self.continued(batch, self.read_by(written), leaf)
            count = logits.shape[1]
            draws = self.choice.draws(batch, self.cap)[:, :count]
            margin, _ = self.rule.weighed(logits, draws, written[:, :count])
            margin = pad(margin, (0, self.cap - count))
            aux |= {STEPS: logits, STATES: states}
        passes, prompts, sizes = lengths(written), self._asked(batch), self._bytes_each
        price = self.network.price
        return Trace(
            logits=written,
            gates=(self.stepped(prompts, written, margin),) if self.cap > 1 else (),
            macs=price.macs(prompts, passes, self.cached),
            also={
                "passes": passes.double(),
                "output_tokens": passes.double(),
                "cache_bytes": price.held(prompts, passes) * sizes * self.cached,
                "moved_bytes": price.moved(prompts, passes, self.cached) * sizes,
            },
            aux={"capped": ~self.choice.is_end(written).any(1), **aux},
            slack=slack.amin(1),
        )

    def stepped(self, prompts: Tensor, written: Tensor, margin: Tensor) -> Gate:
        """The gate of texts and margins (B, cap), behind prompts of so many tokens (B,)."""
        price, decided = self.network.price, self.rule.decided(written)
        before = torch.arange(1, self.cap, device=written.device)
        most = price.macs(prompts[:, None], decided.last[:, :-1], self.cached)
        return Gate(
            "steps",
            as_decided(margin, decided.onward)[:, :-1],
            decided.onward[:, :-1],
            decided.free[:, :-1],
            cost=most - price.macs(prompts[:, None], before, self.cached),
        )

    def continued(
        self, batch: Tensor, text: Tensor, leaf: Leaf | None = None
    ) -> tuple[Tensor, Tensor]:
        """One pass over prompts and texts; see :class:`effattack.victim.writing.Writes`."""
        order, found = [], []
        for index, prompts, part in self._alike(batch, leaf):
            rows, memory = self.begun(prompts, part)
            state, _ = self.network.read(torch.cat([rows, text[index]], 1), memory)
            found.append(state[:, rows.shape[1] - 1 :])
            order.append(index)
        states = torch.cat(found)[torch.cat(order).argsort()]
        return self.network.draw(states), states

    def read_by(self, written: Tensor) -> Tensor:
        """Texts (B, cap) -> rows of all tokens that were read to write them, (B, n, width)."""
        return self.network.lift(written[:, : int(lengths(written).max()) - 1].clamp_min(0))

    def _alike(
        self, batch: Tensor, leaf: Leaf | None = None
    ) -> Iterator[tuple[Tensor, Tensor, Leaf | None]]:
        """Prompts that are written after together: which they are, their ids without padding, and
        their part of a leaf. They are of one length, as many as :data:`HELD` allows."""
        sizes = lengths(batch)
        for size in sizes.unique().tolist():
            index = (sizes == size).nonzero()[:, 0]
            kept = float(self._most_kept(batch[index[:1], :size]))
            for some in index.split(max(1, int(HELD // kept))):
                part = None if leaf is None else Leaf(leaf.rows[some], leaf.places[some])
                yield some, batch[some, :size], part

    def _watched(self, batch: Tensor, leaf: Leaf | None) -> tuple[Tensor, Tensor, Tensor]:
        """(B, cap) each: what is written, and margin and slack of every step; of those that did
        not happen 0 and infinity."""
        written = torch.full((len(batch), self.cap), PAD, device=batch.device)
        margin = torch.zeros(written.shape, dtype=self.dtype, device=batch.device)
        slack = torch.full_like(margin, torch.inf)
        draws = self.choice.draws(batch, self.cap)
        for index, prompts, part in self._alike(batch, leaf):
            rows, memory = self.begun(prompts, part)
            if self.cached and memory is None:
                rows, memory = read_once(self.network, rows)
            for step in self._steps(rows, memory, draws[index]):
                mine, chance = index[step.running], draws[index[step.running], step.number]
                found = self.rule.weighed(step.logits[:, None], chance[:, None], step.texts)
                written[mine, step.number] = step.texts[:, -1]
                for all_steps, one in zip((margin, slack), found, strict=True):
                    all_steps[mine, step.number] = one[:, 0].to(all_steps)
        return written, margin, slack

    def _steps(self, rows: Tensor, memory: Memory, draws: Tensor) -> Iterator[Step]:
        return steps(self.network, self.rule, rows, memory, draws, cached=self.cached)

    def _prompted(self, batch: Tensor, leaf: Leaf | None) -> Tensor:
        """Prompts of one length (B, L) in their template, as rows (B, template + L, width)."""
        user = self._lifted(batch)
        if leaf is not None:
            wide = torch.cat([user, user[:, :1]], 1)
            places = leaf.places.clamp_max(batch.shape[1])[:, :, None].expand_as(leaf.rows)
            user = wide.scatter(1, places, leaf.rows.to(user))[:, :-1]
        before, after = (
            self._lifted(torch.tensor(part, dtype=torch.long, device=batch.device))
            for part in self.template
        )
        count = len(batch)
        return torch.cat([before.expand(count, -1, -1), user, after.expand(count, -1, -1)], 1)

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


def as_decided(margin: Tensor, onward: Tensor) -> Tensor:
    """Margins on the side of what was written; rounding may set those at a tie on the other."""
    least = torch.finfo(margin.dtype).tiny
    return torch.where(onward, margin.clamp_min(least), margin.clamp_max(0))


def _check(name: str, network: CausalNetwork, cap: int, end: int | Sequence[int]) -> None:
    """Refuse a cap that is none, and an end token that the network cannot write.

    Raises:
        UsageError: naming it, and the remedy.
    """
    if not isinstance(cap, int) or isinstance(cap, bool) or cap < 1:
        raise UsageError(f"{name}: cap = {cap!r}: give a whole number of at least 1")
    ends = (end,) if isinstance(end, int) else tuple(end or ())
    if not ends:
        raise UsageError(f"{name}: there is no end token: give at least one")
    for one in ends:
        if not isinstance(one, int) or not 0 <= one < network.vocabulary:
            raise UsageError(
                f"{name}: the end token {one!r} is none of the {network.vocabulary} ids of the "
                "network: give that which it was trained to end with"
            )
    if len({*ends}) == network.vocabulary:
        raise UsageError(f"{name}: all {len(ends)} tokens end a text: leave one to write with")
