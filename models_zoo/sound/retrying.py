"""Whisper that decodes again, at higher temperatures, what is too repetitive or too unlikely."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from effattack.counting.tallies import Count, every, tally
from effattack.domains.tokens import PAD, lengths
from effattack.errors import UsageError
from effattack.models_zoo.generation.sampling import Sampled
from effattack.models_zoo.generation.steps import steps
from effattack.models_zoo.generation.writer import as_decided
from effattack.models_zoo.sound.listener import Listener
from effattack.models_zoo.sound.whisper import Suppressed, Whisper
from effattack.victim import Gate, Trace, Victim
from effattack.victim.leaf import Leaf

TEMPERATURES = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Of the retries, in turn."""


class Checks(NamedTuple):
    """What a text must pass, or it is decoded again; the values are the published ones."""

    ratio: float = 2.4
    """Most bytes of a text per byte that zlib makes of it."""
    likely: float = -1.0
    """Least log-probability of its tokens, on average."""

    def margin(self, ratios: Tensor, odds: Tensor) -> Tensor:
        """Positive where a text fails one of them; the ratio has no gradient."""
        return torch.tanh(torch.maximum(self.likely - odds, ratios - self.ratio))


class Tried(NamedTuple):
    """The texts of each recording, in turn."""

    texts: Tensor
    """(B, n, cap), padded; nothing where none was written."""
    odds: Tensor
    """(B, n): mean log-probabilities, -inf where none was written."""
    ratios: Tensor
    """(B, n): of compression."""

    def standing(self, checks: Checks) -> Tensor:
        """(B, cap): the last text where it passes; else the likeliest, of those not too repetitive
        if there are any."""
        made = lengths(self.texts.flatten(0, 1)).view(self.odds.shape) > 0
        last = made.sum(1) - 1
        fit = made & (self.ratios <= checks.ratio)
        among = torch.where(fit.any(1, keepdim=True), fit, made)
        best = self.odds.masked_fill(~among, -torch.inf).argmax(1)
        rows = torch.arange(len(last), device=last.device)
        passes = checks.margin(self.ratios[rows, last], self.odds[rows, last]) <= 0
        return self.texts[rows, torch.where(passes, last, best)]


