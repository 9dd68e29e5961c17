"""The attacks of torchattacks.

Kim, "Torchattacks: a PyTorch repository for adversarial attacks", arXiv 2010.01950.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from effattack.attacks.foreign.adapters import LibraryAttack
from effattack.attacks.foreign.libraries import classes, construct, imported
from effattack.errors import install

_LINF = (
    *("BIM", "DIFGSM", "EOTPGD", "FFGSM", "FGSM", "Jitter", "MIFGSM", "NIFGSM", "PGD", "PGDRS"),
    *("PIFGSM", "PIFGSMPP", "RFGSM", "SINIFGSM", "SPSA", "TIFGSM", "TPGD", "UPGD", "VMIFGSM"),
    "VNIFGSM",
)
_USABLE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_LINF, ("linf",)),
    **dict.fromkeys(("APGD", "APGDT", "AutoAttack", "FAB", "Square"), ("linf", "l2")),
    **dict.fromkeys(("CW", "DeepFool", "PGDL2", "PGDRSL2"), ("l2",)),
    **dict.fromkeys(("EADEN", "EADL1"), ("l1",)),
    **dict.fromkeys(("JSMA", "OnePixel", "Pixle", "SparseFool"), ("pixels",)),
}
"""Attack -> budgets. Left out: GN and VANILA (noise, nothing), LGV (trains the model further),
MultiAttack (takes attacks, not a model)."""
_NORMS = {"linf": "Linf", "l2": "L2"}
_RGB_ONLY = {"PIFGSM", "PIFGSMPP", "TIFGSM"}
_SQUARES = {"DIFGSM", "Pixle"}
_FOUR_CLASSES = {"APGDT", "AutoAttack"}


class Torchattacks(LibraryAttack):
    """An attack of torchattacks: ``Torchattacks(victim, "PGD", eps=8/255, steps=10)``.

    The number of classes, the norm and the seed are told to attacks that would guess them:
    torchattacks takes 10 classes for granted and seeds AutoAttack from the clock.
    """

    library = "torchattacks"

    def unfit(self) -> str | None:
        name, channels, classes = (
            self.victim.name,
            self.victim.domain.shape[0],
            self.victim.num_classes,
        )
        if self.attack in _FOUR_CLASSES and classes < 4:
            return f"takes at least 4 classes for granted; {name} has {classes}"
        if self.attack in _RGB_ONLY and channels != 3:
            return f"takes images of 3 channels for granted; those of {name} have {channels}"
        if self.attack in _SQUARES and len(self.victim.domain.shape) == 2:
            return f"takes images of several rows for granted; series of {name} have one"
        return None

    @classmethod
    def known(cls) -> dict[str, tuple[Any, tuple[str, ...]]]:
        found = classes(imported("torchattacks", install("torchattacks")))
        return {name: (found[name], usable) for name, usable in _USABLE.items() if name in found}

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        told = {
            "eps": self.size,
            "max_epsilon": self.size,
            "norm": _NORMS.get(self.threat.name.partition("@")[0]),
            "n_classes": self.victim.num_classes,
            "pixels": int(self.eps),
            "seed": self.seed,
        }
        takes = inspect.signature(self.cls).parameters
        options = {key: value for key, value in told.items() if key in takes} | self.options
        return construct(self.cls, self.label, model, **options)(images, labels)
