"""Counting the proposals of a detector, each digit once: its work grows with the cube of them.

Zhang, Hare and Prügel-Bennett, "Learning to Count Objects in Natural Images for Visual Question
Answering", ICLR 2018 (arXiv 1802.05766), section 4; a weighted mean, which attention is, cannot
tell one object from two. Official code Cyanogenoid/vqa-counting.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effattack.counting.macs import count_macs
from effattack.counting.tallies import Count, every, tally
from effattack.domains import PartsBatch
from effattack.errors import UsageError
from effattack.models_zoo.detection.networks import STRIDE, Cells, read_cells
from effattack.models_zoo.detection.nms import expect_fraction, intersection_over_union
from effattack.models_zoo.detection.proposed import Batch
from effattack.models_zoo.detection.scenes import SIDE
from effattack.models_zoo.digits import CLASSES
from effattack.models_zoo.multimodal.fusion import SIZE, Questions
from effattack.models_zoo.multimodal.questions import ANSWERS, DOMAIN
from effattack.tasks import Classes
from effattack.victim import Gate, Trace, Victim
from effattack.victim.leaf import Leaf
from effattack.victim.margins import bounded_margin, log_odds

CELLS = (SIDE // STRIDE) ** 2
MOST = 10
"""Numbers that are told apart beside none, as in the paper: what overlaps in part counts in part,
so that four digits may count as six until the answer is read from it."""
AT_ONCE = 2**23
"""Triples of proposals that are held at once."""
TINY = 1e-12
SPREAD = 4.0
"""What scores are multiplied by, so that they differ by as much as questions do."""


class Line(nn.Module):
    """A learnt function of [0, 1] that never falls: 0 at 0, 1 at 1, straight in 16 pieces.

    It is looked up: one product per value, however many pieces there are.
    """

    PIECES = 16

    def __init__(self) -> None:
        super().__init__()
        self.rises = nn.Parameter(torch.ones(self.PIECES))

    def forward(self, x: Tensor) -> Tensor:
        rises = self.rises.abs() / self.rises.abs().sum()
        knots = F.pad(rises.cumsum(0), (1, 0))
        place = self.PIECES * x
        piece = place.detach().long().clamp(0, self.PIECES - 1)
        return knots[piece] + (place - piece) * rises[piece]


class Counting(nn.Module):
    """How many objects there are among proposals that overlap, and how sure that is.

    Every relevant proposal is a vertex of a graph with edges to all, itself included, so that n
    objects have n² edges. Edges between proposals of one object go, as these overlap; what is left
    of an object that was proposed several times is divided by how often.

    Args:
        most: numbers of objects that are told apart.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.register_buffer("numbers", torch.arange(most + 1.0), persistent=False)
        self.relevant, self.apart, self.alike = Line(), Line(), Line()
        self.shown, self.placed = Line(), Line()
        self.clear, self.distinct, self.sure = Line(), Line(), Line()

    def forward(self, boxes: Tensor, attention: Tensor) -> Tensor:
        """Boxes (B, n, 4) with attention (B, n) in [0, 1] -> (B, most + 1): of the two numbers
        around the count, shares by how near it is, times how sure it is."""
        distance = self.distances(boxes)
        count = self.objects(distance, attention).clamp_max(float(self.numbers[-1]))
        near = (1 - (count[:, None] - self.numbers).abs()).clamp_min(0)
        some = max(1, attention.shape[1])
        clear = (self.clear(attention) - 0.5).abs().sum(1) / some
        distinct = (self.distinct(distance) - 0.5).abs().sum((1, 2)) / some**2
        return near * self.sure(clear + distinct)[:, None]

    def distances(self, boxes: Tensor) -> Tensor:
        """(B, n, n): 1 less intersection over union; tallies ``pairs``."""
        shares = intersection_over_union(boxes[:, :, None], boxes[:, None])
        tally("pairs", shares.numel())
        return (1 - shares).clamp_min(0)

    def objects(self, distance: Tensor, attention: Tensor) -> Tensor:
        """(B,): the root of the edges that are left."""
        pairs = attention[:, :, None] * attention[:, None]
        once = 1 / self.copies(distance, attention)
        edges = self.relevant(pairs) * self.apart(distance) * once[:, :, None] * once[:, None]
        loops = self.relevant(attention.square()) * once
        return (edges.sum((1, 2)) + loops.sum(1)).clamp_min(TINY).sqrt()

    def copies(self, distance: Tensor, attention: Tensor) -> Tensor:
        """(B, n): how often the object of each proposal is proposed: how many others look, and lie
        among all, as it does; tallies ``triples``."""
        pairs = attention[:, :, None] * attention[:, None]
        profile = self.shown(pairs) * self.placed(distance)
        gaps = (profile[:, :, None] - profile[:, None]).abs()
        tally("triples", gaps.numel())
        looks = (attention[:, :, None] - attention[:, None]).abs()
        return (self.alike(1 - gaps).prod(3) * self.alike(1 - looks)).sum(2)


class Found(NamedTuple):
    """What the detector says of N cells of B images."""

    boxes: Tensor
    """(B, N, 4): left, top, right, bottom in pixels, wherever they lie."""
    scores: Tensor
    """(B, N, classes) in [0, 1]"""
    order: Tensor
    """(B, N): cells by falling score of the best class."""
    sizes: Tensor
    """(B,): how many of them are proposals."""


