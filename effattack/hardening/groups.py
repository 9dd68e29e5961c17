"""How the losses of a batch become one: evenly, or by weights that follow the worst groups."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from effattack.errors import UsageError


class Evenly(nn.Module):
    """The mean of the losses; knows how far the training is.

    Args:
        groups: how many there are.
    """

    steps: Tensor

    def __init__(self, groups: int = 1) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, losses: Tensor, groups: Tensor) -> Tensor:
        """Losses (B,) and the groups (B,) of their inputs -> one loss; a step is counted."""
        self.steps += 1
        return losses.mean()


class WorstGroups(Evenly):
    """Group weights that grow with the loss of their group: q_g ∝ q_g exp(η · loss_g).

    The loss is Σ_g q_g loss_g, loss_g the mean over the group in the batch; a group that the batch
    lacks keeps its share. Sagawa et al., "Distributionally Robust Neural Networks for Group
    Shifts", ICLR 2020 (arXiv 1911.08731), algorithm 1.

    Args:
        groups: how many there are.
        rate: η.
    """

    weights: Tensor

    def __init__(self, groups: int, rate: float = 0.01) -> None:
        super().__init__(groups)
        if not 0 < rate < float("inf"):
            raise UsageError(f"rate = {rate} of group weights: give a number above 0")
        self.rate = rate
        self.register_buffer("weights", torch.full((groups,), 1 / groups))

    def forward(self, losses: Tensor, groups: Tensor) -> Tensor:
        super().forward(losses, groups)
        member = nn.functional.one_hot(groups, len(self.weights)).to(losses)
        count = member.sum(0)
        means = (losses[:, None] * member).sum(0) / count.clamp_min(1)
        grown = self.weights.to(losses) * (self.rate * means.detach()).exp()
        weights = grown / grown.sum()
        self.weights.copy_(weights)
        return (weights * means).sum()
