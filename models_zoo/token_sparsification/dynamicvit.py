"""DynamicViT: small predictors between blocks decide which tokens go on.

Rao et al., "DynamicViT: Efficient Vision Transformers with Dynamic Token Sparsification",
NeurIPS 2021 (arXiv 2106.02034). As published it keeps a fixed number of tokens (a control); with
the decisions of its training, each token by its own odds, the number depends on the input.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from effattack.errors import UsageError, unknown_name
from effattack.models_zoo.official import load_official, sized_vit
from effattack.models_zoo.token_sparsification.dynamicvit_policy import (
    RULES,
    PredictorLG,
    Threshold,
    TopK,
)
from effattack.models_zoo.token_sparsification.ragged import Layout, pack, ragged_block
from effattack.models_zoo.token_sparsification.vit import (
    BlockMacs,
    ViTVictim,
    masked_block,
    stem_and_head_macs,
)
from effattack.victim import Gate, Trace


class DynamicViT(ViTVictim):
    """A timm ViT that drops tokens in front of some blocks.

    With ``rule="top_k"`` the victim is constant, all images of a batch keep equally many tokens,
    both paths are the same code, and ``trace(...).aux`` lists the original patch of every survivor
    (``"blocks.3.kept"``, (B, k), most likely first). With ``rule="threshold"`` batches run
    packed (``ragged.py``), and every pruning block has a gate with one unit per patch token; the
    predictors see live tokens only, and none is left to see where all patch tokens were dropped
    (the official code divides by zero there).

    Args:
        vit: any timm ``VisionTransformer`` with a CLS token.
        pruning_blocks: 0-based indices of the blocks in front of which tokens are dropped,
            increasing.
        keep_ratios: for ``"top_k"``, one per pruning block: the share of all patches kept.
        rule: ``"top_k"`` (:class:`TopK`, as published) or ``"threshold"`` (:class:`Threshold`).
        settings: ``name``, ``data``, ``mean``, ``std``.

    Attributes:
        score_predictor: one :class:`PredictorLG` per pruning block, untrained in a new victim.

    Raises:
        UsageError: for blocks, ratios or a rule that do not exist, or a model that cannot be
            wrapped.
    """

    def __init__(
        self,
        vit: VisionTransformer,
        *,
        pruning_blocks: Iterable[int],
        keep_ratios: Sequence[float] | None = None,
        rule: str = "top_k",
        name: str = "DynamicViT",
        **settings: Any,
    ) -> None:
        if rule not in RULES:
            raise unknown_name("rule", rule, RULES)
        super().__init__(
            vit,
            name=name,
            constant=RULES[rule].constant,
            **settings,
        )
        depth = len(vit.blocks)
        self.pruning_blocks = tuple(pruning_blocks)
        in_order = self.pruning_blocks == tuple(sorted({*self.pruning_blocks} & {*range(depth)}))
        if not self.pruning_blocks or not in_order:
            raise UsageError(
                f"pruning_blocks = {self.pruning_blocks} must name some of the blocks 0 to "
                f"{depth - 1}, in increasing order"
            )
        self.patches = vit.patch_embed.num_patches
        stages = len(self.pruning_blocks)
        self.policy = RULES[rule](keep_ratios, stages, self.patches)
        predictors = [PredictorLG(vit.embed_dim) for _ in range(stages)]
        self.score_predictor = nn.ModuleList(predictors)
        self._predictor_macs = predictors[0].macs_per_token
        self.eval()
        blocks: Any = vit.blocks
        self._block_macs = tuple(BlockMacs(block) for block in blocks)
        self._fixed_macs = stem_and_head_macs(vit)
        tokens = self.patches + 1
        self.dense_macs = float(
            self._fixed_macs + sum(macs.dense(tokens) for macs in self._block_macs)
        )
        self.max_macs = float(self._macs([self.policy.most(stage) for stage in range(stages)]))

    @classmethod
    def from_official(
        cls, state_dict: Mapping[str, Tensor], *, num_heads: int, **settings: Any
    ) -> DynamicViT:
        """From the weights of the official implementation (github.com/raoyongming/DynamicViT).

        Args:
            state_dict: official names, ``score_predictor.*`` included; sizes follow from it.
            num_heads: of every block.
            settings: the arguments of the constructor; the normalisation is the identity unless
                ``mean`` and ``std`` are given.

        Raises:
            UsageError: listing missing and surplus keys.
        """
        victim = cls(sized_vit(state_dict, num_heads=num_heads), **settings)
        parts = {"": victim.vit, "score_predictor.": victim.score_predictor}
        load_official(state_dict, parts)
        return victim

    def forward(self, images: Tensor) -> Tensor:
        return self._top_k(images)[0] if self.constant else self._ragged(images)

    def _ragged(self, images: Tensor) -> Tensor:
        """Logits under the rule that lets every image keep its own number of tokens."""
        x, layout = pack(self.embed(images))
        blocks: Any = self.vit.blocks
        for index, block in enumerate(blocks):
            if index in self.pruning_blocks:
                predictor = self.score_predictor[self.pruning_blocks.index(index)]
                rows, layout = layout.keep(self._kept(predictor, x, layout))
                x = x.index_select(0, rows)
            x = ragged_block(block, x, layout)
        return self.classify(x[layout.firsts(), None])

    def _kept(self, predictor: Any, x: Tensor, layout: Layout) -> Tensor:
        """Tokens (T, C) -> (T,) bool; CLS always stays and is not seen by the predictor."""
        assert isinstance(self.policy, Threshold)
        is_patch = torch.ones(len(x), dtype=torch.bool, device=x.device)
        is_patch[layout.firsts()] = False
        patches = is_patch.nonzero()[:, 0]
        others = layout._replace(counts=tuple(count - 1 for count in layout.counts))
        keep = self.policy.keep(predictor.ragged(x.index_select(0, patches), others))
        return (~is_patch).index_copy(0, patches, keep)

    def _top_k(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits and the slots kept per stage; every image keeps equally many tokens."""
        assert isinstance(self.policy, TopK)
        x = self.embed(images)
        kept_slots: list[Tensor] = []
        for index, block in enumerate(self.vit.blocks):
            if index in self.pruning_blocks:
                stage, patches = len(kept_slots), x[:, 1:]
                live = torch.ones(patches.shape[:2], dtype=torch.bool, device=x.device)
                kept = self.policy.select(stage, self.score_predictor[stage](patches, live))
                kept_slots.append(kept)
                patches = torch.take_along_dim(patches, kept[..., None], dim=1)
                x = torch.cat([x[:, :1], patches], dim=1)
            x = block(x)
        return self.classify(x), kept_slots

    def trace(self, images: Tensor) -> Trace:
        return self._fixed_trace(images) if self.constant else self._masked_trace(images)

    def _fixed_trace(self, images: Tensor) -> Trace:
        logits, kept_slots = self._top_k(images)
        origin = torch.arange(self.patches, device=images.device).expand(len(images), -1)
        aux = {}
        for index, slots in zip(self.pruning_blocks, kept_slots, strict=True):
            origin = aux[f"blocks.{index}.kept"] = origin.gather(1, slots)
        macs = torch.full((len(images),), self.max_macs, dtype=torch.float64, device=images.device)
        return Trace(logits=logits, gates=(), macs=macs, aux=aux)

    def _masked_trace(self, images: Tensor) -> Trace:
        assert isinstance(self.policy, Threshold)
        x = self.embed(images)
        live = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        gates: list[Gate] = []
        all_log_probs, counts = [], []
        blocks: Any = self.vit.blocks
        for index, block in enumerate(blocks):
            if index in self.pruning_blocks:
                reached = live[:, 1:]
                log_probs = self.score_predictor[len(gates)](x[:, 1:], reached)
                kept = self.policy.keep(log_probs) & reached
                gates.append(
                    Gate(
                        name=f"blocks.{index}.tokens",
                        margin=self.policy.margin(log_probs, reached),
                        active=kept,
                        reached=reached,
                        cost=self._cost_to_go(index),
                    )
                )
                all_log_probs.append(log_probs)
                counts.append(kept.sum(1).double())
                live = torch.cat([live[:, :1], kept], dim=1)
            x = masked_block(block, x, live)
        return Trace(
            logits=self.classify(x),
            gates=tuple(gates),
            macs=self._macs(counts),
            aux={"keep_log_probs": torch.stack(all_log_probs, dim=1)},
        )

    def _macs(self, kept: Sequence[Any]) -> Any:
        """MACs from the patch tokens that leave every stage, numbers or float tensors."""
        live: Any = self.patches
        total: Any = self._fixed_macs
        for index, macs in enumerate(self._block_macs):
            if index in self.pruning_blocks:
                total = total + live * self._predictor_macs
                live = kept[self.pruning_blocks.index(index)]
            total = total + macs.dense(live + 1)
        return total

    def _cost_to_go(self, index: int) -> float:
        """MACs of one token from block ``index`` to the last, later predictors included."""
        tokens = self.patches + 1
        blocks = sum(m.per_token + 2 * tokens * m.inner for m in self._block_macs[index:])
        later = sum(b > index for b in self.pruning_blocks)
        return float(blocks + later * self._predictor_macs)
