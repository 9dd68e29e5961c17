"""What MACs are held against: closed forms, and torch's own counter where it is right."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from timm.layers import Attention
from timm.models import levit
from timm.models.swin_transformer import WindowAttention
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from effattack.counting.macs import MacsCounter


def attention_macs(batch: int, queries: int, keys: int, width: int) -> int:
    """Q Kᵀ and A V; a key and its value have ``width`` features together, over all heads."""
    return batch * queries * keys * width


def multihead_macs(batch: int, queries: int, keys: int, width: int) -> int:
    """Multi-head attention: four projections, Q Kᵀ and A V."""
    projections = batch * (2 * queries + 2 * keys) * width * width
    return projections + attention_macs(batch, queries, keys, 2 * width)


def closed_form(model: nn.Module, x: Tensor) -> int:
    """MACs of a network of layers and attention, from the shapes that its modules are given.

    Of attention modules these are the two products; their projections are layers.
    """
    total = 0

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += _module_macs(module, inputs[0], output)

    hooks = [module.register_forward_hook(add) for module in model.modules()]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return total


def _module_macs(module: nn.Module, x: Tensor, output: Tensor) -> int:
    match module:
        case nn.Linear() | nn.Conv1d() | nn.Conv2d() | nn.Conv3d():
            return output.numel() * module.weight[0].numel()
        case Attention() | WindowAttention():
            batch, tokens, width = x.shape
            return attention_macs(batch, tokens, tokens, 2 * width)
        case levit.Attention() | levit.AttentionDownsample():
            width = module.num_heads * (module.key_dim + module.val_dim)
            return attention_macs(len(x), output.shape[1], x.shape[1], width)
        case _:
            return 0


def torch_macs(function: Callable[..., Any], *arguments: Any) -> dict[str, int]:
    """Operator -> MACs by torch's own counter, which counts two operations for each."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        function(*arguments)
    counted = counter.get_flop_counts().get("Global", {})
    return {str(operator): operations // 2 for operator, operations in counted.items()}


PROBES: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]], int]] = {
    "aten.mm": (torch.mm, [(3, 4), (4, 5)], 60),
    "aten.addmm": (torch.addmm, [(5,), (3, 4), (4, 5)], 60),
    "aten.bmm": (torch.bmm, [(2, 3, 4), (2, 4, 5)], 120),
    "aten.baddbmm": (torch.baddbmm, [(2, 3, 5), (2, 3, 4), (2, 4, 5)], 120),
    "aten.convolution": (F.conv2d, [(2, 3, 5, 5), (4, 3, 3, 3)], 2 * 4 * 9 * 27),
    "aten._scaled_dot_product_flash_attention_for_cpu": (
        F.scaled_dot_product_attention,
        [(2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 8)],
        2 * 3 * 5 * 7 * 16,
    ),
}
"""Operator -> a function that runs it, shapes of its arguments, MACs in closed form."""


@cache
def torch_is_right_about(operator: str) -> bool:
    """Torch's counter leaves operators out, by its version: attention on the CPU counts 0."""
    function, shapes, expected = PROBES[operator]
    return torch_macs(function, *map(torch.rand, shapes)).get(operator) == expected


def expect_as_torch(function: Callable[..., Any], *arguments: Any) -> None:
    """Fail unless torch's counter agrees with ours, on each operator that it is right about."""
    trusted = {operator for operator in PROBES if torch_is_right_about(operator)}
    if not trusted:
        pytest.skip(f"the counter of torch {torch.__version__} is right about no operator")
    with torch.no_grad(), MacsCounter() as ours:
        function(*arguments)
    theirs = torch_macs(function, *arguments)
    for operator in trusted:
        assert ours.by_operator[operator] == theirs.get(operator, 0), operator
