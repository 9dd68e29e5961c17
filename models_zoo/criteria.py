"""Criteria: when a chain of stages stops. Both paths of a victim call the same one.

Thresholded criteria decide on log-odds: probabilities saturate, and a gradient attack through them
goes blind.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from effattack.errors import UsageError
from effattack.victim.margins import (
    bounded,
    confidence_doubt,
    disagreement,
    entropy_doubt,
    lead_doubt,
    score_lead,
    spread,
)


@runtime_checkable
class Criterion(Protocol):
    """When a chain of stages goes on. Subclass it; ``margin`` is all that must be written."""

    proxy: bool = False
    """True: the sign of the margin is not the decision."""
    earliest: int = 0
    """The first stage that can stop; what happens before it is no decision, and no gate."""

    def margin(self, stage_logits: Tensor) -> Tensor:
        """Logits of the stages so far (B, stages, classes) -> margin (B,) of going on."""
        ...

    def go_on(self, stage_logits: Tensor) -> Tensor:
        """Logits of the stages so far (B, stages, classes) -> the decision (B,) bool."""
        return self.margin(stage_logits) > 0


class Thresholds(Criterion):
    """A criterion with one threshold for all stages, or one per stage.

    Raises:
        UsageError: for a threshold outside [0, ``highest``].
    """

    highest = 1.0

    def __init__(self, thresholds: float | Sequence[float]) -> None:
        self.thresholds: float | tuple[float, ...]
        if isinstance(thresholds, int | float):
            self.thresholds = float(thresholds)
            check_thresholds([self.thresholds], 1, self.highest)
        else:
            self.thresholds = tuple(float(t) for t in thresholds)
            check_thresholds(self.thresholds, len(self.thresholds), self.highest)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.thresholds})"

    def at(self, stage: int) -> float:
        """The threshold of a stage."""
        return self.thresholds[stage] if isinstance(self.thresholds, tuple) else self.thresholds

    def margin(self, stage_logits: Tensor) -> Tensor:
        logits = stage_logits[:, -1]
        return bounded(self.doubt(logits, self.at(stage_logits.shape[1] - 1)), spread(logits))

    def doubt(self, logits: Tensor, threshold: float) -> Tensor:
        """Logits of one stage (B, classes) -> (B,), positive where it is too unsure to stop."""
        raise NotImplementedError


class Leads(Thresholds):
    """One whose doubt only falls as the top class leads further: bounds of leads are enough."""

    def surely_stops(self, lead: Tensor, stage: int, slip: float) -> bool:
        """Whether the chain stops at a stage wherever one class leads each other one by so much.

        Args:
            lead: (classes,), of the logits; 0 of the class that leads.
            stage: which one.
            slip: what rounding may add to the doubt.
        """
        if (lead > 0).sum() < len(lead) - 1:
            return False
        return self.doubt(-lead, self.at(stage)).item() < -slip


class Confidence(Leads):
    """Stop as soon as the largest softmax probability reaches the threshold.

    Args:
        thresholds: probabilities; 0 always stops, 1 never does.
    """

    def doubt(self, logits: Tensor, threshold: float) -> Tensor:
        """:func:`~effattack.victim.margins.confidence_doubt`.

        As the margin is bounded by the spread of the logits, scaling all of them (with t chosen
        anew) changes nothing.
        """
        return confidence_doubt(logits, threshold)


class Entropy(Thresholds):
    """Stop as soon as the entropy of the softmax falls below the threshold (BranchyNet).

    Teerapittayanon et al., "BranchyNet", ICPR 2016 (arXiv 1709.01686).

    Args:
        thresholds: in nats; 0 never stops, more than log(classes) always does.
    """

    highest = inf

    def doubt(self, logits: Tensor, threshold: float) -> Tensor:
        return entropy_doubt(logits, threshold)


class Margin(Leads):
    """Stop as soon as the top two softmax probabilities lie as far apart as the threshold.

    Args:
        thresholds: differences of probabilities; 0 always stops, 1 never does.
    """

    def doubt(self, logits: Tensor, threshold: float) -> Tensor:
        return lead_doubt(logits, threshold)


class ScoreMargin(Leads):
    """Stop as soon as the top two logits lie as far apart as the threshold.

    The score margin of Park et al., "Big/LITTLE Deep Neural Network", CODES+ISSS 2015, taken before
    the softmax. A network of linear layers and ReLUs is then piecewise linear down to its
    decisions, which :func:`effattack.certify.exact` solves.

    Args:
        thresholds: differences of logits; 0 always stops.
    """

    highest = inf

    def doubt(self, logits: Tensor, threshold: float) -> Tensor:
        return threshold - score_lead(logits)

    def least_lead(self, stage: int) -> float:
        """The lead of the top logit over the second at which that stage stops."""
        return self.at(stage)


class Patience(Criterion):
    """Stop once a number of stages in a row has predicted the same as the stage before.

    Zhou et al., "BERT Loses Patience" (PABEE), NeurIPS 2020 (arXiv 2006.04152). The decision
    counts, so the margin is a proxy: how close the most doubtful of the counted pairs of adjacent
    stages is to predicting two classes.

    Args:
        patience: agreements in a row, 1 or more; the first stage that can stop has that index.
    """

    proxy = True

    def __init__(self, patience: int) -> None:
        if isinstance(patience, bool) or patience != int(patience) or patience < 1:
            raise UsageError(f"patience {patience}: use a whole number of agreements, 1 or more")
        self.patience = self.earliest = int(patience)

    def __repr__(self) -> str:
        return f"Patience({self.patience})"

    def margin(self, stage_logits: Tensor) -> Tensor:
        if stage_logits.shape[1] <= self.patience:
            return torch.ones_like(stage_logits[:, 0, 0])
        counted = stage_logits[:, -1 - self.patience :]
        return disagreement(counted[:, :-1], counted[:, 1:]).amax(1)

    def go_on(self, stage_logits: Tensor) -> Tensor:
        if stage_logits.shape[1] <= self.patience:
            return torch.ones_like(stage_logits[:, 0, 0], dtype=torch.bool)
        predictions = stage_logits[:, -1 - self.patience :].argmax(2)
        return (predictions[:, 1:] != predictions[:, :-1]).any(1)


def as_criterion(given: float | Sequence[float] | Criterion, gates: int) -> Criterion:
    """The criterion for a chain with ``gates`` decisions; numbers are confidence thresholds.

    Raises:
        UsageError: if it is no criterion, or does not fit that many decisions.
    """
    if not isinstance(given, Criterion):
        if isinstance(given, str) or not isinstance(given, int | float | Iterable):
            raise UsageError(
                f"{given!r} is no criterion: subclass effattack.models_zoo.criteria.Criterion, or "
                "give confidence thresholds"
            )
        given = Confidence(given)
    thresholds = getattr(given, "thresholds", None)
    if isinstance(thresholds, tuple):
        check_thresholds(thresholds, gates, getattr(given, "highest", inf))
    if given.earliest >= gates:
        raise UsageError(
            f"{given} cannot stop before stage {given.earliest}, but only stages 0 to {gates - 1} "
            "may stop early: nothing would ever be saved"
        )
    return given


def check_thresholds(thresholds: Sequence[float], gates: int, highest: float = 1.0) -> None:
    """Refuse a number of thresholds that does not fit, or values outside [0, ``highest``].

    Raises:
        UsageError: naming what was given.
    """
    if len(thresholds) != gates:
        raise UsageError(f"{len(thresholds)} thresholds for {gates} decisions: give one for each")
    if bad := [t for t in thresholds if not 0 <= t <= highest]:
        what = "no probabilities" if highest == 1 else "out of range"
        raise UsageError(f"thresholds {bad} are {what}: use values in [0, {highest:g}]")
