"""A language model that thinks before it answers: what a prompt moves is how long."""

from __future__ import annotations

from functools import partial
from typing import Any, Self

import torch
from torch import Tensor

from effattack.counting.tallies import Count, tally
from effattack.domains.tokens import PAD, Tokens
from effattack.errors import UsageError
from effattack.models_zoo.generation.decoder import CausalNetwork
from effattack.models_zoo.generation.generator import Generator, Template
from effattack.models_zoo.generation.writer import Decided
from effattack.tasks import Conclusion
from effattack.victim import Trace
from effattack.victim.leaf import Leaf


class Reasoner(Generator):
    """Writes a chain of thought up to its close mark, then the answer up to the end token.

    Both have a limit of their own. When the chain's budget is spent, the close mark is written
    whatever the network says, as services with a thinking budget do; an answer stops at its cap.
    Within the chain the end token is not drawn: a chain ends by its mark. The open mark stands
    behind the template, as chat templates of such models set it.

    The gate ``steps`` has a unit per token but the last possible one. In the chain it is active
    where the token was not the close mark, in the answer where it was not the end token; a mark
    that was forced, and the step at which a cap stops, are not reached. The count ``chain_tokens``
    is the length of the chain with its close mark; the answer alone is what agreement is asked of.

    ``trace().aux`` says how texts ended: ``chain_capped`` where the budget ended the chain,
    ``answer_capped`` where the cap ended the answer, and ``capped`` where either did.

    Args:
        network: reads tokens and draws logits.
        domain: what users write.
        budget: most tokens of the chain, the close mark included.
        answer_cap: most tokens of the answer, the end token included; both together are the cap.
        marks: the tokens that open and close the chain.
        end: the end token.
        template: what stands around the user's part, without the open mark.
        temperature, seed: as of a :class:`Generator`.
        settings: further ones of a :class:`Generator`.

    Raises:
        UsageError: for a budget, a cap or marks that do not fit the network.
    """

    def __init__(
        self,
        network: CausalNetwork,
        domain: Tokens,
        *,
        budget: int,
        answer_cap: int,
        marks: tuple[int, int],
        end: int,
        template: Template | None = None,
        temperature: float | None = None,
        seed: int = 0,
        name: str = "Reasoner",
        **settings: Any,
    ) -> None:
        before, after = template or Template()
        around = Template(before, (*after, marks[0]))
        _check(name, network, budget, answer_cap, marks, end)
        _expect_room(name, network, domain.longest + len(around), budget, answer_cap)
        super().__init__(
            network,
            domain,
            cap=budget + answer_cap,
            end=end,
            template=around,
            temperature=temperature,
            seed=seed,
            name=name,
            **settings,
        )
        self.budget, self.answer_cap, self.close = budget, answer_cap, marks[1]
        self.task = Conclusion(self.close, self.cap, end, domain.tokenizer)
        self.counts["chain_tokens"] = Count("chain token", partial(_spent, budget))
        self.thought = self.choice.ended_by(self.close)

    def seeded(self, seed: int | str) -> Self:
        """The same under other chance; itself where nothing is drawn."""
        found = super().seeded(seed)
        found.thought = self.thought.seeded(seed)
        return found

    def trace(self, batch: Tensor, leaf: Leaf | None = None) -> Trace:
        """That of a generator, with the length of the chain and how it ended."""
        trace = super().trace(batch, leaf)
        chain = self._thinking(trace.logits)
        forced, capped = self._forced(chain).any(1), trace.aux["capped"]
        ends = {"chain_capped": forced, "answer_capped": capped, "capped": forced | capped}
        tokens = {"chain_tokens": chain.sum(1).double()}
        return trace._replace(also={**trace.also, **tokens}, aux={**trace.aux, **ends})

    def _choose(self, logits: Tensor, draws: Tensor, before: Tensor) -> Tensor:
        chain = ~(before == self.close).any(1)
        tally("chain_tokens", chain)
        found = self.choice.choose(logits, draws)
        if before.shape[1] == self.budget - 1:
            return torch.where(chain, self.close, found)
        return torch.where(chain, self.thought.choose(self._unended(logits), draws), found)

    def _goes_on(self, texts: Tensor) -> Tensor:
        answer = (~self._thinking(texts)).sum(1)
        return (texts[:, -1] != self.choice.end) & (answer < self.answer_cap)

    def _weighed(self, logits: Tensor, draws: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        thinking, unended = self._thinking(texts), self._unended(logits)
        chain, forced = (
            steps[:, -logits.shape[1] :] for steps in (thinking, self._forced(thinking))
        )
        margin, slack = super()._weighed(logits, draws, texts)
        thought = self.thought.slack(unended.detach(), draws).masked_fill(forced, torch.inf)
        return (
            torch.where(chain, self.thought.margin(unended, draws), margin),
            torch.where(chain, thought, slack),
        )

    def _decided(self, written: Tensor) -> Decided:
        plain, chain = super()._decided(written), self._thinking(written)
        answer = ~chain & (written != PAD)
        free = plain.free & ~self._forced(chain) & (answer.cumsum(1) < self.answer_cap)
        last = chain.sum(1, keepdim=True) + self.answer_cap
        return Decided(
            plain.onward & ~(chain & (written == self.close)) & free,
            free,
            torch.where(free & ~chain, last, self.cap),
        )

    def _thinking(self, texts: Tensor) -> Tensor:
        """Texts (n, steps) -> (n, steps) bool: tokens of the chain, its close mark included."""
        closes = (texts == self.close).long()
        return (closes.cumsum(1) - closes == 0) & (texts != PAD)

    def _forced(self, chain: Tensor) -> Tensor:
        """Same shape, bool: the step at which the budget is spent, where the chain came to it."""
        place = torch.arange(chain.shape[1], device=chain.device)
        return chain & (place == self.budget - 1)

    def _unended(self, logits: Tensor) -> Tensor:
        """Logits with that of the end token at -inf."""
        return self.choice.without_end(logits)


def _spent(budget: int, batch: Tensor) -> Tensor:
    return torch.full((len(batch),), float(budget), dtype=torch.float64, device=batch.device)


def _check(
    name: str, network: CausalNetwork, budget: int, answer: int, marks: tuple[int, int], end: int
) -> None:
    """Refuse limits that are none, and marks that the network cannot write.

    Raises:
        UsageError: naming what, and the remedy.
    """
    for what, most in {"budget": budget, "answer_cap": answer}.items():
        if not isinstance(most, int) or isinstance(most, bool) or most < 1:
            raise UsageError(f"{name}: {what} = {most!r}: give a whole number of at least 1")
    for what, mark in zip(("opens", "closes"), marks, strict=True):
        if not 0 <= mark < network.vocabulary:
            raise UsageError(
                f"{name}: the mark {mark} that {what} the chain is none of the "
                f"{network.vocabulary} ids of the network: give that which it was trained with"
            )
    if len({*marks, end}) < 3:
        raise UsageError(
            f"{name}: the marks {marks[0]} and {marks[1]} and the end token {end} must be three "
            "different tokens"
        )


def _expect_room(name: str, network: CausalNetwork, prompt: int, budget: int, answer: int) -> None:
    """Refuse limits that do not fit behind the longest prompt.

    Raises:
        UsageError: naming the context that they need.
    """
    if (needed := prompt + budget + answer - 1) > network.context:
        raise UsageError(
            f"{name}: prompts of {prompt} tokens, template and open mark included, a budget of "
            f"{budget} and answers of {answer} need a context of {needed}, the network has "
            f"{network.context}: lower longest, budget or answer_cap"
        )
