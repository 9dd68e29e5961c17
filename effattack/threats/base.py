"""What every threat is: a set of inputs around each clean one, in a domain."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Self

from torch import Generator, Tensor

from effattack.budgets import check_eps, exact, parse_number
from effattack.domains import Arrays, Batch, Domain, Pixels
from effattack.errors import MeasurementError, NotApplicable, UsageError
from effattack.threats.forms import forms

SLACK = 1e-6
"""What float32 rounding may add to a distance, relative to the budget or the largest value."""


def moves_in(kind: str, domain: Domain) -> bool:
    """Whether what changes inputs of a kind does so in a domain.

    A kind is ``"any"``, ``"arrays"``, that of one domain, or several: ``"arrays or tokens"``.
    """
    kinds = kind.split(" or ")
    return (
        "any" in kinds or domain.kind in kinds or ("arrays" in kinds and isinstance(domain, Arrays))
    )


class Threat(ABC):
    """A set of inputs around each clean one.

    ``name`` is what tables call it; ``eps`` is its size in its own unit: a distance for balls (or
    so many deviations, if its name ends in ``@sd``), the side of a patch, a number of pixels or
    tokens. ``str()`` of it is the text that :func:`effattack.threats.parse_threat` reads.

    A threat is bound to the domain of the victim by :meth:`on`; until then, to images.
    """

    kind: ClassVar[str]
    """What it changes: ``"any"`` inputs, ``"arrays"``, or those of one kind of domain."""
    name: str
    eps: float
    domain: Domain = Pixels((None, None, None))

    def __init__(self, eps: float) -> None:
        self.eps = check_eps(eps)

    @classmethod
    def read(cls, size: str) -> Self:
        """The threat whose size is written behind its name, ``16@4,4`` in ``patch:16@4,4``.

        Raises:
            ValueError: if it is none.
        """
        return cls(int(size) if size.isdigit() else parse_number(size, f"the size {size!r}"))

    def on(self, domain: Domain) -> Self:
        """This threat in a domain.

        Raises:
            NotApplicable: if it changes inputs of another kind, naming the threats that apply.
            UsageError: if its size is none there.
        """
        if not moves_in(self.kind, domain):
            raise NotApplicable(
                f"{self} changes {self.kind}, which {domain.nouns} are not: write "
                f"{forms(domain.kind)}"
            )
        bound = copy.copy(self)
        bound.domain = domain
        if reason := bound.unfit():
            raise UsageError(reason)
        return bound

    @property
    def smooth(self) -> bool:
        """Whether all that it changes has neighbours, as pixels have and words have not."""
        return self.domain.smooth

    def unfit(self) -> str | None:
        """Why the size is none in the domain, with what may be given; None if it is one."""
        return None

    @abstractmethod
    def start(self, clean: Batch, generator: Generator) -> Batch:
        """A random point of the budget around each clean input, uniform where that makes sense."""

    @abstractmethod
    def on_grid(self, inputs: Batch, clean: Batch) -> Batch:
        """Inputs of the budget that a deployed model can be fed, near the given ones.

        The clean ones are such inputs.
        """

    @abstractmethod
    def contains(self, inputs: Batch, clean: Batch) -> Tensor:
        """(B,) bool: whether inputs that a deployed model can be fed are inside the budget."""

    def largest(self, clean: Batch) -> Batch:
        """The inputs of the budget on which a victim could work most: its ceiling is theirs."""
        return clean

    def euclidean(self, clean: Batch) -> float:
        """No change of a clean input of this shape is longer in l2; infinite where it has none."""
        return math.inf

    def members(self, clean: Batch) -> int | None:
        """How many inputs of the budget there are around one clean input (1, ...), at most.

        None: nobody lists them.
        """
        return None

    def every(self, clean: Batch, at_once: int) -> Iterator[Batch]:
        """All of them, in batches of at most ``at_once``; an input may come twice.

        Raises:
            NotApplicable: where nobody lists them.
        """
        raise NotApplicable(f"{self} has no list of its {self.domain.nouns}")

    def placed(self, clean: Batch, generator: Generator) -> Threat:
        """This threat with all that is drawn once per input (the place of a patch) drawn."""
        return self

    def rows(self, index: Tensor) -> Threat:
        """A placed threat for some of its inputs."""
        return self

    def check(self, inputs: Batch, clean: Batch) -> None:
        """Refuse what is no input of the budget: every score rests on it.

        Raises:
            MeasurementError: naming what is wrong.
        """
        if wrong := self.flaw(inputs, clean):
            raise MeasurementError(
                f"{wrong}: end run() with threat.on_grid({self.domain.nouns}, clean)"
            )

    def flaw(self, inputs: Batch, clean: Batch) -> str | None:
        """Why inputs are none of the budget that a deployed model can be fed; None if they are."""
        wrong = self._flaw(inputs, clean)
        return wrong and f"{self.domain.nouns} outside the budget {self} ({wrong})"

    def _flaw(self, inputs: Batch, clean: Batch) -> str | None:
        if len(inputs) != len(clean):
            return f"{len(inputs)} of {len(clean)}"
        try:
            self.domain.check(inputs)
        except UsageError as error:
            return str(error).partition(": ")[0]
        if self._off_grid(inputs):
            return "off the grid of what a deployed model can be fed"
        return None if self.contains(inputs, clean).all() else self._excess(inputs, clean)

    def _off_grid(self, inputs: Batch) -> bool:
        return self.domain.pack(self.domain.snap(inputs)) != self.domain.pack(inputs)

    def _excess(self, inputs: Batch, clean: Batch) -> str:
        found = self.domain.distances(inputs, clean).items()
        told = ", ".join(f"{name} {column.max():.4g}" for name, column in found)
        return f"changes of up to {told} are too much"

    def __str__(self) -> str:
        return f"{self.name}:{exact(self.eps)}"

    def __repr__(self) -> str:
        settings = ", ".join(f"{key}={value!r}" for key, value in sorted(vars(self).items()))
        return f"{type(self).__name__}({settings})"
