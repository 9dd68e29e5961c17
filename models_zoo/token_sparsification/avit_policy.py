"""The policy of A-ViT: adaptive halting, as adaptive computation time, of every token."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from effattack.victim.margins import bounded_margin


class Halted(NamedTuple):
    """Where the tokens (B, n) stand after some block."""

    cumulative: Tensor
    """c: the halting scores so far, summed."""
    remainder: Tensor
    """R = 1 - Σ h over the blocks after which the token went on."""
    weight: Tensor
    """What the token's output of this block counts for: h, or R where it halts."""
    onward: Tensor
    """bool: c < 1 - ε, the token enters the next block."""

    def rows(self, index: Tensor) -> Halted:
        """The same for some of the tokens."""
        return Halted(*(field.index_select(1, index) for field in self))


class AdaptiveHalting:
    """The policy: h = σ(γ x₀ - β) after each block, 1 after the last.

    A token goes on while its scores sum to less than 1 - ε. As in the official code a sum of
    exactly 1 - ε halts the token without counting its output.
    """

    def __init__(self, gate_scale: float, gate_center: float, eps: float) -> None:
        self.gate_scale, self.gate_center, self.threshold = gate_scale, gate_center, 1 - eps

    def __repr__(self) -> str:
        scale, center, eps = self.gate_scale, self.gate_center, 1 - self.threshold
        return f"AdaptiveHalting(gate_scale={scale}, gate_center={center}, eps={eps:g})"

    def start(self, tokens: Tensor) -> Halted:
        """Before block 0, for tokens (B, n, width)."""
        zero = tokens.new_zeros(tokens.shape[:2])
        return Halted(zero, zero + 1, zero, zero == 0)

    def log_odds(self, tokens: Tensor) -> Tensor:
        """Block outputs (B, n, width) -> log-odds of halting scores (B, n)."""
        return self.gate_scale * tokens[:, :, 0] - self.gate_center

    def step(self, state: Halted, score: Tensor) -> Halted:
        """Add the scores (B, n) of a block; tokens that were not onward stay as they are."""
        live = state.onward
        cumulative = torch.where(live, state.cumulative + score, state.cumulative)
        onward = live & (cumulative < self.threshold)
        halts = live & (cumulative > self.threshold)
        return Halted(
            cumulative=cumulative,
            remainder=state.remainder - score * onward,
            weight=score * onward + state.remainder * halts,
            onward=onward,
        )

    def margin(self, state: Halted, log_odds: Tensor, onward: Tensor) -> Tensor:
        """Margin (B, n) of going on, where ``state`` is the one before the block.

        It has the sign of 1 - ε - c - h, but compares h with 1 - ε - c on log-odds: a saturated
        score, h = 1 in float32, has no slope left. Its scale is a third of the spread of the
        log-odds over the image's live tokens, with a floor where they are all alike. Its slope
        with respect to c is bounded by that at 1 - ε, for it would explode on a token that only
        just went on.
        """
        live = state.onward
        left = torch.where(live, self.threshold - state.cumulative, 0.5)
        left = left.clamp_min(torch.finfo(left.dtype).tiny)
        floor = self.threshold * (1 - self.threshold)
        slope = (left * (1 - left)).clamp_min(floor).reciprocal().detach()
        limit = left.detach().logit() + slope * (left - left.detach())
        least = max(1.0, abs(self.gate_scale) / 10)
        scale = (least**2 + _variance(log_odds.detach(), live) / 9).sqrt()
        return bounded_margin(limit - log_odds, scale, onward)


def _variance(values: Tensor, live: Tensor) -> Tensor:
    """Over the live tokens, (B, 1); 0 where there are none."""
    count = live.sum(1, keepdim=True).clamp_min(1)
    mean = (values * live).sum(1, keepdim=True) / count
    return ((values - mean).square() * live).sum(1, keepdim=True) / count
