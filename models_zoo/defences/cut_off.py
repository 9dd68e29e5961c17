"""A cut-off: no image takes more stages than nearly all clean ones need.

Shumailov et al., "Sponge Examples", EuroS&P 2021 (arXiv 2006.03463), section on defences: profile
natural inputs before deployment, set a threshold on what one inference may cost, and stop there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from effattack.errors import UsageError
from effattack.models_zoo.criteria import Criterion, Thresholds
from effattack.models_zoo.early_exit.early_exit import EarlyExit
from effattack.victim.undisturbed import undisturbed


def cut_off(victim: EarlyExit, images: Tensor, share: float = 0.95, *, name: str) -> EarlyExit:
    """The first stages of an early-exit network, by whose end that share of images has left.

    Whatever is still unsure there gets the answer of the last stage that is left: an exact cap.

    Args:
        victim: the whole network.
        images: (B, *input_shape), natural and held-out: profiled, not scored.
        share: of them that must have left, in (0, 1].
        name: of the victim that is left.

    Raises:
        UsageError: for a share out of range, or where fewer than two stages would be left: then
            the network of one stage is static, and nothing is adaptive about it.
    """
    if not 0 < share <= 1:
        raise UsageError(f"share = {share}: give the share of images that leave, in (0, 1]")
    with undisturbed(victim), torch.no_grad():
        passed = torch.stack([gate.active[:, 0] for gate in victim.trace(images).gates], dim=1)
    left = [*(1 - passed.double().mean(0)), 1.0]
    last = next(k for k, gone in enumerate(left) if gone >= share)
    if last == 0:
        raise UsageError(
            f"{share:.0%} of the images leave {victim.name} at its first exit: cut off there it is "
            "static; give a larger share, or deploy that exit alone"
        )
    return EarlyExit(
        list(victim.stages[: last + 1]),
        list(victim.heads[: last + 1]),
        _shortened(victim.criterion, last),
        domain=victim.domain,
        mean=victim.mean.flatten().tolist(),
        std=victim.std.flatten().tolist(),
        name=name,
        data=victim.data,
    )


def _shortened(criterion: Criterion, gates: int) -> Criterion:
    """A criterion for so many decisions, where it has a threshold for each."""
    if isinstance(criterion, Thresholds) and isinstance(criterion.thresholds, tuple):
        return type(criterion)(criterion.thresholds[:gates])
    return criterion
