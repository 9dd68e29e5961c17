"""What an attacker of several parts may change: one of them, or some together."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor

from effattack.domains import Batch, Domain, Parts, PartsBatch
from effattack.errors import NotApplicable, UsageError
from effattack.threats.base import Threat


class OfParts(Threat):
    """Each named part within a threat of its own; all others stay.

    Written ``image:linf:8/255``; with a budget in several parts,
    ``image:linf:8/255+question:suffix:3``.

    Args:
        threats: name of a part -> what may be changed of it.

    Raises:
        UsageError: without any.
    """

    kind: ClassVar[str] = "parts"
    domain: Parts

    def __init__(self, threats: Mapping[str, Threat]) -> None:
        if not threats:
            raise UsageError("a threat of parts names at least one, such as image:linf:8/255")
        self.threats = dict(threats)
        (name, first), *others = self.threats.items()
        self.name = str(self) if others else f"{name}:{first.name}"
        self.eps = 1.0 if others else first.eps

    def on(self, domain: Domain) -> Self:
        bound = super().on(domain)
        if unknown := self.threats.keys() - bound.domain.parts.keys():
            raise NotApplicable(
                f"{self} changes {', '.join(sorted(unknown))}, which is no part of the inputs: "
                f"name {' or '.join(bound.domain.parts)}"
            )
        bound.threats = {name: t.on(bound.domain.parts[name]) for name, t in self.threats.items()}
        return bound

    @property
    def smooth(self) -> bool:
        return all(threat.smooth for threat in self.threats.values())

    def start(self, clean: PartsBatch, generator: Generator) -> PartsBatch:
        return self._each(lambda threat, part: threat.start(part, generator), clean)

    def on_grid(self, inputs: PartsBatch, clean: PartsBatch) -> PartsBatch:
        return clean.replaced(
            **{name: t.on_grid(inputs[name], clean[name]) for name, t in self.threats.items()}
        )

    def contains(self, inputs: PartsBatch, clean: PartsBatch) -> Tensor:
        inside = torch.ones(len(clean), dtype=torch.bool, device=clean.device)
        for name, part in self.domain.parts.items():
            found, expected = inputs[name], clean[name]
            if name in self.threats:
                inside &= self.threats[name].contains(found, expected)
            else:
                rows = zip(part.pack(found), part.pack(expected), strict=True)
                inside &= torch.tensor([a == b for a, b in rows], device=clean.device)
        return inside

    def largest(self, clean: PartsBatch) -> PartsBatch:
        return self._each(lambda threat, part: threat.largest(part), clean)

    def placed(self, clean: PartsBatch, generator: Generator) -> OfParts:
        return self._with({n: t.placed(clean[n], generator) for n, t in self.threats.items()})

    def rows(self, index: Tensor) -> OfParts:
        return self._with({name: threat.rows(index) for name, threat in self.threats.items()})

    def _each(self, change: Callable[[Threat, Batch], Batch], clean: PartsBatch) -> PartsBatch:
        return clean.replaced(**{name: change(t, clean[name]) for name, t in self.threats.items()})

    def _with(self, threats: dict[str, Threat]) -> OfParts:
        other = copy.copy(self)
        other.threats = threats
        return other

    def __str__(self) -> str:
        return "+".join(f"{name}:{threat}" for name, threat in self.threats.items())
