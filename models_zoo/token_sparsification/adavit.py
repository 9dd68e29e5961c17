"""AdaViT: every block decides anew which tokens, heads and sublayers it computes.

Meng et al., "AdaViT: Adaptive Vision Transformers for Efficient Image Recognition", CVPR 2022
(arXiv 2111.15668).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from effattack.errors import UsageError, unknown_name
from effattack.models_zoo.token_sparsification.adavit_macs import AdaptiveBlockMacs
from effattack.models_zoo.token_sparsification.adavit_official import load_adavit, sized_adavit
from effattack.models_zoo.token_sparsification.adavit_policy import (
    BlockPolicy,
    Choice,
    Thresholds,
)
from effattack.models_zoo.token_sparsification.heads import (
    check_width,
    masked_attention,
    sliced_attention,
    sliced_mlp,
)
from effattack.models_zoo.token_sparsification.ragged import alike, pack
from effattack.models_zoo.token_sparsification.vit import ViTVictim, stem_and_head_macs, with_cls
from effattack.victim import Gate, Trace


class AdaViT(ViTVictim):
    """A timm ViT with small linear policies in front of every block.

    Dropped tokens leave the block's attention and MLP and keep their residual: they may come back
    in a later block. CLS always stays. Token policies read norm1(x), the policies of heads and
    sublayers the CLS token as it is. ``forward`` gathers tokens, slices the weights of dropped
    heads, passes over dropped sublayers, and asks no policy whose answer would change nothing. In a
    batch, images that keep the same sublayers and heads of a block run packed (``ragged.py``).

    Gates, where the block has the policy: ``blocks.k.attention`` and ``blocks.k.mlp`` (B,),
    ``blocks.k.heads`` (B, heads), ``blocks.k.tokens`` (B, patches). Decisions do not outlive their
    block, so the cost of a unit is the most that it can cost in its block. The trace's ``aux``
    holds σ(z) of all policies, asked or not: ``token_policy`` (B, blocks, patches), ``head_policy``
    (B, later blocks, heads), ``layer_policy`` (B, later blocks, 2); and ``shares`` (B, units), the
    same in the order of the gates, moved so that every threshold lies at 1/2. In training mode the
    hard decisions have the straight-through gradient of σ(z), as in the official code (which has it
    in eval mode too); in eval mode they have none, which attacks were measured to gain from.

    Args:
        vit: any timm ``VisionTransformer`` with a CLS token. The policies are added; untrained,
            they keep everything.
        keep_layers: leading blocks that keep all heads and sublayers.
        token_threshold, head_threshold, layer_threshold: a unit is kept if σ(z) is larger.
        heads, layers: whether heads and sublayers are dropped at all.
        dropped_head: "width": its channels leave the attention and the input of the MLP, as in
            the official evaluation; "identity_attention": its tokens attend to themselves.
        settings: ``name``, ``data``, ``mean``, ``std``.

    Attributes:
        policies: one :class:`BlockPolicy` per block.

    Raises:
        UsageError: for values out of range, or a model that cannot be wrapped.
    """

    def __init__(
        self,
        vit: VisionTransformer,
        *,
        keep_layers: int = 1,
        token_threshold: float = 0.6,
        head_threshold: float = 0.5,
        layer_threshold: float = 0.5,
        heads: bool = True,
        layers: bool = True,
        dropped_head: Literal["width", "identity_attention"] = "width",
        name: str = "AdaViT",
        **settings: Any,
    ) -> None:
        super().__init__(
            vit,
            name=name,
            **settings,
        )
        if not 0 <= keep_layers <= len(vit.blocks):
            raise UsageError(f"keep_layers = {keep_layers} must be 0 to {len(vit.blocks)} blocks")
        if dropped_head not in ("width", "identity_attention"):
            raise unknown_name("dropped_head", dropped_head, ("width", "identity_attention"))
        self.identity = dropped_head == "identity_attention"
        thresholds = Thresholds(token_threshold, head_threshold, layer_threshold)
        thresholds.check()
        blocks: Any = vit.blocks
        if heads and not self.identity:
            for block in blocks:
                check_width(block)
        self.policies = nn.ModuleList()
        self._macs: list[AdaptiveBlockMacs] = []
        for index, block in enumerate(blocks):
            free = index >= keep_layers
            policy = BlockPolicy(block, thresholds, heads=heads and free, layers=layers and free)
            macs = AdaptiveBlockMacs(block, policy, vit.patch_embed.num_patches, self.identity)
            self.policies.append(policy)
            self._macs.append(macs)
        self.eval()
        self._fixed_macs = stem_and_head_macs(vit)
        self.dense_macs = float(self._fixed_macs + sum(macs.dense() for macs in self._macs))
        self.max_macs = float(self._fixed_macs + sum(macs.most() for macs in self._macs))

    @classmethod
    def from_official(
        cls, state_dict: Mapping[str, Tensor], *, num_heads: int, **settings: Any
    ) -> AdaViT:
        """From the weights of the official implementation (github.com/MengLcool/AdaViT, DeiT form).

        Args:
            state_dict: official names; sizes follow from it. The policies of heads and sublayers
                may be in it, unused, where ``heads`` and ``layers`` are switched off.
            num_heads: of every block.
            settings: the arguments of the constructor; the normalisation is the identity unless
                ``mean`` and ``std`` are given.

        Raises:
            UsageError: listing missing and surplus keys.
        """
        victim = cls(sized_adavit(state_dict, num_heads=num_heads), **settings)
        load_adavit(
            state_dict,
            victim.vit,
            list(victim.policies),
            heads=settings.get("heads", True),
            layers=settings.get("layers", True),
        )
        return victim

    def _blocks(self) -> Iterator[tuple[Any, Any]]:
        blocks: Any = self.vit.blocks
        return zip(blocks, self.policies, strict=True)

    def forward(self, images: Tensor) -> Tensor:
        x = self.embed(images)
        for block, policy in self._blocks():
            layers = policy.layers(x).keep
            busy = layers.any(1).nonzero()[:, 0]
            if 0 < len(busy) < len(x):
                x = x.index_copy(0, busy, self._block(block, policy, x[busy], layers[busy]))
            elif len(busy):
                x = self._block(block, policy, x, layers)
        return self.classify(x)

    def _block(self, block: Any, policy: BlockPolicy, x: Tensor, layers: Tensor) -> Tensor:
        """Images with at least one sublayer, in groups that keep the same sublayers and heads."""
        heads = self._heads(policy, x, layers[:, 0])
        normed = block.norm1(x)
        live = with_cls(policy.tokens(normed).keep)
        normed = normed.flatten(0, 1)
        before, layout = pack(x)
        all_rows, outputs = [], []
        for (attend, feed, *chosen), images in alike(torch.cat([layers, heads], dim=1)):
            ours = live
            if len(images) < len(x):
                ours = torch.zeros_like(live)
                ours[images] = live[images]
            rows, group = layout.keep(ours.flatten())
            kept = None if all(chosen) else heads[images[0]].nonzero()[:, 0]
            tokens = before.index_select(0, rows)
            if attend:
                update = sliced_attention(
                    block.attn, normed.index_select(0, rows), group, kept, identity=self.identity
                )
                tokens = tokens + block.ls1(update)
            if feed:
                read = None if self.identity else kept
                update = sliced_mlp(block.mlp, block.norm2(tokens), read, policy.num_heads)
                tokens = tokens + block.ls2(update)
            all_rows.append(rows)
            outputs.append(tokens)
        after = before.index_copy(0, torch.cat(all_rows), torch.cat(outputs))
        return after.view_as(x)

    def _heads(self, policy: BlockPolicy, x: Tensor, attend: Tensor) -> Tensor:
        """The heads kept (B, heads) bool; all where nobody needs to know."""
        if self.identity and not attend.all():
            asked = attend.nonzero()[:, 0]
            everything = attend.new_ones(len(x), policy.num_heads)
            return everything.index_copy(0, asked, policy.heads(x[asked]).keep)
        return policy.heads(x).keep

    def trace(self, images: Tensor) -> Trace:
        x = self.embed(images)
        macs = torch.full((len(x),), float(self._fixed_macs), dtype=torch.float64, device=x.device)
        gates: list[Gate] = []
        soft: dict[str, list[Tensor]] = {}
        shares: list[Tensor] = []
        for index, (block, policy) in enumerate(self._blocks()):
            layers, heads = policy.layers(x), policy.heads(x)
            tokens = policy.tokens(block.norm1(x))
            x = self._masked_block(block, x, layers, heads, tokens)
            gates += self._gates(index, layers, heads, tokens)
            kept = (with_cls(tokens.keep).sum(1).double(), heads.keep.sum(1).double())
            macs = macs + self._macs[index].executed(*kept, *layers.keep.double().unbind(1))
            for name, choice in (("layer", layers), ("head", heads), ("token", tokens)):
                if not choice.fixed:
                    soft.setdefault(f"{name}_policy", []).append(choice.soft)
                    shares.append(choice.share)
        return Trace(
            logits=self.classify(x),
            gates=tuple(gates),
            macs=macs,
            aux={
                "shares": torch.cat(shares, dim=1),
                **{name: torch.stack(policies, dim=1) for name, policies in soft.items()},
            },
        )

    def _masked_block(
        self, block: Any, x: Tensor, layers: Choice, heads: Choice, tokens: Choice
    ) -> Tensor:
        attend, feed = layers.factor[:, :, None, None].unbind(1)
        rows = with_cls(tokens.factor)[:, :, None]
        live = with_cls(tokens.keep)
        update = masked_attention(
            block.attn, block.norm1(x), live, heads.factor, identity=self.identity
        )
        x = x + block.ls1(update) * rows * attend
        normed = block.norm2(x)
        if not (heads.fixed or self.identity):
            normed = normed * heads.factor.repeat_interleave(block.attn.head_dim, 1)[:, None]
        return x + block.ls2(block.mlp(normed)) * rows * feed

    def _gates(self, index: int, layers: Choice, heads: Choice, tokens: Choice) -> list[Gate]:
        """In the order of evaluation: sublayers, heads, tokens."""
        macs, gates = self._macs[index], []
        attend, feed = layers.keep.unbind(1)
        if not layers.fixed:
            asked = torch.ones_like(attend)
            costs = macs.attention(macs.tokens, macs.heads), macs.mlp(macs.tokens, macs.heads)
            for unit, name in enumerate(("attention", "mlp")):
                gate = layers.unit(unit).gate(f"blocks.{index}.{name}", asked, float(costs[unit]))
                gates.append(gate)
        asked = attend if self.identity else attend | feed
        if not heads.fixed:
            gates.append(heads.gate(f"blocks.{index}.heads", asked, macs.of_head()))
        gates.append(tokens.gate(f"blocks.{index}.tokens", attend | feed, macs.of_token()))
        return gates
