"""The static networks inside an adaptive one: each answers everything at one cost.

A victim that was hardened keeps its savings under attack; so does its own first exit, alone. Which
of them is more accurate at the same attacked cost says whether the decisions are worth having.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from effattack.attacks.house.transfer import FloatModel
from effattack.counting.macs import count_macs
from effattack.models_zoo.layer_skipping.skipnet import SkipNet
from effattack.models_zoo.token_sparsification.ats import ATS
from effattack.models_zoo.token_sparsification.evit import EViT
from effattack.victim import Victim
from effattack.victim.door import blank
from effattack.victim.structure import Exits, Models

RATES = [percent / 100 for percent in range(5, 100, 5)]
"""Shares of the tokens that a static ViT keeps in each block in which the adaptive one samples."""


class Static(NamedTuple):
    """A network that answers everything at one cost."""

    words: str
    macs: float
    victim: Victim


def static_network(victim: Victim, macs: float, heldout: Tensor) -> Static | None:
    """The one whose cost is nearest; None where the victim holds none.

    Args:
        victim: an early exit, a cascade, a SkipNet, or a ViT that samples tokens.
        macs: what it is to cost.
        heldout: (B, C, H, W), which tell the blocks that are open most often.
    """
    found = list(_statics(victim, heldout))
    return min(found, key=lambda each: abs(each.macs - macs)) if found else None


def _statics(victim: Victim, heldout: Tensor) -> Iterator[Static]:
    structure = victim.structure()
    if isinstance(structure, Exits):
        for k, head in enumerate(structure.heads):
            stages = structure.stages[: k + 1]
            model = nn.Sequential(_Normalised(structure.mean, structure.std), *stages, head)
            yield _plain(f"exit {k + 1} of {len(structure.heads)} alone", model, victim)
    elif isinstance(structure, Models):
        for k, model in enumerate(structure.models):
            yield _plain(f"model {k + 1} of {len(structure.models)} alone", model, victim)
    elif isinstance(victim, SkipNet):
        yield from _skipped(victim, heldout)
    elif isinstance(victim, ATS):
        for rate in RATES:
            rates = [rate if b in victim.ats_blocks else 1.0 for b in range(_depth(victim))]
            static = EViT(victim.vit, keep_rates=rates)
            yield Static(f"EViT, keeping {rate:.0%} twice", static.max_macs, static)


def _skipped(victim: SkipNet, heldout: Tensor) -> Iterator[Static]:
    """The n gated blocks that are open most often, for every n."""
    with torch.no_grad():
        gates = victim.trace(heldout).gates
    share = {int(gate.name.split(".")[1]): gate.active.double().mean().item() for gate in gates}
    often = sorted(share, key=lambda k: -share[k])
    for n in range(len(often) + 1):
        dropped = often[n:]
        blocks = [block for k, block in enumerate(victim.blocks) if k not in dropped]
        model = nn.Sequential(victim.stem, *blocks, victim.head)
        yield _plain(f"{n} of {len(often)} gated blocks, always", model, victim)


def _plain(words: str, model: nn.Module, like: Victim) -> Static:
    model.eval()
    return Static(words, count_macs(model, blank(model, like.domain, 1)), FloatModel(model, like))


def _depth(victim: Any) -> int:
    return len(victim.vit.blocks)


class _Normalised(nn.Module):
    """(x - mean) / std."""

    def __init__(self, mean: Tensor | float, std: Tensor | float) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std
