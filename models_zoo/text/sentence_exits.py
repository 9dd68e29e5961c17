"""Early exits of whole prompts: a classifier on the mean token after every block.

As DeeBERT and FastBERT do for BERT (Xin et al. 2020, arXiv 2004.12993; Liu et al. 2020,
arXiv 2004.02178); here with any :class:`~effattack.models_zoo.criteria.Criterion`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from effattack.domains import Tokens
from effattack.domains.tokens import lengths
from effattack.models_zoo.criteria import Criterion, as_criterion
from effattack.models_zoo.exits import first_exit
from effattack.models_zoo.text.encoder import Encoder, classifier, there
from effattack.victim import Gate, Trace, Victim
from effattack.victim.leaf import Leaf


class SentenceExits(Victim):
    """An encoder that answers as soon as a classifier is sure.

    ``forward`` groups prompts of equal length, so that nothing is padded, and drops those that have
    left before the next block. One gate per internal classifier, ``exits.k``.

    Args:
        encoder: trained or not.
        domain: of the prompts.
        classes: of the classifiers.
        criterion: when to stop; a number is a confidence threshold.
        settings: ``data``.

    Raises:
        UsageError: if the criterion does not fit the blocks.
    """

    def __init__(
        self,
        encoder: Encoder,
        domain: Tokens,
        *,
        classes: int,
        criterion: float | Sequence[float] | Criterion,
        name: str = "SentenceExits",
        **settings: Any,
    ) -> None:
        super().__init__(
            name=name, family="early exit", domain=domain, num_classes=classes, **settings
        )
        self.encoder = encoder
        width, depth = encoder.size.width, encoder.size.depth
        self.heads = nn.ModuleList(classifier(width, classes) for _ in range(depth))
        self.criterion = as_criterion(criterion, depth - 1)
        self.max_macs = float(self.leaving_macs(torch.tensor([domain.longest]))[0, -1])
        self.eval()

    def lift(self, batch: Tensor, places: Tensor) -> Leaf:
        return self.encoder.lift(batch, places)

    def ceiling(self, batch: Tensor, count: str = "macs") -> Tensor:
        if count != "macs":
            return super().ceiling(batch, count)
        return self.leaving_macs(lengths(batch))[:, -1]

    def leaving_macs(self, sizes: Tensor) -> Tensor:
        """(B,) lengths -> (B, stages) float64: MACs of leaving at each stage."""
        tokens = sizes.double()[:, None] + self.encoder.added
        head = self.encoder.size.width * self.num_classes
        stages = torch.arange(1, len(self.heads) + 1, device=sizes.device)
        return stages * (self.encoder.block_macs(tokens, tokens) + head)

    def forward(self, batch: Tensor) -> Tensor:
        sizes = lengths(batch)
        logits = torch.empty(len(batch), self.num_classes, dtype=self.dtype, device=batch.device)
        for size in sizes.unique().tolist():
            rows = (sizes == size).nonzero()[:, 0]
            logits = logits.index_copy(0, rows, self._alike(batch[rows, :size]))
        return logits

    def _alike(self, batch: Tensor) -> Tensor:
        """Answers to prompts of equal length, without padding."""
        x = self.encoder.read(batch)
        logits = x.new_empty(len(x), self.num_classes)
        here = torch.arange(len(x), device=x.device)
        seen = x.new_empty(len(x), 0, self.num_classes)
        for block, head in zip(self.encoder.blocks, self.heads, strict=True):
            x = block(x, x)
            seen = torch.cat([seen, head(x.mean(1))[:, None]], dim=1)
            if seen.shape[1] == len(self.heads):
                break
            onward = self.criterion.go_on(seen)
            leaving, staying = (~onward).nonzero()[:, 0], onward.nonzero()[:, 0]
            logits = logits.index_copy(0, here[leaving], seen[leaving, -1])
            if not len(staying):
                return logits
            here, seen, x = here[staying], seen[staying], x[staying]
        return logits.index_copy(0, here, seen[:, -1])

    def means(self, batch: Tensor, x: Tensor) -> Iterator[Tensor]:
        """What every classifier sees of prompts that were read as x: (B, width), block by block."""
        present = there(self.encoder.framed(batch))
        for block in self.encoder.blocks:
            x = block(x, x, present)
            yield (x * present[:, :, None]).sum(1) / present.sum(1, keepdim=True)

    def trace(self, batch: Tensor, leaf: Leaf | None = None) -> Trace:
        sizes = lengths(batch)
        means = self.means(batch, self.encoder.read(batch, leaf))
        logits = [head(mean) for head, mean in zip(self.heads, means, strict=True)]
        stages = torch.stack(logits, dim=1)
        so_far = [stages[:, : k + 1] for k in range(len(logits) - 1)]
        margins = [self.criterion.margin(seen) for seen in so_far]
        active, reached = first_exit([self.criterion.go_on(seen) for seen in so_far])
        spent, taken = self.leaving_macs(sizes), active.sum(1)
        gates = tuple(
            Gate(
                name=f"exits.{k}",
                margin=margin[:, None],
                active=active[:, k : k + 1],
                reached=reached[:, k : k + 1],
                cost=(spent[:, -1:] - spent[:, k : k + 1]),
                proxy=self.criterion.proxy,
                pushed=True,
            )
            for k, margin in enumerate(margins)
        )
        rows = torch.arange(len(batch), device=batch.device)
        return Trace(
            logits=stages[rows, taken],
            gates=gates[self.criterion.earliest :],
            macs=spent[rows, taken],
            stage_logits=stages,
        )
