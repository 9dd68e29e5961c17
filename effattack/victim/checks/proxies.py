"""Proxy margins lead to work, though their sign is not the decision."""

from __future__ import annotations

from math import comb
from typing import Any

import torch
from torch import Tensor

from effattack.budgets import LEVELS
from effattack.domains import Arrays, Batch
from effattack.victim import Victim
from effattack.victim.checks.blame import per_image
from effattack.victim.undisturbed import undisturbed

STEPS = 5
STEP = 4 / LEVELS
"""Of the range of the inputs."""
CHANCE = 0.01
"""How seldom a proxy that knows nothing of its decision may be said to mislead."""


def misleading_proxies(victim: Victim, batch: Batch) -> list[str]:
    """Proxy margins that lead the wrong way, as sentences.

    Every input is pushed up the margin and down it, by ``STEPS`` steps of ``STEP``. Where the two
    open different numbers of units, up must not open fewer more often than a coin falls on one
    side (sign test, at ``CHANCE``). A margin that merely knows nothing of its decision is not found
    here; an attack through it is no stronger than noise, which the scores tell.
    Inputs without neighbours cannot be pushed so.
    """
    if not isinstance(victim.domain, Arrays):
        return []
    with undisturbed(victim):
        gates = victim.trace(batch).gates
        proxies = [index for index, gate in enumerate(gates) if gate.proxy]
        told = (_misled(victim, batch, index) for index in proxies)
        return [sentence for sentence in told if sentence]


def _misled(victim: Victim, batch: Tensor, index: int) -> str:
    up, down = (_opened(victim, batch, index, sign) for sign in (1, -1))
    right, wrong = int((up > down).sum()), int((up < down).sum())
    differ = right + wrong
    if sum(comb(differ, k) for k in range(right + 1)) >= CHANCE * 2**differ:
        return ""
    gate = victim.trace(batch[:1]).gates[index]
    return (
        f"{victim.name}: gate {gate.name}: pushing its proxy margin up opened fewer units than "
        f"pushing it down on {wrong} of {differ} {victim.domain.nouns}: attacks through it go "
        "the wrong way; turn its sign"
    )


def _opened(victim: Victim, batch: Tensor, index: int, sign: int) -> Tensor:
    """(B,) units of a gate that are active, at most, while its margin is pushed."""
    domain: Any = victim.domain
    span, pushed, opened = domain.high - domain.low, batch, []
    for _ in range(STEPS + 1):
        pixels = pushed.detach().clone().requires_grad_()
        gate = victim.trace(pixels).gates[index]
        opened.append(per_image(gate.active).sum(1))
        (slope,) = torch.autograd.grad((gate.margin * gate.reached).sum(), pixels)
        pushed = (pixels + sign * STEP * span * slope.sign()).clamp(domain.low, domain.high)
    return torch.stack(opened).amax(0)
