"""Margins that stay usable where a sigmoid or a softmax saturates.

The margins that papers optimise, σ(z) - t and t - p_top, lose their slope exactly on the most
confident decisions: in float32 it underflows beyond |z| ≈ 17, and gradient attacks go blind. The
margins here are taken on log-odds and bounded by a rational function, whose slope falls with the
square of the distance instead of exponentially.
"""

from __future__ import annotations

from math import inf, log, log1p

import torch
from torch import Tensor
from torch.nn.functional import softplus

NEVER = 1e9
"""Beyond the log-odds of any logits, but finite."""


def confidence_log_odds(logits: Tensor) -> Tensor:
    """log(p / (1 - p)) of the top softmax probability: (B, ..., classes) -> (B, ...)."""
    top, index = logits.max(-1, keepdim=True)
    return top.squeeze(-1) - logits.scatter(-1, index, -inf).logsumexp(-1)


def log_entropy(logits: Tensor) -> Tensor:
    """Log of the softmax entropy in nats: (B, ..., classes) -> (B, ...); finite if it saturates.

    With d_k the distance of z_k from the top and S = Σ e^-d_k over the others, all terms of
    H = log(1 + S) + Σ d_k e^-d_k / (1 + S) are positive, and the logs of both are stable.
    """
    top, index = logits.max(-1, keepdim=True)
    behind = top - logits
    others = (-behind).scatter(-1, index, -inf)
    mass = others.logsumexp(-1)  # log S
    log1p_s = softplus(mass)
    shallow = softplus(mass.clamp_min(-40)).log()  # log log(1 + S), which is log S far below 0
    distance = behind.clamp_min(torch.finfo(logits.dtype).tiny).log()
    return torch.logaddexp(
        torch.where(mass > -40, shallow, mass), (others + distance).logsumexp(-1) - log1p_s
    )


def confidence_doubt(logits: Tensor, threshold: float) -> Tensor:
    """log(t / (1 - t)) - log(p / (1 - p)), p the top probability: (B, ..., classes) -> (B, ...).

    The sign is that of t - p; unlike it, the slope does not underflow where the softmax saturates.
    """
    return log_odds(threshold) - confidence_log_odds(logits)


def entropy_doubt(logits: Tensor, threshold: float) -> Tensor:
    """log H - log t, H the entropy in nats: (B, ..., classes) -> (B, ...)."""
    return log_entropy(logits) - (log(threshold) if threshold > 0 else -NEVER)


def lead_doubt(logits: Tensor, threshold: float) -> Tensor:
    """How far the lead of the top over the second probability falls short of t, in logits.

    p1 - p2 < t: log[(1 + t) e^z2 + t Σ of the others] - log[(1 - t) e^z1]; (B, ..., classes) ->
    (B, ...).
    """
    first, second = logits.topk(2, dim=-1).indices.split(1, dim=-1)
    weight = torch.full_like(logits, log(threshold) if threshold > 0 else -inf)
    weight = weight.scatter(-1, second, log1p(threshold)).scatter(-1, first, -inf)
    kept = log1p(-threshold) if threshold < 1 else -NEVER
    return (logits + weight).logsumexp(-1) - logits.gather(-1, first).squeeze(-1) - kept


def score_lead(scores: Tensor) -> Tensor:
    """How far the top score leads the second: (B, ..., classes) -> (B, ...)."""
    first, second = scores.topk(2, dim=-1).values.unbind(-1)
    return first - second


def disagreement(before: Tensor, after: Tensor) -> Tensor:
    """How far two stages are from predicting two classes, each (B, ..., classes) -> (B, ...).

    In [-1, 1]: what separates one stage from changing its mind about the prediction of the other,
    whichever of the two is closer to it, bounded by the spread of its logits. Positive where the
    predictions differ.
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


def bounded_margin(excess: Tensor, scale: Tensor | float, active: Tensor) -> Tensor:
    """excess / (scale + |excess|), in [-1, 1], with the sign of the decision.

    The decision itself is taken on probabilities. Where rounding makes its sign differ from that
    of the log-odds, the value (not the slope) is moved to the decision's side of zero.

    Args:
        excess: log-odds beyond the threshold; positive is "computed".
        scale: log-odds over which the margin saturates.
        active: bool, the decision.
    """
    margin = bounded(excess, scale)
    least = torch.finfo(margin.dtype).eps
    moved = torch.where(active, least, -least).to(margin.dtype) + (margin - margin.detach())
    return torch.where((margin > 0) == active, margin, moved)
