"""Gradients reach the pixels from everything that attacks go through."""

from __future__ import annotations

import torch
from torch import Tensor

from effattack.attacks.base import undisturbed
from effattack.contract.images import first_of
from effattack.door import in_words
from effattack.errors import GradientError
from effattack.twins import quantized
from effattack.victim import Opaque, Victim


def check_gradients(victim: Victim, images: Tensor) -> list[str]:
    """Invariant 4: gradients reach the pixels from the logits and from every gate.

    Returns:
        one warning for each of them whose gradient is zero over the whole batch. (An ``Opaque``
        model or quantized weights without a gradient are one, too: query attacks need none.)

    Raises:
        GradientError: a ContractError, where the gradient is missing, NaN or infinite.
    """
    warnings = []
    with undisturbed(victim):
        pixels = images.detach().clone().requires_grad_()
        trace = victim.trace(pixels)
        everything = torch.ones_like(trace.logits, dtype=torch.bool)
        sources = [("the logits", trace.logits, everything)]
        sources += [(f"gate {g.name}", g.margin, g.reached) for g in trace.gates]
        for source, values, reached in sources:
            with in_words(f"{victim.name}: trace"):
                gradient = _mixed_gradient(values, reached, pixels)
            if gradient is None and (isinstance(victim, Opaque) or quantized(victim)):
                warnings.append(f"{victim.name}: no gradient: only query attacks apply")
            elif gradient is None:
                raise GradientError(
                    f"{victim.name}: no gradient from {source} reaches the pixels: compute it in "
                    "trace() without detach, no_grad or integer kernels (quantized layers need a "
                    "straight-through estimator)"
                )
            elif not torch.isfinite(gradient).all():
                index = first_of(~torch.isfinite(gradient))
                raise GradientError(
                    f"{victim.name}: image {index}: the gradient from {source} is NaN or infinite: "
                    "look for 0 * log 0, a norm at 0 or a division by 0 in trace()"
                )
            elif reached.any() and not gradient.any():
                warnings.append(
                    f"{victim.name}: the gradient from {source} is zero over all {len(images)} "
                    "images: attacks through it are blind; bound margins without saturating them"
                )
    return warnings


def _mixed_gradient(values: Tensor, reached: Tensor, pixels: Tensor) -> Tensor | None:
    """Gradient of a random mixture of the reached values; a plain sum may be constant (Σ s = 1)."""
    if not values.requires_grad:
        return None
    generator = torch.Generator().manual_seed(0)
    weights = 0.5 + torch.rand(values.shape, generator=generator).to(values)
    mixture = (values * weights * reached).sum()
    return torch.autograd.grad(mixture, pixels, retain_graph=True, allow_unused=True)[0]
