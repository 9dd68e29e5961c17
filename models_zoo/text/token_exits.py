"""Early exits of single tokens: every token of a prompt is tagged as soon as its tag is sure.

Token-level early exit with halt and copy, Li et al., "Accelerating BERT Inference for Sequence
Labeling via Early-Exit", ACL 2021 (arXiv 2105.13878): a token that has left keeps its state, which
the others go on looking at. Divergence: each token decides by its own confidence, not by that of a
window around it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effattack.domains import Tokens
from effattack.domains.tokens import lengths
from effattack.errors import UsageError
from effattack.models_zoo.criteria import Criterion, as_criterion
from effattack.models_zoo.text.encoder import Encoder, classifier, there
from effattack.tasks import Tags
from effattack.victim import Gate, Trace, Victim
from effattack.victim.leaf import Leaf


class TokenExits(Victim):
    """An encoder whose tokens leave one by one, each with its tag.

    In a block run the tokens that are still unsure: their queries, outputs and MLPs; keys and
    values are made of all tokens of a prompt in which one is unsure. One gate per internal
    classifier, ``exits.k.tokens``: a unit per token of the longest prompt, active where it goes on.

    Args:
        encoder: trained or not.
        domain: of the prompts.
        tags: of the classifiers.
        criterion: when a token leaves, by the logits of its block alone; a number is a confidence
            threshold.
        settings: ``data``.

    Raises:
        UsageError: if the criterion does not fit the blocks, or looks at several of them.
    """

    domain: Tokens

    def __init__(
        self,
        encoder: Encoder,
        domain: Tokens,
        *,
        tags: int,
        criterion: float | Criterion,
        name: str = "TokenExits",
        **settings: Any,
    ) -> None:
        super().__init__(name=name, family="early exit", domain=domain, task=Tags(tags), **settings)
        self.encoder = encoder
        width, depth = encoder.size.width, encoder.size.depth
        self.heads = nn.ModuleList(classifier(width, tags) for _ in range(depth))
        self.criterion = as_criterion(criterion, depth - 1)
        if self.criterion.earliest:
            raise UsageError(
                f"{self.criterion} counts blocks in a row: tokens leave by the logits of one"
            )
        self.max_macs = float(self._most(torch.tensor([domain.longest])))
        self.eval()

    def lift(self, batch: Tensor, places: Tensor) -> Leaf:
        return self.encoder.lift(batch, places)

    def ceiling(self, batch: Tensor, count: str = "macs") -> Tensor:
        return super().ceiling(batch, count) if count != "macs" else self._most(lengths(batch))

    def _most(self, sizes: Tensor) -> Tensor:
        return len(self.heads) * self._macs(sizes.double(), sizes.double())

    def _macs(self, running: Tensor, tokens: Tensor) -> Tensor:
        """(B,) float64: of one block and its classifier."""
        tokens = tokens * (running > 0)
        head = self.encoder.size.width * self.num_classes
        return self.encoder.block_macs(running, tokens) + running * head

    def forward(self, batch: Tensor) -> Tensor:
        outputs = torch.full(
            (*batch.shape, self.num_classes), -torch.inf, dtype=self.dtype, device=batch.device
        )
        for row, size in enumerate(lengths(batch).tolist()):
            outputs[row, :size] = self._one(batch[row : row + 1, :size])
        return outputs

    def _one(self, prompt: Tensor) -> Tensor:
        """Logits (n, tags) of the tokens of a prompt (1, n), each of the block that it left at."""
        x = self.encoder.read(prompt)
        logits = x.new_empty(x.shape[1], self.num_classes)
        running = torch.arange(x.shape[1], device=x.device)
        for k, (block, head) in enumerate(zip(self.encoder.blocks, self.heads, strict=True)):
            now = block(x[:, running], x)
            said = head(now)[0]
            x = x.index_copy(1, running, now)
            last = k == len(self.heads) - 1
            onward = self._margin(said, k) > 0 if not last else torch.zeros_like(running).bool()
            logits = logits.index_copy(0, running[~onward], said[~onward])
            running = running[onward]
            if not len(running):
                break
        return logits

    def _margin(self, logits: Tensor, k: int) -> Tensor:
        """Logits (..., tags) of block k -> (...), positive where a token goes on."""
        flat = logits.flatten(0, -2)[:, None]
        before = flat.expand(-1, k + 1, -1)
        return self.criterion.margin(before).view(logits.shape[:-1])

    def _gate(self, k: int, margin: Tensor, active: Tensor, reached: Tensor, cost: Tensor) -> Gate:
        """As many units as the longest prompt has tokens, in every batch."""
        behind = (0, self.domain.longest - margin.shape[1])
        margin, active, reached = (F.pad(part, behind) for part in (margin, active, reached))
        return Gate(f"exits.{k}.tokens", margin, active, reached, cost)

    def trace(self, batch: Tensor, leaf: Leaf | None = None) -> Trace:
        present, sizes = there(batch), lengths(batch).double()
        x = self.encoder.read(batch, leaf)
        running, macs = present, torch.zeros_like(sizes)
        outputs: Tensor | None = None
        gates, said = [], []
        for k, (block, head) in enumerate(zip(self.encoder.blocks, self.heads, strict=True)):
            x = torch.where(running[:, :, None], block(x, x, present), x)
            logits = head(x)
            said.append(logits)
            outputs = (
                logits if outputs is None else torch.where(running[:, :, None], logits, outputs)
            )
            macs = macs + self._macs(running.sum(1).double(), sizes)
            if k < len(self.heads) - 1:
                margin = torch.where(running, self._margin(logits, k), 0)
                onward = running & (margin > 0)
                cost = self._most(sizes) / sizes / len(self.heads) * (len(self.heads) - 1 - k)
                gates.append(self._gate(k, margin, onward, running, cost[:, None]))
                running = onward
        assert outputs is not None
        return Trace(
            logits=outputs.masked_fill(~present[:, :, None], -torch.inf),
            gates=tuple(gates),
            macs=macs,
            aux={"stage_tags": torch.stack(said, dim=2)},
        )
