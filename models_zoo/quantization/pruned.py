"""A pruned network: fewer weights, the same work on dense kernels."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn
from torch.nn.utils import prune

from effattack.errors import UsageError
from effattack.models_zoo.quantization.probing import ConstantVictim, probe


class Pruned(ConstantVictim):
    """Your own float model without its smallest weights: a control whose MACs cannot move.

    The weights of all linear and convolutional layers are ranked together by magnitude, and the
    smallest share becomes zero for good (Han et al. 2015, arXiv 1506.02626, without retraining).
    Dense kernels multiply zeros as well: the executed MACs are those of the dense model, and that
    is what the victim declares. What kernels that skip zeros would execute is ``nonzero_macs``.

    Args:
        model: any module (B, *input_shape) -> (B, classes), its normalisation included; copied.
        input_shape: (C, H, W) of one image.
        amount: share of the weights that become zero, 0 <= amount < 1.
        settings: ``data``.

    Attributes:
        nonzero_macs: MACs of one image without those that meet a pruned weight.

    Raises:
        UsageError: for an amount out of range, or a model with nothing to prune.
    """

    def __init__(
        self,
        model: nn.Module,
        input_shape: tuple[int, ...],
        amount: float = 0.5,
        *,
        name: str = "Pruned",
        **settings: Any,
    ) -> None:
        if not 0 <= amount < 1:
            raise UsageError(f"amount = {amount}: prune a share of the weights in [0, 1)")
        probed = probe(model, input_shape, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))
        if not probed.calls:
            raise UsageError(f"{type(model).__name__} has no linear or convolutional layer")
        pruned = copy.deepcopy(model)
        layers = {call.name: pruned.get_submodule(call.name) for call in probed.calls}
        weights = [(layer, "weight") for layer in layers.values()]
        prune.global_unstructured(weights, prune.L1Unstructured, amount=float(amount))
        for layer in layers.values():
            prune.remove(layer, "weight")
        super().__init__(pruned, model, probed, name=name, input_shape=input_shape, **settings)
        zeros = {name: int((layer.weight == 0).sum()) for name, layer in layers.items()}
        skipped = sum(call.positions * zeros[call.name] for call in probed.calls)
        self.nonzero_macs = float(probed.macs - skipped)