class CountsProposals(Victim):
    """Answers "how many sevens" about a scene: a detector proposes, the question attends, and
    objects are counted among what is attended to.

    The gate ``image.proposals`` has a unit for each cell: the score of its best class is above a
    threshold. The best-scored ``most`` of these are compared with all others, with respect to all:
    n² pairs and n³ triples, told as counts, of which ``triples`` judge. They are work element by
    element, which no MACs are: those are the detector's, and a few of each proposal. The question
    moves none of it. Nothing but counting was learnt: other questions get a number, too.

    What differs from the paper: proposals are those of a threshold, as many as there are (there:
    the ten that are attended to most, of a fixed number); attention sees the scores of classes
    (there: features); the answer is read from the count alone.

    Args:
        score: a cell proposes a box above it.
        most: proposals that are counted among.
        name, data: as of all victims.

    Raises:
        UsageError: for a score or a number of proposals out of range.
    """

    def __init__(
        self,
        score: float = 0.25,
        most: int = 64,
        *,
        name: str = "CountsProposals",
        data: str | None = None,
    ) -> None:
        expect_fraction("score", score)
        if not 1 <= most < CELLS:
            raise UsageError(f"most = {most}: count among 1 to {CELLS - 1} proposals")
        units = {"proposals": "proposal", "pairs": "pair", "triples": "triple"}
        super().__init__(
            name=name,
            family="detection",
            domain=DOMAIN,
            task=Classes(len(ANSWERS), ANSWERS),
            counts={
                each: Count(unit, partial(every, most**power))
                for power, (each, unit) in enumerate(units.items(), start=1)
            },
            currency="triples",
            data=data,
        )
        self.score, self.most = score, most
        self.network, self.questions = Cells(CLASSES), Questions(SIZE.width)
        self.asked = nn.Linear(SIZE.width, SIZE.width)
        self.seen, self.looking = nn.Linear(CLASSES, SIZE.width), nn.Linear(SIZE.width, 1)
        self.counting = Counting(MOST)
        self.head = nn.Linear(MOST + 1, len(ANSWERS))
        example = torch.zeros(1, *DOMAIN.parts["image"].shape)
        self.eval()
        self.least = float(count_macs(self.network, example)) + SIZE.width**2
        self.least += self.head.weight.numel()
        self.each = self.seen.weight.numel() + self.looking.weight.numel()
        self.max_macs = self.dense_macs = self.least + most * self.each

    def lift(self, batch: Tensor, places: Tensor) -> Leaf:
        return self.questions.lift(batch, places)

    def forward(self, batch: PartsBatch) -> Tensor:
        """Images with questions -> logits of answers (B, answers)."""
        found = self.proposed(batch["image"])
        tally("proposals", found.sizes)
        return self.said(found, self.questions(batch["question"]))

    def trace(self, batch: PartsBatch, leaf: Leaf | None = None) -> Trace:
        found = self.proposed(batch["image"])
        best, classes = found.scores.max(2)
        proposes = best > self.score
        shown = Batch(found.boxes.clamp(0, SIDE), best, classes, None, None)
        margin = bounded_margin(shown.log_odds - log_odds(self.score), 1.0, proposes)
        sizes, share = found.sizes.double(), self.most**3 / CELLS
        return Trace(
            logits=self.said(found, self.questions(batch["question"], leaf)),
            gates=(
                Gate("image.proposals", margin, proposes, torch.ones_like(proposes), cost=share),
            ),
            macs=self.least + self.each * sizes,
            aux=shown.shown(self.score, batch["image"])._asdict(),
            also={"proposals": sizes, "pairs": sizes**2, "triples": sizes**3},
            slack=self.lead(best, proposes),
        )

    def proposed(self, images: Tensor) -> Found:
        """What the detector says, and which cells are proposals: both paths start here."""
        boxes, scores = read_cells(self.network(images))
        best = scores.detach().amax(2)
        order = best.argsort(dim=1, descending=True, stable=True)
        return Found(boxes, scores, order, (best > self.score).sum(1).clamp_max(self.most))

    def lead(self, best: Tensor, proposes: Tensor) -> Tensor:
        """(B,): of the last proposal over the first that found no room; 1 where there was room."""
        last, first = best.detach().topk(self.most + 1, 1).values[:, -2:].unbind(1)
        return torch.where(proposes.sum(1) > self.most, last - first, 1.0)

    def said(self, found: Found, rows: Tensor) -> Tensor:
        """The answer to questions (B, LONGEST, width), of images of equal numbers together."""
        asked = self.asked(rows.sum(1))
        answers = asked.new_empty(len(asked), len(ANSWERS))
        for size in found.sizes.unique().tolist():
            alike = (found.sizes == size).nonzero()[:, 0]
            for some in alike.split(max(1, AT_ONCE // max(1, size**3))):
                cells = found.order[some, :size, None]
                boxes, scores = (
                    part[some].gather(1, cells.expand(-1, -1, part.shape[2]))
                    for part in (found.boxes, found.scores)
                )
                number = self.counting(boxes, self.attention(scores, asked[some]))
                answers = answers.index_copy(0, some, self.head(number))
        return answers

    def attention(self, scores: Tensor, asked: Tensor) -> Tensor:
        """Scores (B, n, classes), questions (B, width) -> (B, n): is it what is asked for?

        Fused as in the paper, appendix B: ReLU(x + y) - (x - y)².
        """
        seen, asked = self.seen(SPREAD * scores), asked[:, None]
        fused = (seen + asked).relu() - (seen - asked).square()
        return self.looking(fused)[:, :, 0].sigmoid()
