"""The query attack: no gradients, only what a service shows, its work and its answer."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from effattack.attacks.base import Attack, budget
from effattack.errors import UsageError
from effattack.objectives import Goal, Step
from effattack.threats import Threat
from effattack.victim import Victim


class QueryAttack(Attack):
    """Random search over squares, with executed MACs as the oracle and confidence as tie-break.

    The search of Andriushchenko et al., "Square Attack", ECCV 2020 (arXiv 1912.00049): start with
    vertical stripes at the corners of the l-inf ball, then paint one square per query with random
    corners, smaller and smaller squares as the queries run out. A proposal is taken if the victim
    executes more MACs on it, or as many with a less confident answer: MACs are a staircase, and a
    search that sees only stairs stalls on the first landing. Outside l-inf, a proposal changes
    pixels as far as the threat lets one pixel go and is then projected; in a patch, the squares lie
    inside it.

    Works on every victim whose MACs can move, on :class:`effattack.Opaque` too. A success beyond
    the gradient attacks' says that the gates mask their gradients.

    Args:
        victim: any victim that is not constant.
        eps: l-inf budget in [0, 1] pixels.
        threat: another budget, in place of ``eps``.
        queries: forward passes per image.
        first_square: share of the image that the first squares cover (paper: 0.05 to 0.8).
        seed: of the search.

    Raises:
        NotApplicable: for a constant victim.
        UsageError: for fewer than one query.
    """

    def __init__(
        self,
        victim: Victim,
        eps: float = 8 / 255,
        *,
        threat: Threat | str | None = None,
        queries: int = 200,
        first_square: float = 0.3,
        seed: int = 0,
    ) -> None:
        if queries < 1:
            raise UsageError(f"queries = {queries}: the search needs at least one")
        self.queries, self.first_square = queries, first_square
        super().__init__(victim, budget(eps, threat), seed=seed)

    @classmethod
    def why_not(cls, victim: Victim) -> str | None:
        if victim.constant:
            return f"QueryAttack needs MACs that can move; those of {victim.name} are constant"
        return None

    def run(self, clean: Tensor, goal: Goal, generator: Generator) -> Tensor:
        threat = self.threat.placed(clean, generator)
        with torch.no_grad():
            best = clean.clone()
            macs, doubt = self._ask(best)
            shift = self._stripes(clean, generator)
            for query in range(self.queries):
                found = threat.on_grid(clean + shift, clean)
                new_macs, new_doubt = self._ask(found)
                better = (new_macs > macs) | ((new_macs == macs) & (new_doubt > doubt))
                best[better], macs[better], doubt[better] = (
                    found[better],
                    new_macs[better],
                    new_doubt[better],
                )
                goal.callback(Step(0, query, self.queries, macs, doubt))
                if bool((macs >= self.victim.max_macs).all()):
                    break
                window = threat.window(clean)
                shift = self._painted(best - clean, window, query / self.queries, generator)
        return best

    def _ask(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Executed MACs and 1 - the top probability, each (B,)."""
        trace = self.victim.trace(images)
        return trace.macs, 1 - trace.logits.softmax(1).amax(1)

    def _stripes(self, clean: Tensor, generator: Generator) -> Tensor:
        batch, channels, _, width = clean.shape
        return self._corners((batch, channels, 1, width), generator).to(clean).expand_as(clean)

    def _painted(
        self,
        shift: Tensor,
        window: tuple[Tensor, Tensor, int, int],
        progress: float,
        generator: Generator,
    ) -> Tensor:
        """The shift with one square per image in new colours, each at a place of its own."""
        batch, channels, height, width = shift.shape
        first_row, first_column, tall, wide = window
        share = self.first_square * (1 - progress) ** 2
        side = max(1, min(tall, wide, round((share * tall * wide) ** 0.5)))
        top, left = (
            edge.view(-1, 1, 1)
            + torch.randint(0, length - side + 1, (batch, 1, 1), generator=generator)
            for edge, length in ((first_row, tall), (first_column, wide))
        )
        rows, columns = torch.arange(height)[:, None], torch.arange(width)[None, :]
        inside = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
        colours = self._corners((batch, channels, 1, 1), generator)
        return torch.where(inside[:, None].to(shift.device), colours.to(shift), shift)

    def _corners(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        return self.threat.reach * (2 * torch.randint(0, 2, shape, generator=generator) - 1)
