"""MACs of AdaViT: what a block and its policies cost, given what is kept."""

from __future__ import annotations

from typing import Any

from timm.models.vision_transformer import Block

from effattack.models_zoo.token_sparsification.adavit_policy import BlockPolicy
from effattack.models_zoo.token_sparsification.vit import BlockMacs


class AdaptiveBlockMacs:
    """MACs of one block and of its policies, for float tensors or numbers.

    Args:
        block: the block.
        policy: of the block.
        patches: number of patch tokens.
        identity: what a dropped head saves: only its queries, keys and attention, or all of its
            channels, also in the input of the MLP.
    """

    def __init__(self, block: Block, policy: BlockPolicy, patches: int, identity: bool) -> None:
        dense = BlockMacs(block)
        self.tokens, self.heads = patches + 1, block.attn.num_heads
        self.head_dim, self.identity = block.attn.head_dim, identity
        droppable = policy.head_select is not None
        self._attention_head = (2 if identity else 4) * dense.width * self.head_dim
        self._mlp_head = (
            block.mlp.fc1.out_features * self.head_dim if droppable and not identity else 0
        )
        self._attention_token = (
            dense.qkv_per_token + dense.proj_per_token - self.heads * self._attention_head
        )
        self._mlp_token = dense.mlp_per_token - self.heads * self._mlp_head
        self._token_policy = patches * dense.width
        self._head_policy = self.heads * dense.width if droppable else 0
        self._layer_policy = 2 * dense.width if policy.layer_select is not None else 0

    def attention(self, tokens: Any, heads: Any) -> Any:
        """The attention sublayer over the kept tokens, CLS among them, with the kept heads."""
        scores = 2 * tokens * tokens * heads * self.head_dim
        return tokens * (self._attention_token + heads * self._attention_head) + scores

    def mlp(self, tokens: Any, heads: Any) -> Any:
        """The MLP sublayer over the kept tokens, reading the channels of the kept heads."""
        return tokens * (self._mlp_token + heads * self._mlp_head)

    def executed(self, tokens: Any, heads: Any, attend: Any, feed: Any) -> Any:
        """Sublayers that are on (1) and the policies that were asked."""
        either = attend + feed - attend * feed
        asked = self._layer_policy + either * self._token_policy
        asked = asked + (attend if self.identity else either) * self._head_policy
        return asked + attend * self.attention(tokens, heads) + feed * self.mlp(tokens, heads)

    def dense(self) -> int:
        """The plain block, without policies."""
        return self.attention(self.tokens, self.heads) + self.mlp(self.tokens, self.heads)

    def most(self) -> int:
        """Everything kept."""
        return self.executed(self.tokens, self.heads, 1, 1)

    def of_head(self) -> float:
        """The most that one head can cost."""
        fewer = self.heads - 1
        rest = self.attention(self.tokens, fewer) + self.mlp(self.tokens, fewer)
        return float(self.dense() - rest)

    def of_token(self) -> float:
        """The most that one token can cost, its share of the attention included."""
        return self.dense() / self.tokens
