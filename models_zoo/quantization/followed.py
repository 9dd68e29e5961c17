"""ATS whose trace follows the deployed path, for layers that round what enters them.

Attention over all tokens with a mask, and attention over those left, differ in the last bit of a
float. Where activations are rounded to 8 bits next, that bit decides between two levels now and
then, and a level between two tokens. So both paths run the same operators here.
"""

from __future__ import annotations

import copy
from typing import Self

import torch
from torch import Tensor

from effattack.models_zoo.token_sparsification.ats import ATS, Sampling
from effattack.victim import Gate, Trace


class FollowedATS(ATS):
    """ATS as it stands, but for its trace: the deployed path with gradients, tokens dropped.

    Gates, margins and closed form are those of :class:`ATS`; ``aux`` holds ``significance``.
    """

    @classmethod
    def of(cls, ats: ATS) -> Self:
        """A copy of an ATS victim."""
        return cls(
            copy.deepcopy(ats.vit),
            ats_blocks=ats.ats_blocks,
            reference_tokens=ats.policy.points + 1,
            name=ats.name,
            data=ats.data,
            mean=ats.mean.flatten().tolist(),
            std=ats.std.flatten().tolist(),
        )

    def trace(self, images: Tensor) -> Trace:
        logits, samplings = self.deployed(images)
        live = torch.ones(len(images), self.tokens - 1, dtype=torch.bool, device=images.device)
        counts = [1 + live.sum(1).double()]
        gates, significance = [], []
        each = iter(samplings)
        for index in range(len(self.vit.blocks)):
            if index in self.ats_blocks:
                scores, kept = scattered(next(each), live)
                gates.append(
                    Gate(
                        name=f"blocks.{index}.tokens",
                        margin=(self.policy.points * scores - 1).clamp(-1, 1),
                        active=kept,
                        reached=live,
                        cost=self._cost_to_go(index),
                        proxy=True,
                    )
                )
                significance.append(scores)
                live = kept
            counts.append(1 + live.sum(1).double())
        return Trace(
            logits=logits,
            gates=tuple(gates),
            macs=self._macs(counts),
            aux={"significance": torch.stack(significance, dim=1)},
        )


def scattered(sampling: Sampling, live: Tensor) -> tuple[Tensor, Tensor]:
    """Scores and decisions of the patch tokens left, each in its place: (B, patches), 0 elsewhere.

    Args:
        sampling: of one block.
        live: (B, patches) bool, the tokens that it was given.
    """
    scores = sampling.scores[0].new_zeros(live.shape)
    kept = torch.zeros_like(live)
    buckets = sampling.layout.buckets()
    for bucket, some, choice in zip(buckets, sampling.scores, sampling.kept, strict=True):
        images = torch.tensor(bucket.images, device=live.device)
        rows, places = live[images].nonzero(as_tuple=True)
        scores = scores.index_put((images[rows], places), some.flatten())
        kept[images[rows], places] = choice.flatten()
    return scores, kept
