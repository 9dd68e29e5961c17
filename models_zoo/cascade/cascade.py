"""Cascades: a small model answers, and escalates to a larger one only when it is unsure.

TinySaver: Wang et al., "Tiny Models are the Computational Saver for Large Models", ECCV 2024
(arXiv 2403.17726). The saver's answer stands if its largest softmax probability is above the
threshold; else the base model runs from scratch.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from effattack.counting.macs import count_macs
from effattack.domains import Pixels
from effattack.errors import UsageError
from effattack.models_zoo.criteria import Criterion, as_criterion
from effattack.models_zoo.exits import criterion_trace
from effattack.victim import Trace, Victim
from effattack.victim.contract import set_mode
from effattack.victim.door import blank
from effattack.victim.structure import Models


class Cascade(Victim):
    """Your own classifiers, cheapest first; each hands on what it is unsure about.

    ``forward`` runs each model on the escalated part of the batch only. One gate per model but
    the last, ``escalate.k``: active where the image is handed on. The worst case costs more than
    the last model alone: every model before it has run, too.

    Args:
        models: classifiers (B, *input_shape) -> (B, classes), cheapest first.
        thresholds: probabilities (one, or one per model but the last); or a criterion of
            :mod:`effattack.models_zoo.criteria`.
        input_shape: (C, H, W) of one image.
        settings: ``name``, ``data``.

    Raises:
        UsageError: for fewer than two models, models that disagree on the classes, thresholds that
            are no probabilities, or a criterion that does not fit.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        thresholds: float | Sequence[float] | Criterion,
        input_shape: tuple[int, ...],
        *,
        name: str = "Cascade",
        **settings: Any,
    ) -> None:
        if len(models) < 2:
            raise UsageError("a cascade needs at least two models, cheapest first")
        criterion = as_criterion(thresholds, len(models) - 1)
        grey = blank(models[0], Pixels(input_shape), 1)
        macs, widths = [], []
        for model in models:
            set_mode(model, False)
            macs.append(count_macs(model, grey))
            with torch.no_grad():
                widths.append(model(grey).shape[-1])
        if len(set(widths)) != 1:
            raise UsageError(
                f"the models have {widths} classes: a cascade needs models of the same classes"
            )
        super().__init__(
            name=name,
            family="cascade",
            input_shape=input_shape,
            num_classes=widths[0],
            max_macs=sum(macs),
            dense_macs=macs[-1],
            **settings,
        )
        self.models = nn.ModuleList(models)
        self.eval()
        self.criterion = criterion
        self._cumulative_macs = list(accumulate(macs))

    def forward(self, images: Tensor) -> Tensor:
        logits = self.models[0](images.clone())  # a model may write into its input
        seen = logits[:, None]
        here = torch.arange(len(images), device=images.device)
        for model in self.models[1:]:
            onward = self.criterion.go_on(seen)
            if not onward.any():
                break
            here, seen = here[onward], seen[onward]
            answer = model(images[here])
            logits = logits.index_copy(0, here, answer)
            seen = torch.cat([seen, answer[:, None]], dim=1)
        return logits

    def trace(self, images: Tensor) -> Trace:
        stage_logits = torch.stack([model(images.clone()) for model in self.models], dim=1)
        return criterion_trace(
            self.criterion,
            stage_logits,
            names=self._gate_names(),
            cumulative_macs=self._cumulative_macs,
        )

    def structure(self) -> Models:
        return Models(
            tuple(self.models),
            self.criterion,
            self._gate_names(),
            tuple(map(float, self._cumulative_macs)),
        )

    def _gate_names(self) -> tuple[str, ...]:
        return tuple(f"escalate.{k}" for k in range(len(self.models) - 1))


class TinySaver(Cascade):
    """A cascade of two: the saver and the base model it saves.

    Args:
        saver, base: classifiers (B, *input_shape) -> (B, classes).
        threshold: t; see :func:`saver_threshold` for the paper's rule.
        input_shape: (C, H, W) of one image.
        settings: ``name``, ``data``.
    """

    def __init__(
        self,
        saver: nn.Module,
        base: nn.Module,
        threshold: float,
        input_shape: tuple[int, ...],
        *,
        name: str = "TinySaver",
        **settings: Any,
    ) -> None:
        super().__init__([saver, base], [threshold], input_shape, name=name, **settings)

    def _gate_names(self) -> tuple[str, ...]:
        return ("saver",)


def saver_threshold(saver_logits: Tensor, base_logits: Tensor, labels: Tensor) -> float:
    """TinySaver's rule, on held-out data: how sure must the saver be to match the base?

    t falls from 1 in steps of 0.001; at each, E is the set of images on which the saver's
    confidence exceeds t. The first t at which the saver is less accurate than the base on E is
    the threshold (one step past the match, as in the official ``exit_estimation.py``).

    Args:
        saver_logits, base_logits: (B, classes) on the same held-out images.
        labels: (B,).
    """
    confidence = saver_logits.softmax(1).amax(1)
    saver_right = saver_logits.argmax(1) == labels
    base_right = base_logits.argmax(1) == labels
    for step in range(1000, 0, -1):
        exited = confidence > step / 1000
        if saver_right[exited].sum() < base_right[exited].sum():
            return step / 1000
    return 0.001
