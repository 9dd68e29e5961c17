"""Standard accuracy attacks from torchattacks and foolbox, one thin adapter each.

The libraries attack ``trace(images).logits``, which has a gradient where an int8 forward has none.
They are not trusted beyond that: what they return is put back into the budget and onto the 8-bit
grid towards the clean image, NaN means "not attacked", random state, mode and gradients of the
victim are restored, and success is what scoring finds, image by image, not what they report.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from importlib import import_module
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn

from effattack.attacks.base import Attack, Kind
from effattack.errors import UsageError, unknown_name
from effattack.objectives import Goal
from effattack.threats import Linf
from effattack.victim import Victim

LINF = {
    *("APGD", "APGDT", "AutoAttack", "BIM", "DIFGSM", "EOTPGD", "FAB", "FFGSM", "FGSM", "Jitter"),
    *("MIFGSM", "NIFGSM", "PGD", "PGDRS", "PIFGSM", "PIFGSMPP", "RFGSM", "SINIFGSM", "SPSA"),
    *("Square", "TIFGSM", "TPGD", "UPGD", "VMIFGSM", "VNIFGSM"),
}
"""Attacks of torchattacks whose ``eps`` is an l-inf radius; elsewhere it is another budget."""


class TracedLogits(nn.Module):
    """The victim as these libraries expect a model: images -> logits, with a gradient."""

    def __init__(self, victim: Victim) -> None:
        super().__init__()
        self.victim = victim

    def forward(self, images: Tensor) -> Tensor:
        return self.victim.trace(images).logits


class LibraryAttack(Attack):
    """One l-inf attack of another library, by its class name there.

    Args:
        victim: any victim whose trace has a gradient.
        attack: class name in the library, such as ``"PGD"``.
        eps: l-inf budget in [0, 1] pixels.
        seed: global random state of torch, NumPy and Python while it runs; restored afterwards.
        options: passed on to the attack's constructor.

    Raises:
        UsageError: if the library is not installed, has no such attack, or it takes no such option.
    """

    kind: ClassVar[Kind] = "accuracy"
    library: ClassVar[str]

    def __init__(
        self, victim: Victim, attack: str, eps: float = 8 / 255, *, seed: int = 0, **options: Any
    ) -> None:
        self.attack = attack
        self.options = options
        if attack not in self.known():
            raise unknown_name(f"{self.library} attack", attack, self.known())
        super().__init__(victim, Linf(eps), seed=seed)

    @property
    def label(self) -> str:
        return f"{self.library}.{self.attack}"

    def run(self, clean: Tensor, goal: Goal, generator: Generator) -> Tensor:
        model = TracedLogits(self.victim).eval()
        found = self.perturb(model, clean.clone(), goal.labels).detach()
        broken = ~torch.isfinite(found).flatten(1).all(1)
        found = torch.where(broken.view(-1, *[1] * (clean.dim() - 1)), clean, found)
        return self.threat.on_grid(self.threat.project(found, clean), clean)

    @classmethod
    @abstractmethod
    def known(cls) -> dict[str, type]:
        """The attacks of the library, by name."""

    @abstractmethod
    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Run the library's attack."""


class Torchattacks(LibraryAttack):
    """An attack of torchattacks: ``Torchattacks(victim, "PGD", eps=8/255, steps=10)``.

    Kim, "Torchattacks: a PyTorch repository for adversarial attacks", arXiv 2010.01950.
    """

    library = "torchattacks"

    @classmethod
    def known(cls) -> dict[str, type]:
        classes = _classes(_import("torchattacks", "effattack[torchattacks]"))
        return {name: cls for name, cls in classes.items() if name in LINF}

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        attack = _construct(
            self.known()[self.attack], self.label, model, eps=self.eps, **self.options
        )
        return attack(images, labels)


class Foolbox(LibraryAttack):
    """An attack of foolbox: ``Foolbox(victim, "LinfPGD", eps=8/255, steps=40)``.

    Rauber et al., "Foolbox Native", JOSS 2020.
    """

    library = "foolbox"

    @classmethod
    def known(cls) -> dict[str, type]:
        foolbox = _import("foolbox", "foolbox")
        return {
            name: cls
            for name, cls in _classes(foolbox.attacks).items()
            if not inspect.isabstract(cls)
            and getattr(cls, "distance", None) == foolbox.distances.linf
        }

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        attack = _construct(self.known()[self.attack], self.label, **self.options)
        wrapped = _import("foolbox", "foolbox").PyTorchModel(
            model, bounds=(0, 1), device=images.device
        )
        return attack(wrapped, images, labels, epsilons=self.eps)[1]


def _classes(module: Any) -> dict[str, type]:
    return {name: thing for name, thing in vars(module).items() if inspect.isclass(thing)}


def _import(module: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise UsageError(f"{module} is not installed ({error}): pip install '{extra}'") from error


def _construct(cls: Any, name: str, *arguments: Any, **options: Any) -> Any:
    try:
        return cls(*arguments, **options)
    except TypeError as error:
        raise UsageError(
            f"{name} cannot be made with {options}: {error}; its signature is "
            f"{cls.__name__}{inspect.signature(cls)}"
        ) from error
