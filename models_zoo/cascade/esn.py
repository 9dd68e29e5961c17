"""ESN: TinySaver's saver as the first exit of a base model that has exits of its own.

Wang et al., "Tiny Models are the Computational Saver for Large Models", ECCV 2024
(arXiv 2403.17726), the exit sequence network. The saver's logits are the first exit. Behind every
base stage but the last, the features so far, the saver's first, are read as a sequence, and what
comes out corrects the saver's logits. Saver and base stay as they are.
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
from effattack.models_zoo.cascade.exit_sequence import ExitSequence
from effattack.models_zoo.criteria import Criterion, as_criterion
from effattack.models_zoo.exits import criterion_trace
from effattack.victim import Trace, Victim
from effattack.victim.door import blank
from effattack.victim.structure import Exits


class ESN(Victim):
    """Your own saver and base, and the exits that join them.

    ``forward`` runs the saver; then, for the images still in doubt only, the base stage by stage
    with an exit behind each, and in the end the base's own head. Each position of the sequence is
    computed once: its keys and values are kept. The gates are ``saver`` and ``exits.k``, active
    where the image goes on. The worst case costs more than the base alone.

    Args:
        saver: features and head of the small model: images -> (B, C, H, W) -> (B, classes).
        stages: of the base, in a row; the first maps the images, each gives (B, C, H, W).
        head: of the base, features of the last stage -> (B, classes).
        criterion: when the saver and each exit answer: probabilities (one, or one per stage, the
            saver's first), or a criterion of :mod:`effattack.models_zoo.criteria`.
        input_shape: (C, H, W) of one image.
        width: d, of the sequence; 8 to 512 in the paper.
        layers: of the transformer; up to 3 in the paper. The last has no feed-forward network.
        heads: of its attention.
        settings: ``name``, ``data``.

    Raises:
        UsageError: for fewer than two stages, a width that the heads do not divide, models that
            disagree on the classes, or a criterion that does not fit.
    """

    def __init__(
        self,
        saver: tuple[nn.Module, nn.Module],
        stages: Sequence[nn.Module],
        head: nn.Module,
        criterion: float | Sequence[float] | Criterion,
        input_shape: tuple[int, ...],
        *,
        width: int = 32,
        layers: int = 2,
        heads: int = 8,
        name: str = "ESN",
        **settings: Any,
    ) -> None:
        if len(stages) < 2:
            raise UsageError(f"{len(stages)} base stages: an exit needs a stage before and after")
        if heads < 1 or width < 1 or width % heads:
            raise UsageError(f"width {width} does not split into {heads} heads: use a multiple")
        criterion = as_criterion(criterion, len(stages))
        grey = blank(saver[0], Pixels(input_shape), 1)
        saver_macs, saver_shapes = _measure(saver, grey)
        base_macs, base_shapes = _measure([*stages, head], grey)
        classes = saver_shapes[-1][1], base_shapes[-1][1]
        if classes[0] != classes[1]:
            raise UsageError(
                f"saver and base have {classes} classes: ESN needs models of the same classes"
            )
        channels = [saver_shapes[0][1], *(shape[1] for shape in base_shapes[: len(stages) - 1])]
        sequence = ExitSequence(channels, classes[0], width, layers, heads)
        spent = [sum(saver_macs), base_macs[0] + sequence.macs(0) + sequence.macs(1)]
        spent += [base_macs[k] + sequence.macs(k + 1) for k in range(1, len(stages) - 1)]
        spent += [sum(base_macs[-2:])]
        super().__init__(
            name=name,
            family="cascade",
            input_shape=input_shape,
            num_classes=classes[0],
            max_macs=sum(spent),
            dense_macs=sum(base_macs),
            **settings,
        )
        self.saver = nn.ModuleList(saver)
        self.stages, self.head = nn.ModuleList(stages), head
        self.sequence = sequence.to(grey)
        self.steps = nn.ModuleList([_Saving(self), *(_Step(self, k) for k in range(len(stages)))])
        self.criterion = criterion
        self._cumulative_macs = list(accumulate(spent))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        carried = self.steps[0](images)
        logits = carried[0]
        seen = logits[:, None]
        here = torch.arange(len(images), device=images.device)
        for step in self.steps[1:]:
            onward = self.criterion.go_on(seen)
            if not onward.any():
                break
            here, seen = here[onward], seen[onward]
            carried = step(tuple(part[onward] for part in carried))
            seen = torch.cat([seen, carried[0][:, None]], dim=1)
            logits = logits.index_copy(0, here, carried[0])
        return logits

    def trace(self, images: Tensor) -> Trace:
        return criterion_trace(
            self.criterion,
            self.stage_logits(images),
            names=self._gate_names(),
            cumulative_macs=self._cumulative_macs,
        )

    def structure(self) -> Exits:
        heads = tuple(_Answer() for _ in self.steps)
        costs = tuple(map(float, self._cumulative_macs))
        return Exits(tuple(self.steps), heads, self.criterion, self._gate_names(), costs)

    def _gate_names(self) -> tuple[str, ...]:
        return ("saver", *(f"exits.{k}" for k in range(len(self.stages) - 1)))

    def stage_logits(self, images: Tensor) -> Tensor:
        """(B, stages + 1, classes): saver, exits, base."""
        saved, features = self.saver[0](images.clone()), [images]
        for stage in self.stages:
            features.append(stage(features[-1].clone()))
        first = self.saver[1](saved)[:, None]
        exits = first + self.sequence([saved, *features[1:-1]])
        return torch.cat([first, exits, self.head(features[-1])[:, None]], dim=1)


class _Saving(nn.Module):
    """The first step: images -> what all steps carry, (answer, saver's logits, features, past).

    Before the sequence begins, its past is the saver's features. Borrows the ESN, as do the others.
    """

    def __init__(self, esn: ESN) -> None:
        super().__init__()
        self._borrowed = (esn,)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        body, head = self._borrowed[0].saver
        saved = body(images.clone())  # it may write into its input
        first = head(saved)
        return first, first, images, saved


class _Step(nn.Module):
    """One more stage of the base, and the exit behind it; the last one asks the base's head."""

    def __init__(self, esn: ESN, stage: int) -> None:
        super().__init__()
        self._borrowed = (esn,)
        self.stage = stage

    def forward(self, carried: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (esn,), k = self._borrowed, self.stage
        _, first, features, *past = carried
        features = esn.stages[k](features)
        if k == len(esn.stages) - 1:
            return esn.head(features), first, features
        if k == 0:
            _, past = esn.sequence.states(0, past, esn.sequence.nothing(first))
        state, past = esn.sequence.states(k + 1, [features], past)
        return first + esn.sequence.exits[k](state[:, 0]), first, features, *past


class _Answer(nn.Module):
    def forward(self, carried: tuple[Tensor, ...]) -> Tensor:
        return carried[0]


def _measure(modules: Sequence[nn.Module], x: Tensor) -> tuple[list[int], list[torch.Size]]:
    """MACs and output shape of each of some modules in a row, for one image."""
    macs, shapes = [], []
    for module in modules:
        macs.append(count_macs(module.eval(), x))
        with torch.no_grad():
            x = module(x)
        shapes.append(x.shape)
    return macs, shapes
