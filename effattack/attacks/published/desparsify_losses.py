"""DeSparsify's losses on the three token mechanisms; see :mod:`.desparsify`.

Each maps a trace to (B,) values to be driven up: the paper's loss with its sign turned.
"""

from __future__ import annotations

import torch
from torch import Tensor

from effattack.attacks.objectives import ByMechanism, Goal, UniformSignificance
from effattack.victim import Trace


def late_halting(trace: Trace, goal: Goal) -> Tensor:
    """On A-ViT: − mean over tokens and blocks of 1[n ≤ I_j] (Σ_{l ≤ n} h_j^l)²; I_j: halting depth.

    The printed indicator is 1[I_j < n]; the text excludes the depths after the halt, as here. As
    A-ViT defines it, h of the last block is 1.
    """
    sums, live = trace.aux["cumulative"], trace.aux["live"]
    return -(sums.square() * live).mean((1, 2))


def open_policies(trace: Trace, goal: Goal) -> Tensor:
    """On AdaViT: − mean over blocks of what its policies M lack to 1.

    ½ Σ_b (M^b − 1)² over attention and MLP, plus the mean of (M^h − 1)² over heads where the
    attention is computed, plus the mean of (M^p − 1)² over patches. In place of Gumbel samples
    stands their mean, σ(z): attacks craft in eval mode, where policies do not draw.
    """
    missing = {k: (m - 1).square() for k, m in trace.aux.items() if k.endswith("_policy")}
    tokens = missing["token_policy"]
    total = tokens.mean(2).sum(1)
    if "layer_policy" in missing:
        total = total + missing["layer_policy"].mean(2).sum(1)
    if "head_policy" in missing:
        asked = [gate.active for gate in trace.gates if gate.name.endswith(".attention")]
        heads = missing["head_policy"].mean(2)
        total = total + (heads * torch.cat(asked, 1) if asked else heads).sum(1)
    return -total / tokens.shape[1]


DESPARSIFY = ByMechanism(
    "DeSparsify",
    {
        "significance": UniformSignificance(),
        "cumulative": late_halting,
        "token_policy": open_policies,
    },
)
