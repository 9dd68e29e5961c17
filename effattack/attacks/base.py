"""What every attack shares: the call, its checks, and leaving no trace on the victim.

An attack is a composition: a threat (where to look), an objective (what to want), a search (how to
look). A published attack is a short class that names the three and its paper's hyper-parameters.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Generator, Tensor

from effattack.attacks.search import ProjectedGradient
from effattack.errors import MeasurementError, NotApplicable
from effattack.images import check_images, check_labels, to_grid
from effattack.objectives import Goal, Objective
from effattack.threats import Threat
from effattack.victim import Victim

Kind = Literal["compute", "accuracy", "control"]


class Attack(ABC):
    """Made for one victim, called like a function: ``adversarial = attack(images, labels)``.

    Args:
        victim: the victim under attack.
        eps: size of the budget, in [0, 1] pixels; 0 for the clean control.
        seed: of the attack's own random numbers; the global state is as before afterwards.
        settings: what else defines the attack, for tables and for the identity of a cell.

    Raises:
        NotApplicable: if the attack cannot apply to the victim.
    """

    kind: ClassVar[Kind] = "compute"

    def __init__(self, victim: Victim, *, eps: float, seed: int = 0, **settings: Any) -> None:
        self.victim = victim
        self.eps = float(eps)
        self.seed = seed
        self.settings: Mapping[str, Any] = settings
        if reason := self.why_not(victim):
            raise NotApplicable(reason)

    @property
    def name(self) -> str:
        """How tables and the command line call this attack."""
        return type(self).__name__

    @classmethod
    def why_not(cls, victim: Victim) -> str | None:
        """The reason why this attack cannot apply to the victim; None if it can."""
        return None

    def __call__(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Adversarial images: inside the budget and [0, 1], on the 8-bit grid, detached.

        Args:
            images: (B, *input_shape), float, in [0, 1]; moved to the victim's device and dtype,
                and rounded to the 8-bit grid first.
            labels: (B,) class indices; where missing, the clean predictions stand in.

        Raises:
            UsageError: for images or labels that cannot be used.
            GradientError: if no gradient reaches the pixels.
        """
        check_images(images, self.victim.input_shape)
        with undisturbed(self.victim):
            seed_global_state(self.seed)
            clean = to_grid(images.detach().to(self.victim.device, self.victim.dtype))
            with torch.no_grad():
                prediction = self.victim.trace(clean).logits.argmax(1)
            if labels is None:
                labels = prediction
            check_labels(labels, len(clean), self.victim.num_classes)
            labels = labels.to(clean.device, torch.long, copy=True)
            generator = Generator().manual_seed(self.seed)
            goal = Goal(self.victim, prediction)
            found = self.run(clean, labels, goal, generator).detach()
            self.check_budget(found, clean)
            return found

    def check_budget(self, found: Tensor, clean: Tensor) -> None:
        """Refuse what is no image of the budget: every score rests on it.

        Raises:
            MeasurementError: naming what is wrong.
        """
        wrong = None
        if found.shape != clean.shape or not torch.isfinite(found).all():
            wrong = f"shape {tuple(found.shape)}, or NaN"
        elif found.min() < 0 or found.max() > 1 or (found - to_grid(found)).abs().max() > 1e-6:
            wrong = "pixels outside [0, 1] or off the 8-bit grid"
        elif (found - clean).abs().max() > self.eps + 1e-6:
            wrong = f"changes of {(found - clean).abs().max() * 255:.3g}/255"
        if wrong:
            raise MeasurementError(
                f"{self!r} returned images outside its budget ({wrong}): end run() with "
                "threat.on_grid(images, clean)"
            )

    @abstractmethod
    def run(self, clean: Tensor, labels: Tensor, goal: Goal, generator: Generator) -> Tensor:
        """The attack itself, on checked images; the victim is in eval mode."""

    def __repr__(self) -> str:
        settings = "".join(f", {key}={value!r}" for key, value in self.settings.items())
        return f"{self.name}(eps={self.eps * 255:g}/255{settings}, seed={self.seed})"


class GradientAttack(Attack):
    """An attack on the compute by projected gradient: threat x objective x search."""

    def __init__(
        self,
        victim: Victim,
        threat: Threat,
        objective: Objective,
        search: ProjectedGradient,
        seed: int,
        **settings: Any,
    ) -> None:
        self.threat, self.objective, self.search = threat, objective, search
        super().__init__(victim, eps=threat.eps, seed=seed, steps=search.steps, **settings)
        shape = (1, *victim.input_shape)
        grey = torch.full(shape, 0.5, device=victim.device, dtype=victim.dtype)
        with undisturbed(victim), torch.no_grad():
            objective.check(victim.trace(grey), victim)

    def run(self, clean: Tensor, labels: Tensor, goal: Goal, generator: Generator) -> Tensor:
        return self.search(clean, self.threat, self.objective, goal, generator)


@contextmanager
def undisturbed(victim: Victim) -> Iterator[None]:
    """Run with the victim in eval mode and its parameters frozen; then put everything back.

    Restores training mode, ``requires_grad`` and gradients of every parameter, and the global
    random state of Python, NumPy and torch; also after an exception. Gradients are enabled inside,
    whether the caller runs under ``no_grad``, ``inference_mode`` or neither.
    """
    modes = {module: module.training for module in victim.modules()}
    parameters = [(p, p.requires_grad, p.grad) for p in victim.parameters()]
    python, legacy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        victim.eval()
        for parameter, _, _ in parameters:
            if parameter.requires_grad:
                parameter.requires_grad_(False)
        with (
            torch.random.fork_rng(devices=devices),
            torch.inference_mode(False),
            torch.enable_grad(),
        ):
            yield
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter, required, grad in parameters:
            if parameter.requires_grad != required:
                parameter.requires_grad_(required)
            parameter.grad = grad
        random.setstate(python)
        np.random.set_state(legacy)


def seed_global_state(seed: int) -> None:
    """Seed what foreign code may draw from: the global generators of Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
