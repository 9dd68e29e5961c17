"""The policies of DynamicViT: which tokens go on, and the predictors that they ask."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from effattack.errors import UsageError
from effattack.models_zoo.token_sparsification.ragged import Layout


class TopK:
    """The published rule: stage s keeps the ⌊ratio_s · patches⌋ tokens most likely kept.

    Ratios refer to the patches of the image, not to the tokens that are left; a stage that finds
    fewer keeps them all. The official code fixes the 196 patches of a 14 x 14 grid.

    Raises:
        UsageError: for ratios that are missing, outside (0, 1], or leave no token.
    """

    constant = True

    def __init__(self, keep_ratios: Sequence[float] | None, stages: int, patches: int) -> None:
        if keep_ratios is None or len(keep_ratios) != stages:
            found = "no" if keep_ratios is None else len(keep_ratios)
            raise UsageError(f"{found} keep_ratios for {stages} pruning_blocks: give one for each")
        if bad := [ratio for ratio in keep_ratios if not 0 < ratio <= 1]:
            raise UsageError(f"keep_ratios {bad} are no shares: use values in (0, 1]")
        self.counts: list[int] = []
        for ratio in keep_ratios:
            self.counts.append(min(int(patches * ratio), *self.counts[-1:], patches))
        if not all(self.counts):
            raise UsageError(
                f"keep_ratios {tuple(keep_ratios)} of {patches} patches leave no patch token: use "
                "larger ratios or an image of more patches"
            )

    def __repr__(self) -> str:
        return f"TopK(counts={self.counts})"

    def select(self, stage: int, log_probs: Tensor) -> Tensor:
        """log P(keep), log P(drop) (B, n, 2) -> slots kept (B, k), most likely first."""
        order = log_probs[..., 0].argsort(dim=1, descending=True, stable=True)
        return order[:, : self.counts[stage]]

    def most(self, stage: int) -> int:
        """The largest number of patch tokens that can leave a stage."""
        return self.counts[stage]


class Threshold:
    """The rule of training without its noise: a token is kept if log P(keep) > log P(drop).

    Raises:
        UsageError: if ratios are given, which this rule has no use for.
    """

    constant = False

    def __init__(self, keep_ratios: Sequence[float] | None, stages: int, patches: int) -> None:
        if keep_ratios is not None:
            raise UsageError("keep_ratios belong to rule='top_k': leave them out with 'threshold'")
        self.patches = patches

    def __repr__(self) -> str:
        return "Threshold()"

    def keep(self, log_probs: Tensor) -> Tensor:
        """log P(keep), log P(drop) (..., 2) -> (...) bool."""
        return log_probs[..., 0] > log_probs[..., 1]

    def margin(self, log_probs: Tensor, live: Tensor) -> Tensor:
        """Margin (B, n) in (-1, 1) of keeping: odds / (s + |odds|), the odds in nats.

        s is their mean size over the live tokens of the image, at least 1. P(keep) - 1/2 has the
        same sign, but its slope underflows where the predictor is sure.
        """
        odds = log_probs[..., 0] - log_probs[..., 1]
        sizes = odds.detach().abs() * live
        spread = sizes.sum(1, keepdim=True) / live.sum(1, keepdim=True).clamp_min(1)
        return odds / (spread.clamp_min(1) + odds.abs())

    def most(self, stage: int) -> int:
        """The largest number of patch tokens that can leave a stage."""
        return self.patches


class PredictorLG(nn.Module):
    """Log-probabilities of keeping and dropping each token, from local and global features.

    Half of the features stay the token's own, the other half are averaged over the live tokens
    (section 3.2 of the paper); names and layers are those of the official checkpoints.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_conv = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.out_conv = nn.Sequential(
            nn.Linear(width, width // 2),
            nn.GELU(),
            nn.Linear(width // 2, width // 4),
            nn.GELU(),
            nn.Linear(width // 4, 2),
            nn.LogSoftmax(dim=-1),
        )
        self.local = width // 2
        self.macs_per_token = sum(
            m.in_features * m.out_features for m in self.modules() if isinstance(m, nn.Linear)
        )

    def forward(self, x: Tensor, live: Tensor) -> Tensor:
        """Patch tokens (B, n, C) and live (B, n) bool -> (B, n, 2)."""
        x = self.in_conv(x)
        weights = live.to(x.dtype)
        weights = weights / weights.sum(1, keepdim=True).clamp_min(1)
        local, shared = x[..., : self.local], x[..., self.local :]
        average = (shared * weights[..., None]).sum(1, keepdim=True).expand_as(shared)
        return self.out_conv(torch.cat([local, average], dim=2))

    def ragged(self, x: Tensor, layout: Layout) -> Tensor:
        """Live patch tokens (T, C) -> (T, 2)."""
        x = self.in_conv(x)
        average = layout.by_bucket(_average, x[:, self.local :])
        return self.out_conv(torch.cat([x[:, : self.local], average], dim=1))


def _average(x: Tensor) -> Tensor:
    """(B, n, C) -> the same, each token the mean of its image."""
    return x.mean(1, keepdim=True).expand_as(x)


RULES: dict[str, type[TopK] | type[Threshold]] = {"top_k": TopK, "threshold": Threshold}
