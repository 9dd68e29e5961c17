"""SlowFormer's losses on the three token mechanisms; see :mod:`.slowformer`.

Each maps a trace to (B,) values to be driven up: the paper's loss, or that of the official code
where it differs, with its sign turned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from effattack.attacks.objectives import ByMechanism, Goal
from effattack.errors import unknown_name
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

    N and the sum are over the patches that reach block l.

    Args:
        weights: w_l, the last of which stands for further blocks too; None: the published ones of
            DeiT-T, S or B, whichever has as many heads; S for other models.
    """

    weights: tuple[float, ...] | None

    def __call__(self, trace: Trace, goal: Goal) -> Tensor:
        rows = trace.aux["cls_attention"]
        weights = self.weights or PUBLISHED_WEIGHTS.get(rows.shape[2], PUBLISHED_WEIGHTS[6])
        blocks = [weights[min(block, len(weights) - 1)] for block in range(rows.shape[1])]
        return -(self.uneven(trace, rows).sum((2, 3)) * rows.new_tensor(blocks)).sum(1)

    def uneven(self, trace: Trace, rows: Tensor) -> Tensor:
        """(B, blocks, heads, patches): how far each attention is from an even one."""
        live = torch.stack([gate.reached for gate in trace.gates], dim=1)[:, :, None]
        return (rows - 1 / live.sum(3, keepdim=True)).square() * live


@dataclass(frozen=True)
class PaddedFlatAttention(FlatAttention):
    """The same as in the official code: N and the sum are over all patches, also dropped ones."""

    def uneven(self, trace: Trace, rows: Tensor) -> Tensor:
        return (rows - 1 / rows.shape[3]).square()


def long_ponder(trace: Trace, goal: Goal) -> Tensor:
    """On A-ViT: α_p · mean over tokens of N_k + r_k, plus α_d · KL(prior ‖ H) / blocks.

    H is the mean halting score of every block, normalised and clamped to [0.01, 0.99]; the prior
    is A-ViT's own, a Gaussian of width 1 around block 8 of 12 (the same fraction of other depths)
    with a mass of 0.98 on the blocks before. Both terms are driven up, as printed. Here H is of
    every image, in the official code of the batch.
    """
    return PONDER_WEIGHT * trace.aux["ponder"].mean(1) + PRIOR_WEIGHT * _from_prior(trace)


def long_ponder_near_prior(trace: Trace, goal: Goal) -> Tensor:
    """The same as in the official code, which drives the divergence down, as A-ViT's training."""
    return PONDER_WEIGHT * trace.aux["ponder"].mean(1) - PRIOR_WEIGHT * _from_prior(trace)


def _from_prior(trace: Trace) -> Tensor:
    """(B,): KL(prior ‖ H) / blocks."""
    scores = trace.aux["halting"].mean(2)
    tiny = torch.finfo(scores.dtype).tiny
    found = (scores / scores.sum(1, keepdim=True).clamp_min(tiny)).clamp(0.01, 0.99)
    prior = halting_prior(scores.shape[1]).to(scores)
    return (torch.xlogy(prior, prior) - prior * found.log()).mean(1)


def halting_prior(blocks: int) -> Tensor:
    """(blocks,): where A-ViT was trained to halt."""
    centre = max(1, round(blocks * 8 / 12))
    density = (-0.5 * (torch.arange(blocks, dtype=torch.float64) - centre).square()).exp()
    return 0.98 * density / density[:centre].sum()


def full_policies(trace: Trace, goal: Goal) -> Tensor:
    """On AdaViT: M̄_p² + M̄_h² + M̄_b², the means of its patch, head and block policies; γ = 0.

    In place of Gumbel samples stands their mean, σ(z): attacks craft in eval mode.
    """
    kinds = [kind for kind in ("token_policy", "head_policy", "layer_policy") if kind in trace.aux]
    return torch.stack([trace.aux[kind].mean((1, 2)).square() for kind in kinds]).sum(0)


def full_masked_policies(trace: Trace, goal: Goal) -> Tensor:
    """The same as in the official code: 2 (M̄_p² + |M̄_h| + |M̄_b|).

    M̄_h is the mean over heads of the blocks that are on, which compute attention, MLP or both.
    Here the means are of every image, there of the batch.
    """
    total = trace.aux["token_policy"].mean((1, 2)).square()
    if "layer_policy" in trace.aux:
        total = total + trace.aux["layer_policy"].mean((1, 2)).abs()
    if "head_policy" in trace.aux:
        heads = trace.aux["head_policy"]
        on = _blocks_on(trace, heads)
        shown = (heads * on).sum((1, 2)) / (on.expand_as(heads).sum((1, 2)) + 1e-6)
        total = total + shown.abs()
    return 2 * total


def _blocks_on(trace: Trace, heads: Tensor) -> Tensor:
    """(B, blocks, 1), 1 where a block computes anything; all, where no sublayer is dropped."""
    kinds = (
        [gate.active for gate in trace.gates if gate.name.endswith(end)]
        for end in (".attention", ".mlp")
    )
    sublayers = [torch.cat(kind, 1) for kind in kinds if kind]
    if not sublayers:
        return heads.new_ones(*heads.shape[:2], 1)
    return torch.stack(sublayers).any(0).to(heads)[:, :, None]


def slowformer_loss(source: str, weights: tuple[float, ...] | None) -> ByMechanism:
    """The loss of whatever mechanism a victim has; ``weights`` as in :class:`FlatAttention`.

    Raises:
        UsageError: for a source other than "paper", its equations, and "code", the official one.
    """
    known: dict[str, dict[str, Callable[[Trace, Goal], Tensor]]] = {
        "paper": {
            "cls_attention": FlatAttention(weights),
            "ponder": long_ponder,
            "token_policy": full_policies,
        },
        "code": {
            "cls_attention": PaddedFlatAttention(weights),
            "ponder": long_ponder_near_prior,
            "token_policy": full_masked_policies,
        },
    }
    if source not in known:
        raise unknown_name("loss of SlowFormer", source, known)
    return ByMechanism("SlowFormer", known[source])
