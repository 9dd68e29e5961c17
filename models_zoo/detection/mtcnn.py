"""MTCNN: three networks in a row find faces, and each is asked only where the one before hopes.

Zhang et al. 2016 (arXiv 1604.02878), as ``detect_face`` of facenet-pytorch 2.6.0 deploys it: P-Net
on every window of an image pyramid, R-Net on a crop of each candidate, O-Net on a crop of what
R-Net lets through, non-maximum suppression (NMS) after each. The pyramid always costs the same;
every crop to R-Net costs 1,530,768 MACs more, every one to O-Net 12,909,952.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.nn.utils.rnn import pad_sequence

from effattack.counting.tallies import Count, every, tally
from effattack.domains import Pixels
from effattack.errors import UsageError
from effattack.models_zoo.detection import mtcnn_boxes as steps
from effattack.models_zoo.detection.mtcnn_decisions import Run, Seen, outlived, told
from effattack.models_zoo.detection.mtcnn_networks import Networks, read_networks
from effattack.models_zoo.detection.mtcnn_nms import OVER_SMALLER, Suppression, suppressed
from effattack.tasks import Boxes
from effattack.tasks.shares import NONE
from effattack.victim import Gate, Trace, Victim
from effattack.victim.margins import bounded_margin, log_odds
from effattack.victim.trace import CANDIDATES, CHOSEN_FROM

THRESHOLDS = (0.6, 0.7, 0.7)
"""Probabilities of a face at which each network lets a box through."""
SMALLEST, FACTOR = 20, 0.709
"""Pixels of the smallest face, and from one level of the pyramid to the next."""
SAME_LEVEL, SAME_IMAGE = 0.5, 0.7
"""How much two boxes that stay may overlap."""
SIDES = (24, 48)
"""Pixels of the crops of R-Net and O-Net."""
TOGETHER = 512
"""Crops that go through a network at once."""


class MTCNN(Victim):
    """A face detector whose work grows with what might be a face.

    Answers are boxes left, top, right, bottom (pixels), score, class 0. Two gates, both with a unit
    per cell of P-Net: ``candidates`` (this cell is one) and, reached where the cell has outlived
    its NMS, ``to_onet`` (R-Net lets its crop through). Four counts: ``candidates``, boxes into all
    passes of NMS; ``pairs``, boxes compared there; ``crops``, into R-Net and O-Net together;
    ``boxes_out``, faces.

    Gradients reach the image through the scores of all cells, and through the crops where they
    lie; where a crop lies, and which boxes NMS leaves, are hard choices. The trace shows what O-Net
    says of all its crops (``CHOSEN_FROM``), by which faces can be kept. No input makes more crops
    than cells can outlive the NMS of their level, which is what ``max_macs`` states; what regressed
    boxes do afterwards bounds nothing, so each of these crops may reach O-Net.

    A box that regression has moved out of the image is dropped; facenet-pytorch fails there.

    Args:
        networks: see :func:`~effattack.models_zoo.detection.mtcnn_networks.read_networks`.
        input_shape: (3, H, W).
        settings: ``name``, ``data``.

    Raises:
        UsageError: for images in which the smallest face does not fit.
    """

    def __init__(
        self,
        networks: Networks,
        input_shape: tuple[int, int, int] = (3, 240, 320),
        *,
        name: str = "MTCNN",
        **settings: Any,
    ) -> None:
        height, width = _expect_images(input_shape)
        levels = steps.pyramid(height, width, SMALLEST, FACTOR)
        boxes = [steps.cells(level) for level in levels]
        at = [len(each) for each in boxes]
        most = steps.most_apart(levels, SAME_LEVEL)
        crop_macs = [net.macs(side, side) for net, side in zip(networks[1:], SIDES, strict=True)]
        pyramid_macs = sum(networks.proposal.macs(level.height, level.width) for level in levels)
        pairs = sum(cells * (cells - 1) for cells in at) // 2 + 3 * most * (most - 1) // 2
        ceilings = {"candidates": sum(at) + 3 * most, "pairs": pairs, "crops": 2 * most}
        ceilings["boxes_out"] = most
        units = {"candidates": "box", "pairs": "pair", "crops": "crop", "boxes_out": "box"}
        super().__init__(
            name=name,
            family="detection",
            domain=Pixels(input_shape),
            task=Boxes(overlap=0.5, share=1.0, cap=None),
            max_macs=pyramid_macs + most * sum(crop_macs),
            counts={
                count: Count(unit, partial(every, ceilings[count])) for count, unit in units.items()
            },
            **settings,
        )
        self.proposal, self.refinement, self.output = networks
        self.levels, self.crop_macs, self.pyramid_macs = levels, crop_macs, pyramid_macs
        self.cells_of = at
        self.cells: Tensor
        self.register_buffer("cells", torch.cat(boxes), persistent=False)
        self.eval().requires_grad_(requires_grad=False)

    @classmethod
    def from_facenet(
        cls,
        path: str | Path | None = None,
        input_shape: tuple[int, int, int] = (3, 240, 320),
        **settings: Any,
    ) -> Self:
        """With the weights of facenet-pytorch.

        Args:
            path: folder of ``pnet.pt``, ``rnet.pt`` and ``onet.pt``. None: that of the installed
                package, which is not imported.
            input_shape: (3, H, W).
            settings: ``name``, ``data``.

        Raises:
            MissingPackage: if no path is given, and the package is not installed.
            UsageError: if a file is missing or holds another model, or images are too small.
        """
        return cls(read_networks(path), input_shape, **settings)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] -> faces (B, most of one image, 6), by falling score."""
        return self._run(images).faces

    def trace(self, images: Tensor) -> Trace:
        run = self._run(images)
        refined, final, candidates = run.refined, run.final, run.candidates
        small, large = self.crop_macs
        places = refined.image, refined.cell
        asked = torch.zeros_like(candidates).index_put(places, torch.ones_like(refined.passes))
        through = torch.zeros_like(candidates).index_put(places, refined.passes)
        margin = bounded_margin(run.odds - log_odds(THRESHOLDS[0]), 1.0, candidates)
        hope = torch.zeros_like(margin).index_put(places, refined.margin)
        gates = (
            Gate("candidates", margin, candidates, torch.ones_like(asked), cost=small + large),
            Gate("to_onet", hope, through, asked, cost=large),
        )
        first, second = (each.image.bincount(minlength=len(images)) for each in (refined, final))
        stages = {
            "P-Net": torch.full_like(first, self.pyramid_macs, dtype=torch.float64),
            "R-Net": first.double() * small,
            "O-Net": second.double() * large,
        }
        also, slack = told(run)
        also["crops"] = (first + second).double()
        also["boxes_out"] = (run.faces[..., 4] != NONE).sum(1).double()
        return Trace(
            run.faces,
            gates,
            macs=torch.stack([*stages.values()]).sum(0),
            aux={
                CANDIDATES: self.cells.masked_fill(~candidates[..., None], torch.nan),
                CHOSEN_FROM: run.proposals,
            },
            also=also,
            slack=slack,
            stages=stages,
        )

    def _run(self, images: Tensor) -> Run:
        """Every decision of both paths."""
        levels = images * 255
        logits, shares = self._proposed(levels)
        scores = logits.softmax(2)[..., 1]
        _expect_numbers(scores)
        candidates = scores >= THRESHOLDS[0]
        passes: list[list[Suppression]] = [[] for _ in images]
        left = [self._cells_left(*each) for each in zip(scores, candidates, passes, strict=True)]
        image = torch.cat([torch.full_like(cells, k) for k, cells in enumerate(left)])
        cell = torch.cat(left)
        boxes = steps.moved(self.cells[cell], shares[image, cell])
        table = steps.sums(levels)
        refined = self._seen(0, table, image, cell, boxes)
        stay = outlived(refined, refined.boxes, passes, SAME_IMAGE)
        boxes = steps.moved(refined.boxes, refined.shares, extra=1)[stay]
        final = self._seen(1, table, refined.image[stay], refined.cell[stay], boxes)
        boxes = steps.moved(final.boxes, final.shares, extra=1)
        stay = outlived(final, boxes, passes, SAME_IMAGE, OVER_SMALLER)
        tally("boxes_out", len(stay))
        count, odds = len(images), logits[..., 1] - logits[..., 0]
        faces = _rows(final.image[stay], boxes[stay], final.scores[stay], count)
        proposals = _rows(final.image, boxes, final.excess, count)
        return Run(odds, candidates, refined, final, faces, proposals, passes)

    def _proposed(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        """What P-Net says of all cells: logits (B, cells, 2), shares (B, cells, 4)."""
        found = [
            self.proposal(_normalised(interpolate(levels, (one.height, one.width), mode="area")))
            for one in self.levels
        ]
        logits, shares = ([maps.flatten(2) for maps in heads] for heads in zip(*found, strict=True))
        return torch.cat(logits, 2).transpose(1, 2), torch.cat(shares, 2).transpose(1, 2)

    def _cells_left(self, scores: Tensor, candidates: Tensor, passes: list[Suppression]) -> Tensor:
        """(n,) cells of one image that outlive NMS within their level, and then over all."""
        left, begin = [], 0
        for count in self.cells_of:
            level = begin + candidates[begin : begin + count].nonzero()[:, 0]
            left.append(self._best(scores, level, SAME_LEVEL, passes))
            begin += count
        return self._best(scores, torch.cat(left), SAME_IMAGE, passes)

    def _best(
        self, scores: Tensor, cells: Tensor, limit: float, passes: list[Suppression]
    ) -> Tensor:
        passes.append(suppressed(self.cells[cells], scores[cells], limit, fixed=True))
        return cells[passes[-1].stay]

    def _seen(self, stage: int, table: Tensor, image: Tensor, cell: Tensor, boxes: Tensor) -> Seen:
        """Square crops of the boxes that lie in their images, and what a network says of them."""
        boxes = steps.squared(boxes)
        pixels = steps.inside(boxes, *self.input_shape[1:])
        there = (pixels[:, 2:] > pixels[:, :2]).all(1).nonzero()[:, 0]
        image, cell, boxes, pixels = image[there], cell[there], boxes[there], pixels[there]
        tally("crops", len(boxes))
        crops = _normalised(steps.crops(table, image, pixels, SIDES[stage]).to(boxes.dtype))
        crops = crops.contiguous(memory_format=torch.channels_last)
        said = [(self.refinement, self.output)[stage](some) for some in crops.split(TOGETHER)]
        logits, shares = (torch.cat(heads) for heads in list(zip(*said, strict=True))[:2])
        return Seen(image, cell, boxes, logits, shares, THRESHOLDS[1 + stage])


def _rows(image: Tensor, boxes: Tensor, scores: Tensor, count: int) -> Tensor:
    """(count, most of one image, 6): faces, image by image."""
    rows = torch.cat([boxes, scores[:, None], torch.zeros_like(boxes[:, :1])], 1)
    each = [rows[image == k] for k in range(count)]
    return pad_sequence(each, batch_first=True, padding_value=NONE)


def _normalised(pixels: Tensor) -> Tensor:
    return (pixels - 127.5) * 0.0078125


def _expect_images(shape: tuple[int, int, int]) -> tuple[int, int]:
    """Height and width.

    Raises:
        UsageError: where they are no numbers, or no smallest face fits.
    """
    if len(shape) != 3 or shape[0] != 3 or not all(isinstance(side, int) for side in shape):
        raise UsageError(f"MTCNN: input_shape = {shape}: give (3, H, W), resizing images to it")
    if min(shape[1:]) < SMALLEST:
        raise UsageError(
            f"MTCNN: no face of {SMALLEST} pixels, the smallest that is looked for, fits in images "
            f"{shape}: give larger ones"
        )
    return shape[1], shape[2]


def _expect_numbers(scores: Tensor) -> None:
    if scores.isnan().any():
        raise UsageError(
            "MTCNN: the scores of P-Net are NaN: give finite images in [0, 1], and weights that "
            "are numbers"
        )
