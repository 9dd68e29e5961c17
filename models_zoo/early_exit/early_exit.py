"""Early exits: a network whose internal classifiers may answer before the last layer does.

The confidence rule is that of Kaya et al., "Shallow-Deep Networks" (SDN), ICML 2019
(arXiv 1810.07052): leave at the first classifier whose largest softmax probability reaches the
threshold; if none does, the last one answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from effattack.errors import UsageError
from effattack.measure.macs import count_macs
from effattack.models_zoo.exits import Confidence, chain_trace
from effattack.victim import Trace, Victim


class EarlyExit(Victim):
    """Your own stages and classifiers, run until one of them is sure.

    ``forward`` drops the images that have left from the batch before the next stage. One gate
    per internal classifier, ``exits.k``: active where the image goes on past it.

    Args:
        stages: modules in a row; stage k maps the features of stage k - 1 (stage 0: the images).
        heads: one classifier per stage, features -> logits; the last is the final classifier.
        criterion: has ``margin(stage_logits) -> (B,)``; a number means ``Confidence(number)``.
        input_shape: (C, H, W) of one image.
        settings: ``name``, ``data``.

    Raises:
        UsageError: if stages and heads do not pair up or disagree on the classes.
    """

    def __init__(
        self,
        stages: Sequence[nn.Module],
        heads: Sequence[nn.Module],
        criterion: float | Confidence,
        input_shape: tuple[int, ...],
        *,
        name: str = "EarlyExit",
        **settings: Any,
    ) -> None:
        if len(stages) != len(heads) or len(stages) < 2:
            raise UsageError(
                f"{len(stages)} stages and {len(heads)} heads: give at least two stages and one "
                "head for each (the last one is the final classifier)"
            )
        stage_macs, head_macs, widths = measure_stages(stages, heads, input_shape)
        if len(set(widths)) != 1:
            raise UsageError(f"the heads have {widths} classes: they must agree")
        spent = [a + b for a, b in zip(accumulate(stage_macs), accumulate(head_macs), strict=True)]
        super().__init__(
            name=name,
            family="early exit",
            input_shape=input_shape,
            num_classes=widths[0],
            max_macs=spent[-1],
            dense_macs=sum(stage_macs) + head_macs[-1],
            **settings,
        )
        self.stages = nn.ModuleList(stages).eval()
        self.heads = nn.ModuleList(heads).eval()
        self.criterion = Confidence(criterion) if isinstance(criterion, int | float) else criterion
        self._cumulative_macs = spent

    def forward(self, images: Tensor) -> Tensor:
        logits = images.new_empty(len(images), self.num_classes)
        here = torch.arange(len(images), device=images.device)
        features, seen = images, images.new_empty(len(images), 0, self.num_classes)
        for k, (stage, head) in enumerate(zip(self.stages, self.heads, strict=True)):
            features = stage(features)
            seen = torch.cat([seen, head(features)[:, None]], dim=1)
            if k == len(self.stages) - 1:
                return logits.index_copy(0, here, seen[:, -1])
            onward = self.criterion.margin(seen) > 0
            leaving = ~onward
            logits = logits.index_copy(0, here[leaving], seen[leaving, -1])
            if not onward.any():
                return logits
            here, features, seen = here[onward], features[onward], seen[onward]
        raise AssertionError("the last stage returns")

    def trace(self, images: Tensor) -> Trace:
        features, logits = images, []
        for stage, head in zip(self.stages, self.heads, strict=True):
            features = stage(features)
            logits.append(head(features))
        stage_logits = torch.stack(logits, dim=1)
        internal = range(len(self.stages) - 1)
        return chain_trace(
            stage_logits,
            margins=[self.criterion.margin(stage_logits[:, : k + 1]) for k in internal],
            names=[f"exits.{k}" for k in internal],
            cumulative_macs=self._cumulative_macs,
        )


def measure_stages(
    stages: Sequence[nn.Module], heads: Sequence[nn.Module], input_shape: tuple[int, ...]
) -> tuple[list[int], list[int], list[int]]:
    """MACs of each stage and each head, and the classes of each head, for one image."""
    stage_macs, head_macs, widths = [], [], []
    with torch.no_grad():
        parameter = next(stages[0].parameters(), torch.empty(0))
        features = parameter.new_zeros(1, *input_shape)
        for stage, head in zip(stages, heads, strict=True):
            stage.eval(), head.eval()
            stage_macs.append(count_macs(stage, features))
            features = stage(features)
            head_macs.append(count_macs(head, features))
            widths.append(head(features).shape[-1])
    return stage_macs, head_macs, widths
