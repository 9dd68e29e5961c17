"""Early exits: a network whose internal classifiers may answer before the last layer does.

The confidence rule is that of Kaya et al., "Shallow-Deep Networks" (SDN), ICML 2019
(arXiv 1810.07052): leave at the first classifier whose largest softmax probability reaches the
threshold; if none does, the last one answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from effattack.counting.macs import count_macs
from effattack.domains import Domain, Pixels
from effattack.errors import UsageError
from effattack.models_zoo.criteria import Criterion, as_criterion
from effattack.models_zoo.exits import criterion_trace
from effattack.models_zoo.official import load_official
from effattack.victim import Trace, Victim
from effattack.victim.contract import either, set_mode
from effattack.victim.door import blank, example_of
from effattack.victim.structure import Exits, last


class EarlyExit(Victim):
    """Your own stages and classifiers, run until one of them is sure.

    ``forward`` drops the images that have left from the batch before the next stage. One gate
    per internal classifier, ``exits.k``: active where the image goes on past it.

    Args:
        stages: modules in a row; stage k maps the features of stage k - 1 (stage 0: the images).
            Features are a tensor, or a list of tensors (multi-scale networks).
        heads: one classifier per stage, features -> logits; the last is the final classifier.
        criterion: decides when to leave: :class:`~effattack.models_zoo.criteria.Confidence`,
            ``Entropy``, ``Margin``, ``Patience`` or your own subclass of ``Criterion``; numbers
            (one, or one per internal classifier) are confidence thresholds.
        input_shape: (C, H, W) of one image.
        domain: what inputs are, in place of ``input_shape``, where they are no images.
        mean, std: normalisation per channel; identity by default.
        settings: ``data``, ``counts``.

    Raises:
        UsageError: if stages and heads do not pair up or disagree on the classes, or the criterion
            does not fit them.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        stages: Sequence[nn.Module],
        heads: Sequence[nn.Module],
        criterion: float | Sequence[float] | Criterion,
        input_shape: tuple[int, ...] | None = None,
        *,
        domain: Domain | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        name: str = "EarlyExit",
        **settings: Any,
    ) -> None:
        if len(stages) != len(heads) or len(stages) < 2:
            raise UsageError(
                f"{len(stages)} stages and {len(heads)} heads: give at least two stages and one "
                "head for each (the last one is the final classifier)"
            )
        criterion = as_criterion(criterion, len(stages) - 1)
        domain = either(name, "input_shape", input_shape, "domain", domain, Pixels)
        stage_macs, head_macs, widths = measure_stages(stages, heads, domain)
        if len(set(widths)) != 1:
            raise UsageError(f"the heads have {widths} classes: they must agree")
        spent = [a + b for a, b in zip(accumulate(stage_macs), accumulate(head_macs), strict=True)]
        super().__init__(
            name=name,
            family="early exit",
            domain=domain,
            num_classes=widths[0],
            max_macs=spent[-1],
            dense_macs=sum(stage_macs) + head_macs[-1],
            **settings,
        )
        self.stages, self.heads = nn.ModuleList(stages), nn.ModuleList(heads)
        self.eval()
        self.criterion = criterion
        like = example_of(nn.ModuleList([*stages, *heads]))
        for key, given, identity in (("mean", mean, 0.0), ("std", std, 1.0)):
            values = torch.tensor([identity] if given is None else list(given)).to(like)
            values = values.view(-1, *(1,) * (len(domain.shape) - 1))
            self.register_buffer(key, values, persistent=False)
        self._cumulative_macs = spent

    def forward(self, images: Tensor) -> Tensor:
        logits = images.new_empty(len(images), self.num_classes)
        here = torch.arange(len(images), device=images.device)
        features = (images - self.mean) / self.std
        seen = images.new_empty(len(images), 0, self.num_classes)
        for k, (stage, head) in enumerate(zip(self.stages, self.heads, strict=True)):
            features = stage(features)
            seen = torch.cat([seen, head(features)[:, None]], dim=1)
            if k == len(self.stages) - 1:
                break
            onward = self.criterion.go_on(seen)
            staying = onward.nonzero()[:, 0]
            if 0 < len(staying) == len(here):
                continue
            leaving = (~onward).nonzero()[:, 0]
            logits = logits.index_copy(0, here[leaving], seen[leaving, -1])
            if not len(staying):
                return logits
            here, seen = here[staying], seen[staying]
            features = _each(features, itemgetter(staying))
        return logits.index_copy(0, here, self.unsure(seen))

    def trace(self, images: Tensor) -> Trace:
        features, logits = (images - self.mean) / self.std, []
        for stage, head in zip(self.stages, self.heads, strict=True):
            features = _each(stage(features), Tensor.clone)
            logits.append(head(features))
            features = _each(features, Tensor.clone)  # a stage may write into what gradients need
        stage_logits = torch.stack(logits, dim=1)
        return criterion_trace(
            self.criterion,
            stage_logits,
            names=self._gate_names(),
            cumulative_macs=self._cumulative_macs,
            unsure=self.unsure(stage_logits),
        )

    def structure(self) -> Exits:
        return Exits(
            stages=tuple(self.stages),
            heads=tuple(self.heads),
            criterion=self.criterion,
            gates=self._gate_names(),
            costs=tuple(map(float, self._cumulative_macs)),
            mean=self.mean,
            std=self.std,
            unsure=self.unsure,
        )

    def _gate_names(self) -> tuple[str, ...]:
        return tuple(f"exits.{k}" for k in range(len(self.stages) - 1))

    def unsure(self, stage_logits: Tensor) -> Tensor:
        """The answer of images that left nowhere: (B, stages, classes) -> (B, classes)."""
        return last(stage_logits)


