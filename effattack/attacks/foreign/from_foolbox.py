"""The attacks of foolbox.

Rauber et al., "Foolbox Native: Fast adversarial attacks to benchmark the robustness of machine
learning models in PyTorch, TensorFlow, and JAX", JOSS 2020.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from effattack.attacks.foreign.adapters import LibraryAttack
from effattack.attacks.foreign.libraries import classes, construct, imported

_BALLS = ("linf", "l2", "l1")
_USABLE: dict[str, tuple[str, ...]] = {
    "HopSkipJumpAttack": ("linf", "l2"),
    "SpatialAttack": ("box",),
}
"""Budgets that cannot be read off the attack's distance."""
_UNUSABLE = {"BinarizationRefinementAttack", "DatasetAttack", "GenAttack"}
"""They want other adversarial images, a data set fed beforehand, or a target class."""


class Foolbox(LibraryAttack):
    """An attack of foolbox: ``Foolbox(victim, "LinfPGD", eps=8/255, steps=40)``.

    Attacks that look for the smallest change run without a budget, and the result is cut down to
    it: foolbox's own clipping knows neither pixels nor the attacks that skip their base class.
    """

    library = "foolbox"

    @classmethod
    def known(cls) -> dict[str, tuple[Any, tuple[str, ...]]]:
        foolbox = _foolbox()
        found: dict[str, tuple[Any, tuple[str, ...]]] = {}
        for name, attack in classes(foolbox.attacks).items():
            if not inspect.isabstract(attack) and name not in _UNUSABLE:
                found[name] = attack, _USABLE.get(name) or _usable(attack, foolbox.distances)
        return found

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        foolbox = _foolbox()
        name = self.threat.name.partition("@")[0]
        takes, options = inspect.signature(self.cls).parameters, dict(self.options)
        if "distance" in takes:
            options.setdefault("distance", getattr(foolbox.distances, name))
        if "constraint" in takes:
            options.setdefault("constraint", name)
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)
        budget = {
            "epsilons": None if issubclass(self.cls, _base("MinimizationAttack")) else self.size
        }
        attack = construct(self.cls, self.label, **options)
        return attack(wrapped, images, labels, **budget)[1]


def _foolbox() -> Any:
    return imported("foolbox", "pip install foolbox")


def _usable(attack: Any, distances: Any) -> tuple[str, ...]:
    """The budgets of an attack: that of its distance; all balls where one may choose."""
    if issubclass(attack, _base("FlexibleDistanceMinimizationAttack")):
        return _BALLS
    own = attack.distance
    own = own.__get__(attack) if isinstance(own, property) else own
    names = {"linf": distances.linf, "l2": distances.l2, "l1": distances.l1, "pixels": distances.l0}
    return tuple(name for name, distance in names.items() if distance == own)


def _base(name: str) -> Any:
    return getattr(_foolbox().attacks.base, name)
