"""A language model that thinks before it answers: what a prompt moves is how long."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from effattack.counting.tallies import Count
from effattack.domains.tokens import Tokens
from effattack.errors import UsageError
from effattack.models_zoo.generation.chain import ChainFirst
from effattack.models_zoo.generation.decoder import CausalNetwork
from effattack.models_zoo.generation.generator import Generator, Template
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
        _check(name, network, budget, answer_cap, marks, end)
        before, after = template or Template()
        around = Template(before, (*after, marks[0]))
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
        self.rule: ChainFirst = ChainFirst(
            self.choice, budget=budget, answer_cap=answer_cap, close=self.close
        )

    def trace(self, batch: Tensor, leaf: Leaf | None = None) -> Trace:
        """That of a generator, with the length of the chain and how it ended."""
        trace = super().trace(batch, leaf)
        chain = self.rule.thinking(trace.logits)
        forced, capped = self.rule.forced(chain).any(1), trace.aux["capped"]
        ends = {"chain_capped": forced, "answer_capped": capped, "capped": forced | capped}
        tokens = {"chain_tokens": chain.sum(1).double()}
        return trace._replace(also={**trace.also, **tokens}, aux={**trace.aux, **ends})


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
    if not isinstance(end, int):
        raise UsageError(f"{name}: end = {end!r}: give the one token that ends an answer")
    if len(marks) != 2:
        raise UsageError(
            f"{name}: marks = {marks!r}: give two tokens, one that opens the chain and one that "
            "closes it"
        )
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
