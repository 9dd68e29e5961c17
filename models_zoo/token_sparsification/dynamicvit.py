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
from effattack.models_zoo.token_sparsification.vit import (
    BlockMacs,
    ViTVictim,
    masked_block,
    stem_and_head_macs,
)
from effattack.victim import Gate, Trace


class TopK:
    """The published rule: stage s keeps the ⌊ratio_s · patches⌋ tokens most likely kept.

    Ratios refer to the patches of the image, not to the tokens that are left; a stage that finds
    fewer keeps them all. The official code fixes the 196 patches of a 14 x 14 grid.

    Raises:
        UsageError: for ratios that are missing, outside (0, 1], or leave no token.
    """

    constant = True

    def __init__(self, keep_ratios: Sequence[float] | None, stages: int, patches: int) -> None:
        if keep_ratios is None or len(keep_ratios) != stages:
            found = "no" if keep_ratios is None else len(keep_ratios)
            raise UsageError(f"{found} keep_ratios for {stages} pruning_blocks: give one for each")
        if bad := [ratio for ratio in keep_ratios if not 0 < ratio <= 1]:
            raise UsageError(f"keep_ratios {bad} are no shares: use values in (0, 1]")
        self.counts: list[int] = []
        for ratio in keep_ratios:
            self.counts.append(min(int(patches * ratio), *self.counts[-1:], patches))
        if not all(self.counts):
            raise UsageError(
                f"keep_ratios {tuple(keep_ratios)} of {patches} patches leave no patch token: use "
                "larger ratios or an image of more patches"
            )

    def __repr__(self) -> str:
        return f"TopK(counts={self.counts})"

    def select(self, stage: int, log_probs: Tensor) -> Tensor:
        """log P(keep), log P(drop) (B, n, 2) -> slots kept (B, k), most likely first."""
        order = log_probs[..., 0].argsort(dim=1, descending=True, stable=True)
        return order[:, : self.counts[stage]]

    def most(self, stage: int) -> int:
        """The largest number of patch tokens that can leave a stage."""
        return self.counts[stage]


class Threshold:
    """The rule of training without its noise: a token is kept if log P(keep) > log P(drop).

    Raises:
        UsageError: if ratios are given, which this rule has no use for.
    """

    constant = False

    def __init__(self, keep_ratios: Sequence[float] | None, stages: int, patches: int) -> None:
        if keep_ratios is not None:
            raise UsageError("keep_ratios belong to rule='top_k': leave them out with 'threshold'")
        self.patches = patches

    def __repr__(self) -> str:
        return "Threshold()"

    def keep(self, log_probs: Tensor) -> Tensor:
        """log P(keep), log P(drop) (B, n, 2) -> (B, n) bool."""
        return log_probs[..., 0] > log_probs[..., 1]

    def select(self, stage: int, log_probs: Tensor) -> Tensor:
        """The same for one image: (1, n, 2) -> slots kept (1, k), ascending."""
        return self.keep(log_probs)[0].nonzero().T

    def margin(self, log_probs: Tensor, live: Tensor) -> Tensor:
        """Margin (B, n) in (-1, 1) of keeping: odds / (s + |odds|), the odds in nats.

        s is their mean size over the live tokens of the image, at least 1. P(keep) - 1/2 has the
        same sign, but its slope underflows where the predictor is sure.
        """
        odds = log_probs[..., 0] - log_probs[..., 1]
        sizes = odds.detach().abs() * live
        spread = sizes.sum(1, keepdim=True) / live.sum(1, keepdim=True).clamp_min(1)
        return odds / (spread.clamp_min(1) + odds.abs())

    def most(self, stage: int) -> int:
        """The largest number of patch tokens that can leave a stage."""
        return self.patches


RULES: dict[str, type[TopK] | type[Threshold]] = {"top_k": TopK, "threshold": Threshold}


class PredictorLG(nn.Module):
    """Log-probabilities of keeping and dropping each token, from local and global features.

    Half of the features stay the token's own, the other half are averaged over the live tokens
    (section 3.2 of the paper); names and layers are those of the official checkpoints.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_conv = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.out_conv = nn.Sequential(
            nn.Linear(width, width // 2),
            nn.GELU(),
            nn.Linear(width // 2, width // 4),
            nn.GELU(),
            nn.Linear(width // 4, 2),
            nn.LogSoftmax(dim=-1),
        )
        self.local = width // 2
        self.macs_per_token = sum(
            m.in_features * m.out_features for m in self.modules() if isinstance(m, nn.Linear)
        )

    def forward(self, x: Tensor, live: Tensor) -> Tensor:
        """Patch tokens (B, n, C) and live (B, n) bool -> (B, n, 2)."""
        x = self.in_conv(x)
        weights = live.to(x.dtype)
        weights = weights / weights.sum(1, keepdim=True).clamp_min(1)
        local, shared = x[..., : self.local], x[..., self.local :]
        average = (shared * weights[..., None]).sum(1, keepdim=True).expand_as(shared)
        return self.out_conv(torch.cat([local, average], dim=2))


class DynamicViT(ViTVictim):
    """A timm ViT that drops tokens in front of some blocks.

    With ``rule="top_k"`` the victim is constant, all images of a batch keep equally many tokens,
    both paths are the same code, and ``trace(...).aux`` lists the original patch of every survivor
    (``"blocks.3.kept"``, (B, k), most likely first). With ``rule="threshold"`` batches run image
    by image, and every pruning block has a gate with one unit per patch token; the predictors see
    live tokens only, and none is left to see where all patch tokens were dropped (the official
    code divides by zero there).

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
        if self.patches < 1:
            raise UsageError(
                f"an image of {self.input_shape} has no patch token: use an image of at least one "
                "patch"
            )
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
        if not len(images):
            return images.new_zeros(0, self.num_classes)
        batches = (images,) if self.constant else images.split(1)
        return torch.cat([self._gathered(batch)[0] for batch in batches])

    def _gathered(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits and the slots kept per stage; every image must keep equally many tokens."""
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
        logits, kept_slots = self._gathered(images)
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
