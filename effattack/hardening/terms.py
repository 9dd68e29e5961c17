"""What a hardening may cost: how thresholds are chosen by it, and what is not handed out."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from effattack.errors import UsageError, expect_least
from effattack.hardening.card import Figures
from effattack.hardening.thresholds import Wanted, choose
from effattack.threats import ArrayThreat
from effattack.victim import Victim


@dataclass(frozen=True)
class Terms:
    """What a hardening may cost, and how it is judged; all on held-out inputs.

    Args:
        allowed: accuracy that may be lost, as a share of the inputs. Thresholds are chosen to lose
            half of it, where that can be done: the rest is for inputs that nobody has seen.
        onward: share of clean inputs that go on past the first stage of a victim whose thresholds
            are chosen, or as many as did before where those were fewer. A cascade that never
            escalates is a static model.
        attacked: held-out inputs that are attacked, before and after.
    """

    allowed: float = 0.01
    onward: float = 0.02
    attacked: int = 64

    def __post_init__(self) -> None:
        for name in ("allowed", "onward"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} = {getattr(self, name)}: give a share in [0, 1)")
        expect_least("attacked", self.attacked, 1)


def refusal(before: Figures, after: Figures, terms: Terms) -> str | None:
    """Why a hardened victim is not handed out; None if it is."""
    lost = before.accuracy - after.accuracy
    if lost > terms.allowed + 1e-9:
        return (
            f"it lost {100 * lost:.1f} points of accuracy ({before.accuracy:.1%} to "
            f"{after.accuracy:.1%}), and {100 * terms.allowed:g} are allowed: train for longer, "
            "against a smaller budget, or allow more"
        )
    if after.work > before.work * (1 + 1e-9):
        return (
            f"its clean work rose from {before.work / before.ceiling:.1%} to "
            f"{after.work / after.ceiling:.1%} of max: put a weight on the margins, as in "
            "'both(margins=0.1)', or allow more accuracy to be lost"
        )
    if after.attacked_work >= before.attacked_work:
        return (
            f"it won nothing: under AutoSlow it does {after.attacked_work / after.ceiling:.1%} of "
            f"max, and did {before.attacked_work / before.ceiling:.1%}: take another method, or "
            "train for longer"
        )
    return None


def choose_by(
    terms: Terms,
    victim: Victim,
    held: tuple[Tensor, Tensor],
    threat: ArrayThreat,
    before: Figures,
    seed: int,
) -> list[str]:
    """Choose thresholds by the terms, the strictest that can be met; what is to be said of it."""
    onward = min(terms.onward, before.onward)
    for lost, least in ((0.5, onward), (1.0, onward), (0.5, 0.0), (1.0, 0.0)):
        wanted = Wanted(before.accuracy - lost * terms.allowed, before.work, least)
        if choice := choose(victim, *held, threat, wanted, attacked=terms.attacked, seed=seed):
            rounds = f"{choice.rounds} round{'s' * (choice.rounds > 1)} of attacks"
            return [f"thresholds are the best of {choice.tried:,}, after {rounds}"]
    return [
        "no thresholds keep accuracy and clean work as allowed on held-out inputs: they are as "
        "they were"
    ]
