"""Entities as vectors, relations as orthogonal transforms with scales, in small blocks.

Tang et al., "Orthogonal Relation Transforms with Graph Context Modeling for Knowledge Graph
Embedding", ACL 2020 (arXiv 1911.04910): a relation takes each block of a head to the block of its
tail by an orthogonal matrix, and stretches it; against its direction it goes back by the transpose.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class GramSchmidt(nn.Module):
    """(..., d, d) of any rows -> the orthogonal matrices that Gram-Schmidt makes of them."""

    def forward(self, rows: Tensor) -> Tensor:
        made: list[Tensor] = []
        for row in rows.unbind(-2):
            for before in made:
                row = row - (row * before).sum(-1, keepdim=True) * before
            made.append(row / row.norm(dim=-1, keepdim=True))
        return torch.stack(made, -2)


class Transforms(nn.Module):
    """Entities and relations of one graph.

    ``turns`` are orthogonal; while they are trained (:meth:`free`), Gram-Schmidt keeps them so.
    Graph contexts are those of the entity that is asked about. Divergence: contexts of the answers,
    which are the same for every query, are left out.

    Args:
        entities, relations: how many.
        blocks: of a vector.
        size: numbers of a block.
    """

    def __init__(self, entities: int, relations: int, blocks: int, size: int) -> None:
        super().__init__()
        self.blocks, self.size, self.count = blocks, size, entities
        self.entities = nn.Parameter(torch.randn(entities, blocks, size) / size**0.5)
        self.turns = nn.Parameter(torch.eye(size).repeat(relations, blocks, 1, 1))
        self.scales = nn.Parameter(torch.zeros(relations, blocks, size, 1))
        self.sharpness = nn.Parameter(torch.ones(()))

    def free(self) -> None:
        """From now on the turns are what Gram-Schmidt makes of matrices that may be anything."""
        with torch.no_grad():
            self.turns.normal_()
        parametrize.register_parametrization(self, "turns", GramSchmidt())

    def fixed(self) -> None:
        """The turns are from now on weights like others."""
        parametrize.remove_parametrizations(self, "turns")

    def steps(self) -> Tensor:
        """(2 · relations, blocks, size, size): along every relation, and then against each."""
        along = self.scales.exp() * self.turns
        against = self.turns.mT * (-self.scales).exp().mT
        return torch.cat([along, against])

    def moved(self, step: Tensor, x: Tensor) -> Tensor:
        """Vectors (..., blocks, size) one step (...) on."""
        return (self.steps()[step] @ x[..., None])[..., 0]

    def logits(self, contexts: Tensor, step: Tensor) -> Tensor:
        """What stands where a step leads, of the contexts (B, 2, blocks, size) of an entity.

        Returns:
            (B, entities): minus the distances of the moved contexts, block by block, to each.
        """
        moved = self.moved(step[:, None].expand(-1, 2), contexts)
        far = torch.cdist(
            moved.flatten(0, 1).transpose(0, 1).contiguous(),
            self.entities.transpose(0, 1).contiguous(),
            compute_mode="donot_use_mm_for_euclid_dist",
        )
        return -self.sharpness.exp() * far.mean(0).unflatten(0, (-1, 2)).mean(1)

    @property
    def step_macs(self) -> int:
        """Of one vector, one step on."""
        return self.blocks * self.size**2

    @property
    def answer_macs(self) -> int:
        """Of :meth:`logits` of one query: two steps, and two distances to every entity."""
        return 2 * self.step_macs + 2 * self.count * self.blocks * self.size
