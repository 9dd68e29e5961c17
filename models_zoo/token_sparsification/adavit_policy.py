"""The policy of AdaViT: which tokens, heads and sublayers of a block are computed."""

from __future__ import annotations

from typing import NamedTuple

from timm.models.vision_transformer import Block
from torch import Tensor, nn

from effattack.errors import UsageError
from effattack.victim import Gate
from effattack.victim.margins import bounded_margin, log_odds

OPEN = 3.0
"""Bias of an untrained policy: σ(3) = 0.95, everything is computed."""
MARGIN_SCALE = 0.25
"""In log-odds. Small: attacks go for the nearest gates first, which was measured to be stronger.
Not smaller: the rounding of z in float32, about 1e-6, must stay within ``margin_slack``."""


class Choice(NamedTuple):
    """One kind of decision in one block, for units of shape (B, units)."""

    logits: Tensor
    """z; infinite where there is no policy and everything is kept."""
    threshold: float
    fixed: bool = False
    """There is no policy."""
    straight_through: bool = False
    """Factors have the gradient of σ(z), as in the official code; else none."""

    @property
    def soft(self) -> Tensor:
        """σ(z)."""
        return self.logits.sigmoid()

    @property
    def keep(self) -> Tensor:
        """The decision: σ(z) > threshold, strictly."""
        return self.soft > self.threshold

    @property
    def factor(self) -> Tensor:
        """The decision as 0 or 1."""
        hard, soft = self.keep.to(self.logits.dtype), self.soft
        return hard + (soft - soft.detach()) if self.straight_through else hard

    @property
    def share(self) -> Tensor:
        """σ(z), moved so that the threshold lies at 1/2."""
        return (self.logits - log_odds(self.threshold)).sigmoid()

    @property
    def margin(self) -> Tensor:
        """Like σ(z) - threshold, on log-odds; steepest at the threshold."""
        return bounded_margin(self.logits - log_odds(self.threshold), MARGIN_SCALE, self.keep)

    def gate(self, name: str, asked: Tensor, cost: float) -> Gate:
        """Of units (B,) or (B, units); ``asked`` (B,) tells which images decide on them."""
        reached = asked.view(-1, *(1,) * (self.logits.dim() - 1)).expand_as(self.logits)
        return Gate(name, self.margin, active=self.keep & reached, reached=reached, cost=cost)

    def unit(self, index: int) -> Choice:
        """One of the units alone, (B,)."""
        return self._replace(logits=self.logits[:, index])


class Thresholds(NamedTuple):
    """On σ(z)."""

    tokens: float
    heads: float
    layers: float

    def check(self) -> None:
        """Refuse values that no σ(z) can pass, or all can.

        Raises:
            UsageError: naming the thresholds.
        """
        if bad := [f"{name} {t}" for name, t in self._asdict().items() if not 0 < t < 1]:
            raise UsageError(
                f"thresholds out of range ({', '.join(bad)}): they must lie strictly between 0 and "
                "1; switch a policy off with heads=False, layers=False"
            )


class BlockPolicy(nn.Module):
    """Linear policies in front of one block.

    Args:
        block: the block.
        thresholds: on σ(z).
        heads, layers: whether heads and sublayers may be dropped; else all are kept.
    """

    def __init__(self, block: Block, thresholds: Thresholds, *, heads: bool, layers: bool) -> None:
        super().__init__()
        self.thresholds = thresholds
        self.num_heads = block.attn.num_heads
        width = block.attn.qkv.in_features
        self.token_select = _linear(width, 1)
        self.head_select = _linear(width, self.num_heads) if heads else None
        self.layer_select = _linear(width, 2) if layers else None

    def tokens(self, normed: Tensor) -> Choice:
        """norm1(x) (B, N, width) -> the patch tokens (B, N - 1); CLS always stays."""
        return self._choice(self.token_select(normed[:, 1:])[:, :, 0], self.thresholds.tokens)

    def heads(self, x: Tensor) -> Choice:
        """x (B, N, width) before any norm -> the heads (B, heads), read from CLS."""
        if self.head_select is None:
            return _everything(x, self.num_heads)
        return self._choice(self.head_select(x[:, 0]), self.thresholds.heads)

    def layers(self, x: Tensor) -> Choice:
        """x (B, N, width) before any norm -> attention and MLP (B, 2), read from CLS."""
        if self.layer_select is None:
            return _everything(x, 2)
        return self._choice(self.layer_select(x[:, 0]), self.thresholds.layers)

    def _choice(self, logits: Tensor, threshold: float) -> Choice:
        return Choice(logits, threshold, straight_through=self.training)


def _everything(x: Tensor, units: int) -> Choice:
    return Choice(x.new_full((len(x), units), float("inf")), 0.5, fixed=True)


def _linear(width: int, units: int) -> nn.Linear:
    layer = nn.Linear(width, units)
    nn.init.trunc_normal_(layer.weight, std=0.02)
    nn.init.constant_(layer.bias, OPEN)
    return layer
