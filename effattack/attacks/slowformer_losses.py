"""SlowFormer's losses on the three token mechanisms; see :mod:`effattack.attacks.slowformer`.

Each maps a trace to (B,) values to be driven up: the paper's loss with its sign turned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from effattack.objectives import ByMechanism, Goal
from effattack.victim import Trace

PUBLISHED_WEIGHTS = {
    3: (1.0, 0.2, 0.2, 0.2, 0.01, 0.01, 0.01),
    6: (1.0, 0.2, 0.05, 0.01, 0.005, 0.005, 0.005),
    12: (2.0, 0.1, 0.02, 0.01, 0.005, 0.005, 0.005),
}
"""w_l of the seven sampling blocks of ATS on DeiT-T, S and B, by their number of heads."""
PONDER_WEIGHT, PRIOR_WEIGHT = 5e-4, 1e-3
"""α_p and α_d, from the official command line."""


@dataclass(frozen=True)
class FlatAttention:
    """On ATS: − Σ_l w_l Σ_heads Σ_i (A_{1,i} − 1/N)², A_{1,i} the attention of CLS to patch i.

    N and the sum are over the patches that reach block l; the official code pads to all patches
    and divides by their number.

    Args:
        weights: w_l, the last of which stands for further blocks too; None: the published ones of
            DeiT-T, S or B, whichever has as many heads; S for other models.
    """

    weights: tuple[float, ...] | None

    def __call__(self, trace: Trace, goal: Goal) -> Tensor:
        rows = trace.aux["cls_attention"]
        live = torch.stack([gate.reached for gate in trace.gates], dim=1)[:, :, None]
        uneven = (rows - 1 / live.sum(3, keepdim=True)).square() * live
        weights = self.weights or PUBLISHED_WEIGHTS.get(rows.shape[2], PUBLISHED_WEIGHTS[6])
        blocks = [weights[min(block, len(weights) - 1)] for block in range(rows.shape[1])]
        return -(uneven.sum((2, 3)) * rows.new_tensor(blocks)).sum(1)


def long_ponder(trace: Trace, goal: Goal) -> Tensor:
    """On A-ViT: α_p · mean over tokens of N_k + r_k, plus α_d · KL(prior ‖ H) / blocks.

    H is the mean halting score of every block, normalised and clamped to [0.01, 0.99]; the prior
    is A-ViT's own, a Gaussian of width 1 around block 8 of 12 (the same fraction of other depths)
    with a mass of 0.98 on the blocks before. Both terms are driven up, as printed; the official
    code drives the second one down. Here H is of every image, there of the batch.
    """
    scores = trace.aux["halting"].mean(2)
    tiny = torch.finfo(scores.dtype).tiny
    found = (scores / scores.sum(1, keepdim=True).clamp_min(tiny)).clamp(0.01, 0.99)
    prior = halting_prior(scores.shape[1]).to(scores)
    divergence = torch.xlogy(prior, prior) - prior * found.log()
    return PONDER_WEIGHT * trace.aux["ponder"].mean(1) + PRIOR_WEIGHT * divergence.mean(1)


def halting_prior(blocks: int) -> Tensor:
    """(blocks,): where A-ViT was trained to halt."""
    centre = max(1, round(blocks * 8 / 12))
    density = (-0.5 * (torch.arange(blocks, dtype=torch.float64) - centre).square()).exp()
    return 0.98 * density / density[:centre].sum()


def full_policies(trace: Trace, goal: Goal) -> Tensor:
    """On AdaViT: M̄_p² + M̄_h² + M̄_b², the means of its patch, head and block policies; γ = 0.

    In place of Gumbel samples stands their mean, σ(z): attacks craft in eval mode. The official
    code takes absolute values instead of squares for heads and blocks.
    """
    kinds = [kind for kind in ("token_policy", "head_policy", "layer_policy") if kind in trace.aux]
    return torch.stack([trace.aux[kind].mean((1, 2)).square() for kind in kinds]).sum(0)


def slowformer_loss(weights: tuple[float, ...] | None) -> ByMechanism:
    """The loss of whatever mechanism a victim has; ``weights`` as in :class:`FlatAttention`."""
    losses: dict[str, Callable[[Trace, Goal], Tensor]] = {
        "cls_attention": FlatAttention(weights),
        "ponder": long_ponder,
        "token_policy": full_policies,
    }
    return ByMechanism("SlowFormer", losses)
