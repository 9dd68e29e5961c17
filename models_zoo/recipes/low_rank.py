"""Low-rank adapters: a trained network is tuned by a few weights beside those that it has.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021 (arXiv 2106.09685): a weight W
becomes W + B A with A (rank, in) and B (out, rank), and W itself is fixed. The paper's factor α / r
is 1 here. The paper adapts projections of attention; here every linear layer and every convolution
is adapted, whose kernel counts as a weight (out, in · height · width).

Folded, the sum is the weight: the network has the layers that it had, and does as many MACs.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils import parametrize

from effattack.errors import UsageError, expect_least

ADAPTED = (nn.Linear, nn.Conv1d, nn.Conv2d)


class LowRank(nn.Module):
    """W -> W + B A, in the shape of W (out, ...); at first B is 0, and A drawn.

    Args:
        weight: W.
        rank: of B A, at most.

    Raises:
        UsageError: for a rank below 1, or above that of the weight.
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        expect_least("rank", rank, 1)
        out, inner = weight.flatten(1).shape
        if rank > min(out, inner):
            raise UsageError(
                f"rank = {rank} for a weight of {out} x {inner}: give {min(out, inner)}, its own, "
                "or less"
            )
        self.down = nn.Parameter(weight.new_empty(rank, inner).normal_(std=inner**-0.5))
        self.up = nn.Parameter(weight.new_zeros(out, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.up @ self.down).view_as(weight)


def adapt(model: nn.Module, rank: int) -> nn.ModuleList:
    """Put an adapter on every linear layer and convolution, in place.

    Nothing else of the model can be trained until :func:`fold`.

    Returns:
        The adapters, to be trained.

    Raises:
        UsageError: for a rank that some layer cannot have, or a model without such layers.
    """
    layers = [module for module in model.modules() if isinstance(module, ADAPTED)]
    if not layers:
        raise UsageError(
            f"{type(model).__name__} has no linear layer and no convolution: there is nothing to "
            "adapt"
        )
    adapters = nn.ModuleList(LowRank(layer.weight, rank) for layer in layers)
    model.requires_grad_(False)
    for layer, adapter in zip(layers, adapters, strict=True):
        parametrize.register_parametrization(layer, "weight", adapter)
    return adapters


def fold(model: nn.Module) -> None:
    """Make every adapted weight a plain one that holds the sum, in place."""
    for module in list(model.modules()):
        if isinstance(module, ADAPTED) and parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    model.requires_grad_(True)
