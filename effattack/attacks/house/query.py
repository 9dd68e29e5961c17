"""The query attack: no gradients, only what a service shows, its work and its answer."""

from __future__ import annotations

from torch import Generator, Tensor

from effattack.attacks.base import Attack
from effattack.attacks.objectives import BatchGoal
from effattack.attacks.searches.best import Best
from effattack.attacks.searches.by_kind import asking
from effattack.attacks.searches.squares import RandomSearch, Squares
from effattack.errors import UsageError
from effattack.victim import Victim


class QueryAttack(Attack):
    """Random search over squares, with executed MACs as the oracle and confidence as tie-break.

    The search of Andriushchenko et al., "Square Attack", ECCV 2020 (arXiv 1912.00049), on another
    oracle; see :mod:`effattack.attacks.searches.squares`.

    Of prompts, words are drawn anew in place of squares.

    Works on every victim whose MACs can move, on :class:`effattack.Opaque` too. A success beyond
    the gradient attacks' says that the gates mask their gradients. Of an artefact that ships, it
    queries the artefact, not its twin.

    Args:
        victim: any victim that is not constant.
        eps: l-inf budget in [0, 1] pixels.
        threat: another budget, in place of ``eps``.
        queries: forward passes per image.
        first_square: share of the image that the first squares cover (paper: 0.05 to 0.8).
        seed: of the search.

    Raises:
        NotApplicable: for a constant victim, or one whose executed work is unknown.
        UsageError: for fewer than one query.
    """

    knowledge = "queries"
    takes = "arrays or tokens or graph or parts"

    queries: int = 200
    first_square: float = 0.3

    def prepare(self) -> None:
        if self.queries < 1:
            raise UsageError(f"queries = {self.queries}: the search needs at least one")
        squares = RandomSearch(self.queries, Squares(self.first_square))
        self.search = asking(squares, self.threat)

    @classmethod
    def why_not(cls, victim: Victim) -> str | None:
        if victim.constant:
            return f"QueryAttack needs MACs that can move; those of {victim.name} are constant"
        if not victim.counted:
            return (
                f"QueryAttack needs work that is known; {victim.name} tells none (give "
                "Deployed(work=...))"
            )
        return None

    def run(self, clean: Tensor, goal: BatchGoal, generator: Generator) -> Tensor:
        threat = self.threat.placed(clean, generator)
        best = Best.of(clean, goal)
        self.search.climb(best, clean, threat, goal, generator)
        return best.inputs
