"""Proxy margins lead to work, though their sign is not the decision."""

from __future__ import annotations

from math import comb

import torch
from torch import Tensor

from effattack.budgets import LEVELS
from effattack.victim import Victim
from effattack.victim.checks.blame import per_image
from effattack.victim.undisturbed import undisturbed

STEPS = 5
STEP = 4 / LEVELS
CHANCE = 0.01
"""How seldom a proxy that knows nothing of its decision may be said to mislead."""


def misleading_proxies(victim: Victim, images: Tensor) -> list[str]:
    """Proxy margins that lead the wrong way, as sentences.

    Every image is pushed up the margin and down it, by ``STEPS`` steps of ``STEP``. Where the two
    open different numbers of units, up must not open fewer more often than a coin falls on one
    side (sign test, at ``CHANCE``). A margin that merely knows nothing of its decision is not found
    here; an attack through it is no stronger than noise, which the scores tell.
    """
    with undisturbed(victim):
        gates = victim.trace(images).gates
        proxies = [index for index, gate in enumerate(gates) if gate.proxy]
        told = (_misled(victim, images, index) for index in proxies)
        return [sentence for sentence in told if sentence]


def _misled(victim: Victim, images: Tensor, index: int) -> str:
    up, down = (_opened(victim, images, index, sign) for sign in (1, -1))
    right, wrong = int((up > down).sum()), int((up < down).sum())
    differ = right + wrong
    if sum(comb(differ, k) for k in range(right + 1)) >= CHANCE * 2**differ:
        return ""
    gate = victim.trace(images[:1]).gates[index]
    return (
        f"{victim.name}: gate {gate.name}: pushing its proxy margin up opened fewer units than "
        f"pushing it down on {wrong} of {differ} images: attacks through it go the wrong way; turn "
        "its sign"
    )


def _opened(victim: Victim, images: Tensor, index: int, sign: int) -> Tensor:
    """(B,) units of a gate that are active, at most, while its margin is pushed."""
    pushed, opened = images, []
    for _ in range(STEPS + 1):
        pixels = pushed.detach().clone().requires_grad_()
        gate = victim.trace(pixels).gates[index]
        opened.append(per_image(gate.active).sum(1))
        (slope,) = torch.autograd.grad((gate.margin * gate.reached).sum(), pixels)
        pushed = (pixels + sign * STEP * slope.sign()).clamp(0, 1)
    return torch.stack(opened).amax(0)
