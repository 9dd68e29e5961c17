"""What a certificate says, whichever way it was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Kind = Literal["cap", "enumeration", "exact", "smoothing", "linear bounds"]


@dataclass(frozen=True)
class Certificate:
    """Most work that inputs of a threat make a victim do, whoever looks for them.

    A statement on one victim, its inputs and one threat; a *bracket* joins it with an attack on the
    same three.

    Attributes:
        kind: how it was found.
        victim: its name.
        threat: its text, such as ``"linf:1/255"``.
        currency: what work is counted in.
        clean: (B,), work on each clean input; of a randomised victim, that without its noise.
        most: (B,), no input of the threat around each clean one takes more; of a randomised victim
            a bound of its mean. The ceiling where nothing better is known.
        ceiling: (B,), most work of any input that the threat admits; of a cap, that of the victim
            without it, NaN where none is named.
        error: probability that ``most`` is too low for any of these inputs; 0 of a proof.
        known: (B,) bool, whether ``most`` was found, and is not just the ceiling.
        seconds: that it took, its own cost.
        passes: of the victim through each input that it took, forward and backward, in the mean; a
            solver's and a bound's own work stands in ``seconds`` alone.
        note: what else is to be told, in a sentence.
        p99: (B,), of a randomised victim: no input of the threat around each clean one takes more
            in 99 % of the draws; the ceiling where nothing better is known. None of others.
    """

    kind: Kind
    victim: str
    threat: str
    currency: str
    clean: Tensor
    most: Tensor
    ceiling: Tensor
    error: float
    known: Tensor
    seconds: float
    passes: float = 0.0
    note: str = ""
    p99: Tensor | None = None

    @property
    def certified_retained(self) -> float:
        """1 − (Σ most − Σ clean) / (Σ ceiling − Σ clean): savings that stay; NaN if none are."""
        saved = (self.ceiling - self.clean).sum().item()
        return (self.ceiling - self.most).sum().item() / saved if saved > 0 else float("nan")

    @property
    def certified_factor(self) -> float:
        """Σ most / Σ clean: one attacked request costs at most so many clean ones."""
        return (self.most.sum() / self.clean.sum()).item()
