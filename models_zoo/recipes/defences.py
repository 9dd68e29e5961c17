"""Adversarial training against universal patches: the defence of SlowFormer's authors.

Navaneet et al., "SlowFormer", CVPR 2024, section on defence: the model is trained on images with a
patch of a pool that grows by one universal patch every fifth of an epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import torch
from torch import Tensor

from effattack.attacks.house.slowdown import UniversalSlowdown
from effattack.models_zoo.digits import digits
from effattack.models_zoo.embedded import digits_vit, digits_vit_avit
from effattack.models_zoo.files import WEIGHTS, load_weights, save_weights
from effattack.models_zoo.recipes.common import Loss, accuracy, describe, fit
from effattack.models_zoo.recipes.token_sparsification import PONDER_WEIGHT, classified
from effattack.models_zoo.token_sparsification.avit import AViT
from effattack.victim import Victim

THREAT = "patch:8@0,0"
"""6 % of the image; SlowFormer's is 8 %, in the same corner."""


class PatchPool:
    """Universal patches against a victim as it learns.

    Args:
        victim: to be trained.
        images: that patches are fitted on, drawn anew for each.
        share: images of a fit.
        epochs: passes over them; SlowFormer takes 500 steps.
    """

    def __init__(self, victim: Victim, images: Tensor, *, share: int = 64, epochs: int = 3) -> None:
        self.victim, self.images, self.share, self.epochs = victim, images, share, epochs
        self.attacks: list[UniversalSlowdown] = []

    def grow(self) -> None:
        """Fit one more patch on the victim as it is now."""
        seed = len(self.attacks)
        attack = UniversalSlowdown(
            self.victim, threat=THREAT, epochs=self.epochs, batch=self.share // 2, seed=seed
        )
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randperm(len(self.images), generator=generator)[: self.share]
        self.attacks.append(attack.fit(self.images[rows]))

    def apply(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images (B, C, H, W), each with a patch of the pool."""
        which = torch.randint(len(self.attacks), (len(images),), generator=generator).tolist()
        patches = torch.stack([_pattern(self.attacks[k]) for k in which])
        threat = self.attacks[0].threat.placed(images, generator)
        return threat.apply(patches, images).clamp(0, 1)


def patch_pool_loss(victim: AViT, pool: PatchPool, every: int) -> Loss:
    """A-ViT's loss on half clean and half patched images; the pool grows every so many steps."""
    generator, steps = torch.Generator().manual_seed(0), count()

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        if next(steps) % every == 0:
            pool.grow()
        half = len(images) // 2
        mixed = torch.cat([images[:half], pool.apply(images[half:], generator)])
        trace = victim.trace(mixed)
        return classified(trace.logits, labels) + PONDER_WEIGHT * trace.aux["ponder"].mean()

    return loss


def train_patch_pool() -> None:
    """``digits_vit_avit`` for two more epochs, a patch every fifth of an epoch: ten in all."""
    name = "digits_vit_avit_patch_pool"
    victim = digits_vit_avit(trained=False)
    load_weights(victim, WEIGHTS / "digits_vit_avit.safetensors")
    images, _ = digits("train")
    pool = PatchPool(victim, images)
    fit(victim, patch_pool_loss(victim, pool, len(images) // 64 // 5), epochs=2, rate=3e-4)
    save_weights(victim, WEIGHTS / f"{name}.safetensors")
    victim.name = name
    describe(victim, recipe=name, dense_accuracy=accuracy(digits_vit(), "test"))


def _pattern(attack: UniversalSlowdown) -> Tensor:
    assert attack.perturbation is not None
    return attack.perturbation[0]


RECIPES: dict[str, Callable[[], None]] = {"digits_vit_avit_patch_pool": train_patch_pool}