class Retrying(Whisper):
    """Decodes greedily, then checks the text; what fails is drawn anew at the next temperature.

    Radford et al. (arXiv 2212.04356), section 4.5; as ``faster-whisper`` does it. The first text
    that passes stands; where none does, the likeliest of those that are not too repetitive. So a
    window may cost a text at the cap for each temperature.

    Gates are ``steps``, of all texts in turn, and ``retries``: unit k is reached where k + 1 texts
    were written, active where another one was. The push of a text that is too repetitive has no
    gradient, that of an unlikely one has. Each text looks at keys and values of its own.

    Divergences: one text is drawn per temperature (by default there the best of five), and what is
    held for silence is decoded again as anything else.

    Args:
        network: see :class:`Whisper`.
        temperatures: of the retries.
        checks: what a text must pass; None: the published values.
        seed: of what is drawn.
        settings: of a :class:`Whisper`.

    Raises:
        UsageError: without temperatures, with one that is none, or a cap of a single token.
    """

    def __init__(
        self,
        network: Listener,
        *,
        temperatures: Sequence[float] = TEMPERATURES,
        checks: Checks | None = None,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        super().__init__(network, **settings)
        if not temperatures or self.cap < 2:
            raise UsageError(
                f"{self.name}: {len(temperatures)} temperatures and a cap of {self.cap}: give at "
                "least one, and two tokens, or take a Whisper, which never decodes again"
            )
        self.checks = checks or Checks()
        drawn = (Sampled(self.choice.ends, self.domain, t) for t in temperatures)
        self.rules = [self.rule, *map(self.rule.by, drawn)]
        self.rules = self.seeded(seed).rules
        texts = len(self.rules)
        self.counts = {
            name: count._replace(ceiling=partial(_times, texts, count.ceiling))
            for name, count in self.counts.items()
        } | {"retries": Count("retry", partial(every, texts - 1))}
        self.max_macs = float(self.spent_on(torch.full((1, texts), self.cap)))

    def seeded(self, seed: int | str) -> Self:
        """The same under other chance."""
        found = copy.copy(self)
        drawn = (rule.seeded(f"{seed} {k}") for k, rule in enumerate(self.rules[1:]))
        found.rules = [self.rule, *drawn]
        return found

    def searched(self, seed: int) -> Victim:
        """Under a draw of the search's own."""
        return self.seeded(f"search {seed}")

    def ceiling(self, batch: Tensor, count: str = "macs") -> Tensor:
        """At the cap at every temperature."""
        if count != "macs":
            return super().ceiling(batch, count)
        return self.spent_on(torch.full((len(batch), len(self.rules)), self.cap)).to(batch.device)

    def spent_on(self, passes: Tensor) -> Tensor:
        """MACs (B,), float64, of the passes of each text (B, n), 0 where it was not written:

        S · token + S² · pair once, of the sound; keys, values and passes anew for each text.
        """
        price = self.network.sizes.price
        heard = torch.full_like(passes, self._longest)
        once = heard.double() * price.token + heard.double() ** 2 * price.pair
        each = self.network.price.macs(heard, passes) - once
        return once[:, 0] + torch.where(passes > 0, each, 0).sum(1)

    def forward(self, batch: Tensor) -> Tensor:
        """Recordings (B, 1, n) -> the texts that stand, (B, cap), the end token included."""
        return self._tried(batch, self.network.hear(batch)).standing(self.checks)

    def trace(self, batch: Tensor, leaf: Leaf | None = None) -> Trace:
        """Texts are written without gradients, then each is read once more."""
        heard = self.network.hear(batch)
        with torch.no_grad():
            tried = self._tried(batch, heard)
        turns, made = range(len(self.rules)), tried.odds.isfinite()
        read = [self._read(turn, batch, heard, tried.texts[:, turn]) for turn in turns]
        prompts, standing = self._asked(batch), tried.standing(self.checks)
        written = [self.stepped(prompts, tried.texts[:, k], read[k].pushes) for k in turns]
        failed = self.checks.margin(tried.ratios, torch.stack([turn.odds for turn in read], 1))
        passes = lengths(tried.texts.flatten(0, 1)).view(made.shape)
        left = torch.arange(len(turns) - 1, 0, -1, device=batch.device)
        retries = Gate(
            "retries",
            as_decided(failed[:, :-1], made[:, 1:]),
            made[:, 1:],
            made[:, :-1],
            cost=left * self.max_macs / len(turns),
        )
        near = failed.detach().abs().masked_fill(~made, torch.inf)
        return Trace(
            logits=standing,
            gates=(_in_turn(written), retries),
            macs=self.spent_on(passes),
            also=self._told(prompts, passes),
            aux={"capped": ~self.choice.is_end(standing).any(1)},
            slack=torch.cat([near, *(turn.slack[:, None] for turn in read)], 1).amin(1),
        )

    def _tried(self, batch: Tensor, heard: Tensor) -> Tried:
        """Texts, each where the one before fails; their work is told."""
        count, turns = len(batch), len(self.rules)
        texts = torch.full((count, turns, self.cap), PAD, device=batch.device)
        odds = torch.full((count, turns), -torch.inf, dtype=heard.dtype, device=batch.device)
        ratios, rows = torch.zeros_like(odds), torch.arange(count, device=batch.device)
        for turn, rule in enumerate(self.rules):
            tally("retries", len(rows) * (turn > 0))
            draws = rule.choice.draws(batch[rows], self.cap)
            texts[rows, turn], odds[rows, turn] = self._written(rule, heard[rows], draws)
            ratios[rows, turn] = self._ratios(texts[rows, turn]).to(odds)
            rows = rows[self.checks.margin(ratios[rows, turn], odds[rows, turn]) > 0]
            if not len(rows):
                break
        return Tried(texts, odds, ratios)

    def _written(self, rule: Suppressed, heard: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Texts (n, cap), and the means (n,) of their log-probabilities."""
        texts = torch.full((len(heard), self.cap), PAD, device=heard.device)
        total = heard.new_zeros(len(heard))
        for index, sound, _ in self._alike(heard):
            for step in steps(self.network, rule, *self.begun(sound, None), draws[index]):
                mine = index[step.running]
                texts[mine, step.number] = step.texts[:, -1]
                total[mine] += rule.likely(step.logits[:, None], step.texts)[:, 0]
        return texts, total / self._words(texts)

    def _read(self, turn: int, batch: Tensor, heard: Tensor, written: Tensor) -> Read:
        """Once more, at once, the texts (B, cap) of one turn; nothing where there is none."""
        rule, rows = self.rules[turn], (written != PAD).any(1).nonzero()[:, 0]
        pushes = torch.zeros(written.shape, dtype=heard.dtype, device=batch.device)
        odds, slack = pushes[:, 0], torch.full_like(pushes[:, 0], torch.inf)
        if not len(rows):
            return Read(pushes, odds, slack)
        logits, _ = self.continued(heard[rows], self.read_by(written[rows]))
        texts = written[rows, : logits.shape[1]]
        draws = rule.choice.draws(batch[rows], self.cap)[:, : logits.shape[1]]
        pushed, near = rule.weighed(logits, draws, texts)
        wide = pad(pushed.masked_fill(texts == PAD, 0), (0, self.cap - logits.shape[1]))
        mean = rule.likely(logits, texts).sum(1) / self._words(texts)
        near = near.masked_fill(texts == PAD, torch.inf).amin(1).to(slack)
        return Read(
            pushes.index_copy(0, rows, wide),
            odds.index_copy(0, rows, mean),
            slack.index_copy(0, rows, near),
        )

    def _words(self, texts: Tensor) -> Tensor:
        """(n,): what means are taken over, the tokens of a text and an end token, written or
        not."""
        return lengths(texts) + ~self.choice.is_end(texts).any(1)

    def _ratios(self, texts: Tensor) -> Tensor:
        """(n,): bytes of texts (n, cap) per byte that zlib makes of them."""
        said = [str(self.task.text(one)).strip().encode() for one in self.task.answer(texts)]
        return torch.tensor([len(text) / len(zlib.compress(text)) for text in said])

    def _told(self, prompts: Tensor, passes: Tensor) -> dict[str, Tensor]:
        """Counts (B,) of the passes of each text (B, n)."""
        price, made = self.network.price, passes > 0
        total, sizes = passes.sum(1).double(), self._bytes_each

        def of_all(each: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
            return torch.where(made, each(prompts[:, None], passes), 0).sum(1) * sizes

        return {
            "passes": total,
            "output_tokens": total,
            "cache_bytes": of_all(price.held),
            "moved_bytes": of_all(price.moved),
            "retries": made.sum(1).double() - 1,
        }


class Read(NamedTuple):
    """What the texts of one turn were drawn by, differentiable in the sound."""

    pushes: Tensor
    """(B, cap): margins of their steps."""
    odds: Tensor
    """(B,): means of their log-probabilities."""
    slack: Tensor
    """(B,)."""


def _in_turn(gates: Sequence[Gate]) -> Gate:
    """One gate with the units of all."""
    parts = {name: torch.cat([getattr(gate, name) for gate in gates], 1) for name in PARTS}
    return gates[0]._replace(**parts)


PARTS = ("margin", "active", "reached", "cost")


def _times(texts: int, ceiling: Callable[[Any], Tensor], batch: Tensor) -> Tensor:
    return texts * ceiling(batch)
