"""A chain of stages as one graph for one input, each stage inside the decision before it.

``forward`` of a victim leaves inputs out by Python, which no export sees. Here every decision is a
``torch.cond``, whose one side holds all that is left to compute and whose other side is the answer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from effattack.victim.structure import Exits, Models


class Branching(nn.Module):
    """One input (1, ...) -> its answer (1, classes), and each gate's decisions (1, units) bool.

    A gate that was not reached says False.

    Args:
        structure: of a victim; its parts are shared, not copied.
        dtype: that its parameters compute in; the answer has that of the input.
    """

    def __init__(self, structure: Exits | Models, dtype: torch.dtype) -> None:
        super().__init__()
        self.exits = _as_exits(structure)
        self.dtype = dtype
        self.parts = nn.ModuleList([*self.exits.stages, *self.exits.heads])

    @property
    def decisions(self) -> list[str]:
        """Names of the gates that are decisions, unit by unit."""
        return list(self.exits.gates[self.exits.criterion.earliest :])

    def forward(self, single: Tensor) -> tuple[Tensor, ...]:
        features = (single.to(self.dtype) - self.exits.mean) / self.exits.std
        answer, *taken = self._from(0, None, features)
        units: dict[str, list[Tensor]] = {}
        for name, decision in zip(self.decisions, taken, strict=True):
            units.setdefault(name, []).append(decision)
        return answer.to(single.dtype), *(torch.cat(each, dim=1) for each in units.values())

    def _from(self, k: int, before: Tensor | None, features: Any) -> tuple[Tensor, ...]:
        """Stage k and all behind it -> the answer (1, classes), and decisions (1, 1) from k on.

        Args:
            k: which stage is next.
            before: logits of the stages so far (1, k, classes); None at the first. One tensor,
                made anew at each depth: torch takes those of two depths for one, by their names.
            features: that the stage before gave.
        """
        exits, left = self.exits, len(self.exits.gates) - k
        features = exits.stages[k](features)
        logits = exits.heads[k](features)[:, None]
        seen = logits if before is None else torch.cat([before, logits], dim=1)
        if not left:
            return (_own(exits.unsure(seen)),)
        if k < exits.criterion.earliest:
            return self._from(k + 1, seen, features)
        onward = exits.criterion.go_on(seen)[:, None]

        def go(seen: Tensor, features: Any) -> tuple[Tensor, ...]:
            return self._from(k + 1, seen, _each(features))

        def stop(seen: Tensor, features: Any) -> tuple[Tensor, ...]:
            answer = _own(seen[:, -1])
            return answer, *(answer.new_zeros(1, 1, dtype=torch.bool) for _ in range(left - 1))

        answer, *after = torch.cond(onward[0, 0], go, stop, (seen, features))
        return answer, onward, *after


def _as_exits(structure: Exits | Models) -> Exits:
    """Models of a cascade as heads on the input itself."""
    if isinstance(structure, Models):
        same = tuple(nn.Identity() for _ in structure.models)
        return Exits(same, structure.models, structure.criterion, structure.gates, structure.costs)
    return structure


def _own(answer: Tensor) -> Tensor:
    """In memory of its own, dense: a branch may return nothing else."""
    return answer.clone(memory_format=torch.contiguous_format)


def _each(features: Any) -> Any:
    """Copies of all tensors: a stage may write into its input, and a branch must not."""
    if isinstance(features, Tensor):
        return features.clone()
    return type(features)(map(_each, features))