def measure_stages(
    stages: Sequence[nn.Module], heads: Sequence[nn.Module], domain: Domain
) -> tuple[list[int], list[int], list[int]]:
    """MACs of each stage and each head, and the classes of each head, for one input.

    Raises:
        UsageError: where a size of the inputs is free.
    """
    if None in domain.shape:
        raise UsageError(
            f"{domain.nouns} of shape {domain.shape} cost as many MACs as they are large: give "
            "stages in a row a domain of one size"
        )
    stage_macs, head_macs, widths = [], [], []
    with torch.no_grad():
        features = blank(nn.ModuleList([*stages, *heads]), domain, 1)
        for stage, head in zip(stages, heads, strict=True):
            for part in (stage, head):
                set_mode(part, False)
            stage_macs.append(count_macs(stage, features))
            features = stage(features)
            head_macs.append(count_macs(head, features))
            widths.append(head(features).shape[-1])
    return stage_macs, head_macs, widths


def sizing_weight(weights: Mapping[str, Tensor], key: str) -> Tensor:
    """A weight whose shape tells a size of the network.

    Raises:
        UsageError: if it is missing.
    """
    if key not in weights:
        raise UsageError(
            f"the state dict does not fit: missing {key}, which the sizes of the network are read "
            "from; pass the plain state dict of the official model"
        )
    return weights[key]


def load_network(state_dict: Mapping[str, Tensor], modules: Mapping[str, nn.Module]) -> None:
    """Load an official state dict into the modules behind its prefixes.

    Batch norm counted its batches only from torch 0.4.1 on: older state dicts lack the counters,
    which are not used here.

    Raises:
        UsageError: listing the keys that are missing, surplus or of another shape.
    """
    counters = {
        prefix + key: tensor
        for prefix, module in modules.items()
        for key, tensor in module.state_dict().items()
        if key.endswith("num_batches_tracked") and prefix + key not in state_dict
    }
    load_official({**state_dict, **counters}, modules)


def _each(features: Any, act: Callable[[Tensor], Tensor]) -> Any:
    """Do something with a tensor, or with every tensor in a list or tuple."""
    if isinstance(features, Tensor):
        return act(features)
    return type(features)(_each(part, act) for part in features)
