"""What early exits and cascades share: stages in a row, each of which may be the last.

A criterion decides from the logits seen so far whether to go on. Both paths of a victim call the
same criterion. Thresholded criteria decide on log-odds: probabilities saturate, and a gradient
attack through them goes blind.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf, log, log1p
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.functional import softplus

from effattack.errors import UsageError
from effattack.victim import Gate, Trace


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


class Confidence(Thresholds):
    """Stop as soon as the largest softmax probability reaches the threshold.

    Args:
        thresholds: probabilities; 0 always stops, 1 never does.
    """

    def doubt(self, logits: Tensor, threshold: float) -> Tensor:
        """log(t / (1 - t)) - log(p / (1 - p)), p the top probability."""
        return log_odds(threshold) - confidence_log_odds(logits)


class Entropy(Thresholds):
    """Stop as soon as the entropy of the softmax falls below the threshold (BranchyNet).

    Teerapittayanon et al., "BranchyNet", ICPR 2016 (arXiv 1709.01686).

    Args:
        thresholds: in nats; 0 never stops, more than log(classes) always does.
    """

    highest = inf

    def doubt(self, logits: Tensor, threshold: float) -> Tensor:
        """log H - log t."""
        return log_entropy(logits) - (log(threshold) if threshold > 0 else -NEVER)


class Margin(Thresholds):
    """Stop as soon as the top two softmax probabilities lie as far apart as the threshold.

    Args:
        thresholds: differences of probabilities; 0 always stops, 1 never does.
    """

    def doubt(self, logits: Tensor, threshold: float) -> Tensor:
        """p1 - p2 < t in logits: log[(1 + t) e^z2 + t Σ of the others] - log[(1 - t) e^z1]."""
        first, second = logits.topk(2, dim=1).indices.split(1, dim=1)
        weight = torch.full_like(logits, log(threshold) if threshold > 0 else -inf)
        weight = weight.scatter(1, second, log1p(threshold)).scatter(1, first, -inf)
        kept = log1p(-threshold) if threshold < 1 else -NEVER
        return (logits + weight).logsumexp(1) - logits.gather(1, first)[:, 0] - kept


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


NEVER = 1e9
"""Beyond the log-odds of any logits, but finite."""


def as_criterion(given: float | Sequence[float] | Criterion, gates: int) -> Criterion:
    """The criterion for a chain with ``gates`` decisions; numbers are confidence thresholds.

    Raises:
        UsageError: if it is no criterion, or does not fit that many decisions.
    """
    if not isinstance(given, Criterion):
        if isinstance(given, str) or not isinstance(given, int | float | Iterable):
            raise UsageError(
                f"{given!r} is no criterion: subclass effattack.models_zoo.exits.Criterion, or "
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


def confidence_margin(logits: Tensor, threshold: float) -> Tensor:
    """Margin (B,) in (-1, 1) of the decision "the top softmax probability is below t".

    The decision is taken on log-odds, m = log(t / (1 - t)) - (z_top - logsumexp of the others),
    and bounded as m / (s + |m|) with s the spread of the image's logits. The sign is that of
    t - p_top; unlike it, the slope does not underflow where the softmax saturates, and scaling all
    logits (with t chosen anew) changes nothing. t - p_top blinds gradient attacks there.

    Args:
        logits: (B, classes).
        threshold: t.
    """
    return bounded(log_odds(threshold) - confidence_log_odds(logits), spread(logits))


def confidence_log_odds(logits: Tensor) -> Tensor:
    """log(p / (1 - p)) of the top softmax probability: (B, ..., classes) -> (B, ...)."""
    top, index = logits.max(-1, keepdim=True)
    return top.squeeze(-1) - logits.scatter(-1, index, -inf).logsumexp(-1)


def log_entropy(logits: Tensor) -> Tensor:
    """Log of the softmax entropy in nats, (B, classes) -> (B,); finite where the softmax saturates.

    With d_k the distance of z_k from the top and S = Σ e^-d_k over the others, all terms of
    H = log(1 + S) + Σ d_k e^-d_k / (1 + S) are positive, and the logs of both are stable.
    """
    top, index = logits.max(1, keepdim=True)
    behind = top - logits
    others = (-behind).scatter(1, index, -inf)
    mass = others.logsumexp(1)  # log S
    log1p_s = softplus(mass)
    shallow = softplus(mass.clamp_min(-40)).log()  # log log(1 + S), which is log S far below 0
    distance = behind.clamp_min(torch.finfo(logits.dtype).tiny).log()
    return torch.logaddexp(
        torch.where(mass > -40, shallow, mass), (others + distance).logsumexp(1) - log1p_s
    )


def disagreement(before: Tensor, after: Tensor) -> Tensor:
    """How far two stages are from predicting two classes, each (B, ..., classes) -> (B, ...).

    In [-1, 1]: what separates one stage from changing its mind about the prediction of the other,
    whichever of the two is closer to it, bounded as in :func:`confidence_margin`. Positive where
    the predictions differ.
    """

    def revolt(logits: Tensor, prediction: Tensor) -> Tensor:
        rival = logits.scatter(-1, prediction, -inf).amax(-1, keepdim=True)
        return bounded((rival - logits.gather(-1, prediction)).squeeze(-1), spread(logits))

    said, says = (logits.argmax(-1, keepdim=True) for logits in (before, after))
    return torch.maximum(revolt(after, said), revolt(before, says))


def bounded(excess: Tensor, scale: Tensor | float) -> Tensor:
    """excess / (scale + |excess|): same sign, in [-1, 1], with a slope that does not underflow."""
    return excess / (scale + excess.abs())


def spread(logits: Tensor) -> Tensor:
    """Standard deviation over the classes (B, ..., classes) -> (B, ...), constant to autograd."""
    centred = logits.detach() - logits.detach().mean(-1, keepdim=True)
    deviation = centred.norm(dim=-1) / max(1, logits.shape[-1] - 1) ** 0.5
    return deviation.clamp_min(torch.finfo(logits.dtype).eps)


def log_odds(probability: float) -> float:
    """log(p / (1 - p)); beyond any logit, but finite, outside (0, 1)."""
    if 0 < probability < 1:
        return log(probability / (1 - probability))
    return NEVER if probability >= 1 else -NEVER


def first_exit(margins: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Margins of going on past each stage but the last -> (active, reached), each (B, stages - 1).

    A stage is reached if all before it were passed; active, if it is passed itself. Decisions
    (B,) bool may stand in the place of margins.
    """
    onward = torch.stack([margin > 0 for margin in margins], dim=1)
    active = onward.cumprod(1).bool()
    reached = torch.cat([torch.ones_like(active[:, :1]), active[:, :-1]], dim=1)
    return active, reached


