"""Random search without gradients: one square of new colours per query."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from effattack.attacks.objectives import Goal
from effattack.attacks.searches.projected import Acceptance, Best, unfinished
from effattack.errors import UsageError
from effattack.threats import Threat
from effattack.victim.rounding import safe_macs


@dataclass(frozen=True)
class Squares:
    """What a random search proposes: squares that shrink as the queries run out.

    Andriushchenko et al., "Square Attack", ECCV 2020 (arXiv 1912.00049): vertical stripes first,
    then one square per query with random corners of the l-inf ball. Outside l-inf, a proposal
    changes pixels as far as the threat lets one pixel go and is then projected; in a patch, the
    squares lie inside it.

    Args:
        first: share of the image that the first squares cover (paper: 0.05 to 0.8).
    """

    first: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.first <= 1:
            raise UsageError(f"first squares of {self.first} of an image: give a share in (0, 1]")

    def stripes(self, clean: Tensor, threat: Threat, generator: Generator) -> Tensor:
        """Images (B, C, H, W) of vertical stripes around the clean ones, on the grid."""
        batch, channels, _, width = clean.shape
        shift = _corners((batch, channels, 1, width), threat, generator).to(clean)
        return threat.on_grid(clean + shift.expand_as(clean), clean)

    def painted(
        self,
        images: Tensor,
        clean: Tensor,
        threat: Threat,
        progress: float,
        generator: Generator,
    ) -> Tensor:
        """The images with one square each in new colours, each at a place of its own."""
        batch, channels, height, width = clean.shape
        first_row, first_column, tall, wide = threat.window(clean)
        share = self.first * (1 - progress) ** 2
        side = max(1, min(tall, wide, round((share * tall * wide) ** 0.5)))
        top, left = (
            edge.view(-1, 1, 1)
            + torch.randint(0, length - side + 1, (batch, 1, 1), generator=generator)
            for edge, length in ((first_row, tall), (first_column, wide))
        )
        rows, columns = torch.arange(height)[:, None], torch.arange(width)[None, :]
        inside = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
        colours = _corners((batch, channels, 1, 1), threat, generator).to(clean)
        shift = torch.where(inside[:, None].to(clean.device), colours, images - clean)
        return threat.on_grid(clean + shift, clean)


@dataclass(frozen=True)
class RandomSearch:
    """Takes a proposal if the victim executes more MACs on it, or as many with a less sure answer.

    MACs are a staircase, and a search that sees only stairs stalls on the first landing: the doubt,
    1 - the top probability, breaks ties.

    Args:
        queries: forward passes per image.
        squares: what is proposed.
        accept: which proposals count; None: all.
    """

    queries: int
    squares: Squares = Squares()
    accept: Acceptance | None = None

    def climb(
        self,
        best: Best,
        clean: Tensor,
        threat: Threat,
        goal: Goal,
        generator: Generator,
        restart: int = 0,
    ) -> None:
        """Raise ``best``, of the images that can still gain work; the threat is placed.

        ``restart`` is the number of the run, for the callback.
        """
        rows = torch.arange(len(clean), device=clean.device)
        best.value = self._look(best.images, goal)[1]
        for query in range(self.queries):
            if (going := unfinished(best, rows, goal)) is not None:
                rows = rows[going]
                if len(rows) == 0:
                    return
            mine, centre, place = best.images[rows], clean[rows], threat.rows(rows)
            if query == 0:
                found = self.squares.stripes(centre, place, generator)
            else:
                progress = query / self.queries
                found = self.squares.painted(mine, centre, place, progress, generator)
            best.update(rows, found, *self._look(found, goal.rows(rows)))
            goal.callback(best.step(restart, query + 1, self.queries))

    def _look(self, images: Tensor, goal: Goal) -> tuple[Tensor, Tensor]:
        """Executed MACs that count, and the doubt, each (B,)."""
        with torch.no_grad():
            trace = goal.victim.trace(images)
        macs, doubt = safe_macs(trace), 1 - trace.logits.softmax(1).amax(1)
        if self.accept is not None:
            macs = torch.where(self.accept(trace, goal), macs, -torch.inf)
        return macs, doubt


def _corners(shape: tuple[int, ...], threat: Threat, generator: Generator) -> Tensor:
    return threat.reach * (2 * torch.randint(0, 2, shape, generator=generator) - 1)
