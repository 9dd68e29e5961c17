"""A causal language model as a victim: what a prompt moves is how much is written."""

from __future__ import annotations

import copy
from functools import partial
from typing import NamedTuple, Self

import torch
from torch import Tensor

from effattack.counting.tallies import Count, tally
from effattack.domains.tokens import PAD, Tokens, lengths
from effattack.errors import UsageError
from effattack.models_zoo.generation.choice import Greedy
from effattack.models_zoo.generation.decoder import CausalNetwork, Memory
from effattack.models_zoo.generation.sampling import Sampled
from effattack.tasks import Text
from effattack.victim import Gate, Trace, Victim
from effattack.victim.leaf import Leaf


class Template(NamedTuple):
    """The tokens that stand around what a user writes."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.before) + len(self.after)


class Chosen(NamedTuple):
    """How the steps of texts were chosen, (B, cap) each."""

    margin: Tensor
    """Positive where it was written on."""
    slack: Tensor
    """How far the choice was from another one."""
    onward: Tensor
    """bool: it was decided to write on."""
    free: Tensor
    """bool: there was something to decide."""
    last: Tensor
    """The most passes that there can be behind this step, all before included."""


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
        return self._written(batch, None)

    def trace(self, batch: Tensor, leaf: Leaf | None = None) -> Trace:
        """What was written without gradients is read again, at once, with them."""
        with torch.no_grad():
            written = self._written(batch, leaf)
        logits = self._read_again(batch, written, leaf)
        draws = self.choice.draws(batch, self.cap)
        passes, chosen = lengths(written), self._chosen(logits, draws, written)
        prompts, sizes = self._asked(batch), self._bytes_each
        price, steps = self.network.price, torch.arange(1, self.cap, device=batch.device)
        most = price.macs(prompts[:, None], chosen.last[:, :-1], self.cached)
        spent = price.macs(prompts[:, None], steps, self.cached)
        gate = Gate(
            "steps",
            _as_decided(chosen.margin, chosen.onward)[:, :-1],
            chosen.onward[:, :-1],
            chosen.free[:, :-1],
            cost=most - spent,
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
            aux={"capped": (written != self.choice.end).all(1)},
            slack=chosen.slack.masked_fill(written == PAD, torch.inf).amin(1),
        )

    def _choose(self, logits: Tensor, draws: Tensor, before: Tensor) -> Tensor:
        """The next tokens (n,) of texts (n, steps), of logits (n, vocabulary) and draws (n,)."""
        return self.choice.choose(logits, draws)

    def _goes_on(self, texts: Tensor) -> Tensor:
        """Texts (n, steps), each of which was just written on -> (n,): whether a token follows."""
        return (texts[:, -1] != self.choice.end) & (texts.shape[1] < self.cap)

    def _chosen(self, logits: Tensor, draws: Tensor, written: Tensor) -> Chosen:
        """What :meth:`_choose` did at every step of texts (B, cap)."""
        happened = written != PAD
        return Chosen(
            self.choice.margin(logits, draws),
            self.choice.slack(logits.detach(), draws),
            happened & (written != self.choice.end),
            happened,
            torch.full_like(written, self.cap),
        )

    def _written(self, batch: Tensor, leaf: Leaf | None) -> Tensor:
        """Prompts (B, L), rows of a leaf in their places -> (B, cap); prompts of one length
        together."""
        written = torch.full((len(batch), self.cap), PAD, device=batch.device)
        draws, sizes = self.choice.draws(batch, self.cap), lengths(batch)
        for size in sizes.unique().tolist():
            index = (sizes == size).nonzero()[:, 0]
            part = None if leaf is None else Leaf(leaf.rows[index], leaf.places[index])
            rows = self._prompted(batch[index, :size], part)
            written[index] = self._write(rows, draws[index])
        return written

    def _write(self, rows: Tensor, draws: Tensor) -> Tensor:
        """Prompts of one length as rows (B, P, width) -> (B, cap)."""
        written = torch.full((len(rows), self.cap), PAD, device=rows.device)
        running = torch.arange(len(rows), device=rows.device)
        memory: Memory = None
        for step in range(self.cap):
            state, kept = self.network.read(rows, memory)
            logits, before = self.network.draw(state[:, -1]), written[running, :step]
            words = self._choose(logits, draws[running, step], before)
            tally("passes", len(running))
            tally("output_tokens", len(running))
            written[running, step] = words
            left = self._goes_on(written[running, : step + 1]).nonzero()[:, 0]
            if self.cached:
                ended = len(running) - len(left)
                tally("cache_bytes", self.network.stored(kept) // len(running) * ended)
            if not len(left):
                break
            running, new = running[left], self.network.lift(words[left])[:, None]
            if self.cached:
                memory, rows = self.network.rows_of(kept, left), new
            else:
                rows = torch.cat([rows[left], new], 1)
        return written

    def _read_again(self, batch: Tensor, written: Tensor, leaf: Leaf | None) -> Tensor:
        """(B, cap, vocabulary): logits of every step, of one pass over prompts and texts."""
        prompts = self._asked(batch)
        rows = self._prompted(batch, leaf)
        place = torch.arange(self.cap, device=batch.device)
        texts = self.network.lift(written[:, :-1].clamp_min(0))
        rows = torch.cat([rows, torch.zeros_like(texts)], 1)
        behind = (prompts[:, None] + place[:-1])[:, :, None].expand_as(texts)
        state, _ = self.network.read(rows.scatter(1, behind, texts))
        drawn_at = (prompts[:, None] - 1 + place)[:, :, None].expand(-1, -1, state.shape[2])
        return self.network.draw(state.gather(1, drawn_at))

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