def criterion_trace(
    criterion: Criterion,
    stage_logits: Tensor,
    names: Sequence[str],
    cumulative_macs: Sequence[float],
    unsure: Tensor | None = None,
) -> Trace:
    """The trace of stages in a row under a criterion.

    Args:
        criterion: decides after each stage but the last.
        stage_logits: (B, stages, classes), of all stages.
        names: of the gates, one per stage but the last.
        cumulative_macs: MACs of leaving at each stage.
        unsure: (B, classes), the answer where no stage stopped; by default the last stage's.
    """
    so_far = [stage_logits[:, : k + 1] for k in range(len(names))]
    trace = chain_trace(
        stage_logits,
        margins=[criterion.margin(seen) for seen in so_far],
        names=names,
        cumulative_macs=cumulative_macs,
        decisions=[criterion.go_on(seen) for seen in so_far],
        proxy=criterion.proxy,
    )
    logits = trace.logits
    if unsure is not None:
        logits = torch.where(trace.gates[-1].active[:, None], unsure, logits)
    return trace._replace(logits=logits, gates=trace.gates[criterion.earliest :])


def chain_trace(
    stage_logits: Tensor,
    margins: Sequence[Tensor],
    names: Sequence[str],
    cumulative_macs: Sequence[float],
    decisions: Sequence[Tensor] | None = None,
    proxy: bool = False,
) -> Trace:
    """The trace of stages in a row.

    Args:
        stage_logits: (B, stages, classes), of all stages.
        margins: of going on past each stage but the last, each (B,).
        names: of those gates.
        cumulative_macs: MACs of leaving at each stage.
        decisions: to go on, each (B,) bool; by default the signs of the margins.
        proxy: the signs of the margins are not the decisions.
    """
    active, reached = first_exit(margins if decisions is None else decisions)
    taken = active.sum(1)
    spent = torch.tensor(cumulative_macs, dtype=torch.float64, device=taken.device)
    gates = tuple(
        Gate(
            name=name,
            margin=margin,
            active=active[:, k],
            reached=reached[:, k],
            cost=float(cumulative_macs[-1] - cumulative_macs[k]),
            proxy=proxy,
        )
        for k, (name, margin) in enumerate(zip(names, margins, strict=True))
    )
    logits = stage_logits[torch.arange(len(taken), device=taken.device), taken]
    return Trace(logits=logits, gates=gates, macs=spent[taken], stage_logits=stage_logits)


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
