"""A-ViT: each token adds up halting scores and leaves the network once they reach one.

Yin et al., "A-ViT: Adaptive Tokens for Efficient Vision Transformer", CVPR 2022 (arXiv 2112.07658).
The halting score is channel 0 of the token itself: no weights beside those of the ViT.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from effattack.errors import UsageError
from effattack.models_zoo.token_sparsification.avit_policy import AdaptiveHalting, Halted
from effattack.models_zoo.token_sparsification.ragged import pack, ragged_block
from effattack.models_zoo.token_sparsification.vit import (
    BlockMacs,
    ViTVictim,
    masked_block,
    stem_and_head_macs,
)
from effattack.victim import Gate, Trace


class AViT(ViTVictim):
    """A timm ViT whose tokens halt, each at its own depth.

    The prediction reads the halting-weighted sum of the CLS token's block outputs. Two meters,
    followed by both paths. As published: every token is computed to its own depth, CLS among
    them; tokens that outlive CLS are computed although nothing reads them any more. With
    ``stop_on_cls`` the network returns once CLS has halted; the logits are the same.

    ``forward`` gathers the tokens that go on; batches run packed (``ragged.py``). After every
    block but the last there are two gates: ``blocks.k.tokens``, one unit per patch token, and
    ``blocks.k.cls``, the CLS token (with ``stop_on_cls``: the whole rest of the network).

    The trace's ``aux`` holds, each (B, blocks, N) and 0 where the token was not computed:
    ``halting`` the scores h, that of the last block as it is before it is replaced by 1;
    ``cumulative`` their sums c, with 1 for the last block, unchanged once a token has halted;
    ``live``, the blocks that a token took part in; and ``ponder`` (B, N), the ponder
    ρ = blocks + remainder.

    Args:
        vit: any timm ``VisionTransformer`` with a CLS token, trained to halt.
        gate_scale: γ (official: 10).
        gate_center: β, subtracted (official: 30 for tiny, 75 for small).
        halting_eps: ε (official: 0.01).
        stop_on_cls: the meter.
        settings: ``name``, ``data``, ``mean``, ``std``.

    Raises:
        UsageError: for ε outside (0, 1), γ = 0, or a model that cannot be wrapped.
    """

    def __init__(
        self,
        vit: VisionTransformer,
        *,
        gate_scale: float,
        gate_center: float,
        halting_eps: float = 0.01,
        stop_on_cls: bool = False,
        name: str = "AViT",
        **settings: Any,
    ) -> None:
        super().__init__(
            vit,
            name=name,
            **settings,
        )
        if not 0 < halting_eps < 1:
            raise UsageError(f"halting_eps = {halting_eps} must lie between 0 and 1 (paper: 0.01)")
        if not gate_scale or not isfinite(gate_scale + gate_center):
            raise UsageError(
                f"gate_scale = {gate_scale}, gate_center = {gate_center}: use the trained values; "
                "a scale of 0 makes every token halt alike"
            )
        self.policy = AdaptiveHalting(gate_scale, gate_center, halting_eps)
        self.stop_on_cls = stop_on_cls
        self.tokens = vit.patch_embed.num_patches + 1
        self._block_macs = tuple(BlockMacs(block) for block in vit.blocks)
        self.dense_macs = float(self._macs([self.tokens] * len(vit.blocks)))
        self.max_macs = self.dense_macs

    def forward(self, images: Tensor) -> Tensor:
        x, layout = pack(self.embed(images))
        state = self.policy.start(x[None])
        owner = torch.arange(len(images), device=x.device).repeat_interleave(self.tokens)
        is_cls = torch.arange(len(x), device=x.device) % self.tokens == 0
        output = x.new_zeros(len(images), x.shape[1])
        blocks: Any = self.vit.blocks
        for index, block in enumerate(blocks):
            x = ragged_block(block, x, layout)
            cls = is_cls.nonzero()[:, 0]
            state = self.step(index, state, self.policy.log_odds(x[None]), patches=len(cls))
            output = output.index_add(0, owner[cls], state.weight[0, cls, None] * x[cls])
            onward = state.onward[0]
            if self.stop_on_cls:
                running = onward.new_zeros(len(images)).index_copy(0, owner[cls], onward[cls])
                onward = onward & running[owner]
            rows, layout = layout.keep(onward)
            if not len(rows):
                break
            x, state = x.index_select(0, rows), state.rows(rows)
            owner, is_cls = owner[rows], is_cls[rows]
        return self.classify(output[:, None])

    def step(self, index: int, before: Halted, log_odds: Tensor, patches: int) -> Halted:
        """Where the tokens stand after block ``index``.

        Args:
            index: of the block.
            before: where they stood.
            log_odds: (B, n), of the block's halting scores.
            patches: of a single image, where its patch tokens begin: 1, or 0 where CLS has left.
        """
        last = index == len(self.vit.blocks) - 1
        return self.policy.step(before, torch.ones_like(log_odds) if last else log_odds.sigmoid())

    def trace(self, images: Tensor) -> Trace:
        x = self.embed(images)
        state = self.policy.start(x)
        output = torch.zeros_like(x[:, :1])
        ponder = x.new_zeros(x.shape[:2])
        gates: list[Gate] = []
        live, halting, cumulative = [], [], []
        for index, block in enumerate(self.vit.blocks):
            before = state
            x = masked_block(block, x, _attended(before.onward))
            log_odds = self.policy.log_odds(x)
            state = self.step(index, before, log_odds, patches=1)
            output = output + state.weight[:, :1, None] * x[:, :1]
            live.append(before.onward)
            halting.append(log_odds.sigmoid() * before.onward)
            cumulative.append(state.cumulative)
            ponder = ponder + before.onward + state.weight * (before.onward & ~state.onward)
            if self.stop_on_cls:
                state = state._replace(onward=state.onward & state.onward[:, :1])
            if index < len(self.vit.blocks) - 1:
                gates += self._gates(index, before, state, log_odds)
        return Trace(
            logits=self.classify(output),
            gates=tuple(gates),
            macs=self._macs([tokens.sum(1).double() for tokens in live]),
            aux={
                "halting": torch.stack(halting, dim=1),
                "cumulative": torch.stack(cumulative, dim=1),
                "live": torch.stack(live, dim=1),
                "ponder": ponder,
            },
        )

    def _gates(self, index: int, before: Halted, after: Halted, log_odds: Tensor) -> list[Gate]:
        """Who goes on after block ``index``: the CLS token is asked first."""
        margin = self.policy.margin(before, log_odds, after.onward)
        live, onward = before.onward, after.onward
        reached = live[:, 1:] & onward[:, :1] if self.stop_on_cls else live[:, 1:]
        later = self._block_macs[index + 1 :]
        token = float(sum(m.per_token + 2 * self.tokens * m.inner for m in later))
        network = float(sum(m.dense(self.tokens) for m in later))
        return [
            Gate(
                name=f"blocks.{index}.cls",
                margin=margin[:, 0],
                active=onward[:, 0],
                reached=live[:, 0],
                cost=network if self.stop_on_cls else token,
            ),
            Gate(
                name=f"blocks.{index}.tokens",
                margin=margin[:, 1:],
                active=onward[:, 1:],
                reached=reached,
                cost=token,
            ),
        ]

    def _macs(self, counts: list[Any]) -> Any:
        """MACs from the tokens (CLS included) that enter each block."""
        total = counts[0] * 0 + stem_and_head_macs(self.vit)
        for macs, count in zip(self._block_macs, counts, strict=True):
            total = total + macs.dense(count)
        return total


def _attended(live: Tensor) -> Tensor:
    """Live tokens; where none is left, CLS, so that the rows of the masked softmax stay finite."""
    nobody = ~live.any(dim=1, keepdim=True)
    return torch.cat([live[:, :1] | nobody, live[:, 1:]], dim=1)
