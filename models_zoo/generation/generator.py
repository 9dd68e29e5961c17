"""A causal language model as a victim: what a prompt moves is how much is written."""

from __future__ import annotations

from torch import Tensor

from effattack.domains.tokens import Tokens
from effattack.errors import UsageError
from effattack.models_zoo.generation.decoder import Memory
from effattack.models_zoo.generation.writer import Template, Writer
from effattack.victim.leaf import Leaf

__all__ = ["Generator", "Template"]


class Generator(Writer):
    """Writes behind what it has read: its first pass reads the prompt, at once.

    Arguments are those of a :class:`~effattack.models_zoo.generation.writer.Writer`; tokens of a
    prompt and of a text are of one vocabulary and share the context.
    """

    domain: Tokens

    def begun(self, batch: Tensor, leaf: Leaf | None) -> tuple[Tensor, Memory]:
        return self._prompted(batch, leaf), None

    def _expect_fit(self, longest: int) -> None:
        network, domain = self.network, self.domain
        if domain.vocabulary != network.vocabulary:
            raise UsageError(
                f"{self.name}: the tokenizer has {domain.vocabulary} ids, the network "
                f"{network.vocabulary}: give the network's own tokenizer"
            )
        self.template.check(self.name, domain.vocabulary)
        if (needed := longest + self.cap - 1) > network.context:
            raise UsageError(
                f"{self.name}: prompts of {domain.longest} tokens, a template of "
                f"{len(self.template)} and a cap of {self.cap} need a context of {needed}, the "
                f"network has {network.context}: lower longest or cap"
            )
