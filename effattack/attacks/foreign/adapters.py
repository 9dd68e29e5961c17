"""What the adapters of torchattacks and foolbox share.

The libraries attack ``trace(images).logits``, which has a gradient where an int8 forward has none,
on values in [0, 1]: the range of a series is mapped onto it, and its budget likewise. They are not
trusted beyond that: what they return is put back into the budget and onto the grid towards the
clean input, NaN means "not attacked", random state, mode and gradients of the victim are restored,
and success is what scoring finds, input by input, not what they report.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn

from effattack.attacks.base import Attack, Kind, queries, without_gradient
from effattack.attacks.objectives import Goal
from effattack.domains import Arrays
from effattack.errors import NotApplicable, UsageError, unknown_name
from effattack.tasks import Classes
from effattack.threats import ArrayThreat, Threat
from effattack.threats.balls import Ball
from effattack.victim import Victim

UNTOLD = 10
"""A guess of the gradients of attacks that take no number of steps."""


class TracedLogits(nn.Module):
    """The victim as these libraries expect a model: images in [0, 1] -> logits, with a gradient.

    Series become images of one row: (B, C, L) -> (B, C, 1, L), their range [0, 1].
    """

    def __init__(self, victim: Victim) -> None:
        super().__init__()
        domain = victim.domain
        assert isinstance(domain, Arrays)
        self.victim, self.low, self.span = victim, domain.low, domain.high - domain.low

    def forward(self, images: Tensor) -> Tensor:
        return self.victim.trace(self.from_images(images)).logits

    def as_images(self, inputs: Tensor) -> Tensor:
        """Inputs as the libraries take them."""
        images = (inputs - self.low) / self.span
        return images.unsqueeze(2) if inputs.dim() == 3 else images

    def from_images(self, images: Tensor) -> Tensor:
        """The inverse of :meth:`as_images`."""
        inputs = images.squeeze(2) if len(self.victim.domain.shape) == 2 else images
        return inputs * self.span + self.low


class LibraryAttack(Attack):
    """One attack of another library, by its class name there.

    What the library knows of its budget is passed on; whatever it returns is projected on the
    threat. Attacks that look for the smallest change are cut down to the budget.

    Args:
        victim: any victim whose trace has a gradient.
        attack: class name in the library, such as ``"PGD"``.
        eps: l-inf budget, for attacks of that kind.
        threat: the budget of the others: ``"l2:1.0"``, ``"pixels:20"``, ...
        seed: global random state of torch, NumPy and Python while it runs; restored afterwards.
        options: passed on to the attack's constructor.

    Raises:
        UsageError: if the library is not installed, has no such attack, it takes no such option, or
            it cannot use such a budget.
        NotApplicable: if it takes images or classes for granted that the victim does not have.
    """

    kind: ClassVar[Kind] = "accuracy"
    threat: ArrayThreat
    library: ClassVar[str]

    def __init__(
        self,
        victim: Victim,
        attack: str,
        eps: float | None = None,
        *,
        threat: Threat | str | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        self.attack = attack
        self.options = options
        known = self.known()
        if attack not in known:
            raise unknown_name(f"{self.library} attack", attack, known)
        self.cls, usable = known[attack]
        super().__init__(victim, eps, threat=threat, seed=seed)
        self.settings = options
        name = self.threat.name.partition("@")[0]
        if name not in usable:
            raise UsageError(
                f"{self.label} cannot use the budget {self.threat}: write {self.label}(threat="
                f"{' or '.join(repr(_EXAMPLES[kind]) for kind in usable)})"
            )

        if reason := self.unfit():
            raise NotApplicable(f"{self.label} {reason}: use another attack of the library")
        if reason := without_gradient(victim):
            raise NotApplicable(
                f"{reason}: {self.label} cannot attack it; {queries(victim)} applies"
            )

    @classmethod
    def why_not(cls, victim: Victim) -> str | None:
        if isinstance(victim.task, Classes):
            return None
        return (
            f"{cls.__name__} raises losses on a class per input; {victim.name} answers with "
            f"{victim.task.noun}"
        )

    @property
    def size(self) -> float:
        """Of the budget, on values in [0, 1]."""
        return self.threat.radius / self.threat.span if isinstance(self.threat, Ball) else self.eps

    def unfit(self) -> str | None:
        """What of the victim the library's attack cannot take; None if it can."""
        return None

    @property
    def gradients(self) -> int:
        usual = getattr(inspect.signature(self.cls).parameters.get("steps"), "default", None)
        return self.options.get("steps", usual if isinstance(usual, int) else UNTOLD)

    @property
    def label(self) -> str:
        return f"{self.library}.{self.attack}"

    def run(self, clean: Tensor, goal: Goal, generator: Generator) -> Tensor:
        model = TracedLogits(goal.victim).eval()
        given, labels = (
            model.as_images(clean.clone()),
            goal.labels.clone(),
        )  # they may be written to
        found = model.from_images(self.perturb(model, given, labels).detach().to(clean))
        broken = ~torch.isfinite(found).flatten(1).all(1)
        found = torch.where(broken.view(-1, *[1] * (clean.dim() - 1)), clean, found)
        return self.threat.on_grid(self.threat.project(found, clean), clean)

    @classmethod
    @abstractmethod
    def known(cls) -> dict[str, tuple[Any, tuple[str, ...]]]:
        """The attacks of the library that work here: name -> class, and the budgets it can use."""

    @abstractmethod
    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Run the library's attack."""


_EXAMPLES = {
    "linf": "linf:8/255",
    "l2": "l2:1.0",
    "l1": "l1:10",
    "pixels": "pixels:20",
    "box": "box",
}
