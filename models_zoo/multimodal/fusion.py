"""An image with a question, fused in the four ways of Wadekar et al. 2024 (arXiv 2405.17927).

======  =====================================================  ===================================
type    fusion                                                 what the input moves
======  =====================================================  ===================================
A       cross-attention inside every layer                     layers until the answer is sure
B       fusion layers of their own, gated and resampled        fusion layers that are skipped
C       an encoder of images before the layers                 visual tokens that are kept
D       one sequence of image and text, read by one decoder    tokens that are written
======  =====================================================  ===================================

All see by the same small encoder of images. A question is read in ``LONGEST`` places, those behind
its end blank, so that its length moves no work.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effattack.counting.macs import count_macs
from effattack.domains import PartsBatch
from effattack.domains.tokens import PAD, lengths
from effattack.models_zoo.criteria import Criterion, as_criterion
from effattack.models_zoo.detection.networks import trunk
from effattack.models_zoo.exits import criterion_trace
from effattack.models_zoo.generation.decoder import Decoder, Memory, Sizes
from effattack.models_zoo.generation.price import Price
from effattack.models_zoo.generation.writer import Writer
from effattack.models_zoo.layer_skipping.skipnet import SigmoidGate
from effattack.models_zoo.multimodal.questions import ANSWERS, DOMAIN, LONGEST, WORDS
from effattack.models_zoo.text.encoder import Block, Size, classifier
from effattack.models_zoo.text.pieces import Pieces
from effattack.tasks import Classes, Conclusion
from effattack.victim import Gate, Trace, Victim
from effattack.victim.leaf import Leaf
from effattack.victim.margins import bounded

SIZE = Size(len(WORDS) + 1, LONGEST, width=64, heads=4, hidden=128, depth=4)
"""Of the layers behind both; the last word is the blank."""
NARROW = SIZE._replace(hidden=SIZE.width)
"""Of the layers of type A, which has twice as many."""
SEEN = 64
"""Visual tokens of a scene, 8 x 8."""


class Sight(nn.Module):
    """The encoder of images: (B, 1, 64, 64) -> visual tokens (B, 64, width), where they are added.

    The trunk of the detector of scenes, whose cells are taken together two by two.
    """

    def __init__(self, width: int, cells: int = 32) -> None:
        super().__init__()
        self.trunk = trunk(cells)
        self.together = nn.Conv2d(cells, width, 2, 2)
        self.places = nn.Parameter(0.1 * torch.randn(SEEN, width))

    def forward(self, images: Tensor) -> Tensor:
        return self.tokens(self.trunk(images))

    def tokens(self, cells: Tensor) -> Tensor:
        """What the trunk says of 16 x 16 cells, (B, cells, 16, 16) -> visual tokens."""
        return self.together(cells).flatten(2).mT + self.places


class Questions(nn.Module):
    """Ids (B, L <= LONGEST) -> rows (B, LONGEST, width), where they are added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(SIZE.vocabulary, width)
        self.places = nn.Parameter(0.1 * torch.randn(LONGEST, width))

    def lift(self, ids: Tensor, places: Tensor) -> Leaf:
        """Embedding rows of places (B, k)."""
        inside = ids.gather(1, places.clamp_max(ids.shape[1] - 1))
        return Leaf(self.words(inside.clamp_min(0)), places)

    def forward(self, ids: Tensor, leaf: Leaf | None = None) -> Tensor:
        whole = ids.new_full((len(ids), LONGEST), PAD)
        whole[:, : ids.shape[1]] = ids
        rows = self.words(whole.where(whole != PAD, SIZE.vocabulary - 1))
        if leaf is not None:
            places = leaf.places.clamp_max(LONGEST - 1)
            there = (leaf.places < lengths(ids)[:, None])[:, :, None]
            index = places[:, :, None].expand_as(leaf.rows)
            rows = rows.scatter(1, index, leaf.rows.where(there, rows.gather(1, index)))
        return rows + self.places


class Asked(Victim):
    """Answers a question about an image with one of ``ANSWERS``.

    Args:
        name, family: as of all victims.
        settings: ``data``.
    """

    def __init__(self, *, name: str, family: str, **settings: Any) -> None:
        super().__init__(
            name=name, family=family, domain=DOMAIN, task=Classes(len(ANSWERS), ANSWERS), **settings
        )
        self.sight, self.questions = Sight(SIZE.width), Questions(SIZE.width)
        self.seeing = float(count_macs(self.sight, torch.zeros(1, *DOMAIN.parts["image"].shape)))

    def lift(self, batch: Tensor, places: Tensor) -> Leaf:
        return self.questions.lift(batch, places)

    def read(self, batch: PartsBatch, leaf: Leaf | None = None) -> tuple[Tensor, Tensor]:
        """Rows of the question (B, LONGEST, width), and visual tokens (B, SEEN, width)."""
        return self.questions(batch["question"], leaf), self.sight(batch["image"])


class CrossAttended(Asked):
    """Type A: every layer of the text looks at itself, then at the image.

    Behind each, a classifier of the mean word may answer.

    Args:
        criterion: when to stop; a number is a confidence threshold.
        settings: name and data.
    """

    def __init__(
        self,
        criterion: float | Sequence[float] | Criterion,
        *,
        name: str = "CrossAttended",
        **settings: Any,
    ) -> None:
        super().__init__(name=name, family="early exit", **settings)
        depth, width = NARROW.depth, NARROW.width
        self.own = nn.ModuleList(Block(NARROW) for _ in range(depth))
        self.cross = nn.ModuleList(Block(NARROW) for _ in range(depth))
        self.heads = nn.ModuleList(classifier(width, len(ANSWERS)) for _ in range(depth))
        self.criterion = as_criterion(criterion, depth - 1)
        layer = NARROW.block_macs(LONGEST, LONGEST) + NARROW.block_macs(LONGEST, SEEN)
        stages = [layer + width * len(ANSWERS)] * depth
        self.leaving_macs = list(accumulate(stages, initial=self.seeing))[1:]
        self.max_macs = self.leaving_macs[-1]
        self.dense_macs = self.max_macs - (depth - 1) * width * len(ANSWERS)
        self.eval()

    def layers(self) -> Iterator[tuple[nn.Module, nn.Module, nn.Module]]:
        """Both kinds of attention, and the classifier behind them."""
        yield from zip(self.own, self.cross, self.heads, strict=True)

    def forward(self, batch: PartsBatch) -> Tensor:
        x, seen = self.read(batch)
        answers = x.new_empty(len(x), len(ANSWERS))
        here = torch.arange(len(x), device=x.device)
        said = x.new_empty(len(x), 0, len(ANSWERS))
        for own, cross, head in self.layers():
            x = own(x, x)
            x = cross(x, seen)
            said = torch.cat([said, head(x.mean(1))[:, None]], 1)
            if said.shape[1] == SIZE.depth:
                break
            onward = self.criterion.go_on(said)
            left = ~onward
            answers = answers.index_copy(0, here[left], said[left, -1])
            if not onward.any():
                return answers
            here, said, x, seen = here[onward], said[onward], x[onward], seen[onward]
        return answers.index_copy(0, here, said[:, -1])

    def means(self, x: Tensor, seen: Tensor) -> Iterator[Tensor]:
        """The mean word behind every layer, (B, width) each."""
        for own, cross, _ in self.layers():
            x = cross(own(x, x), seen)
            yield x.mean(1)

    def said(self, means: Iterable[Tensor]) -> Tensor:
        """What every classifier says of its mean word, (B, stages, answers)."""
        return torch.stack([h(mean) for h, mean in zip(self.heads, means, strict=True)], 1)

    def trace(self, batch: PartsBatch, leaf: Leaf | None = None) -> Trace:
        names = [f"exits.{k}" for k in range(SIZE.depth - 1)]
        stages = self.said(self.means(*self.read(batch, leaf)))
        return criterion_trace(self.criterion, stages, names, self.leaving_macs)


class Fusion(nn.Module):
    """The gated layers of type B: a few learnt rows look at the image, the text looks at them.

    Resampled as in Flamingo (Alayrac et al. 2022, arXiv 2204.14198). Each layer has rows and a gate
    of its own; all share the weights of attention.
    """

    ROWS = 8

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Parameter(0.5 * torch.randn(SIZE.depth, self.ROWS, SIZE.width))
        self.gates = nn.ModuleList(nn.Linear(2 * SIZE.width, 1) for _ in range(SIZE.depth))
        self.resample, self.cross = Block(SIZE), Block(SIZE)

    def asked(self, k: int, x: Tensor, seen: Tensor) -> Tensor:
        """(B,): log-odds that before layer ``k`` the text (B, LONGEST, width) needs the image."""
        return self.gates[k](torch.cat([x.mean(1), seen.mean(1)], 1))[:, 0]

    def forward(self, k: int, x: Tensor, seen: Tensor) -> Tensor:
        return self.cross(x, self.resample(self.rows[k].repeat(len(x), 1, 1), seen))

    @property
    def macs(self) -> float:
        """Of one layer, its gate not included."""
        return SIZE.block_macs(self.ROWS, SEEN) + SIZE.block_macs(LONGEST, self.ROWS)


class GatedFusion(Asked):
    """Type B: before every layer of the text, a fusion layer, skipped where its gate says so.

    Args:
        settings: name and data.
    """

    def __init__(self, *, name: str = "GatedFusion", **settings: Any) -> None:
        super().__init__(name=name, family="layer skipping", **settings)
        self.fusion = Fusion()
        self.layers = nn.ModuleList(Block(SIZE) for _ in range(SIZE.depth))
        self.head, self.policy = classifier(SIZE.width, len(ANSWERS)), SigmoidGate()
        gated = 2 * SIZE.width + SIZE.block_macs(LONGEST, LONGEST)
        self.least = self.seeing + SIZE.depth * gated + SIZE.width * len(ANSWERS)
        self.max_macs = self.least + SIZE.depth * self.fusion.macs
        self.dense_macs = self.max_macs - SIZE.depth * 2 * SIZE.width
        self.eval()

    def forward(self, batch: PartsBatch) -> Tensor:
        x, seen = self.read(batch)
        for k, layer in enumerate(self.layers):
            rows = self.policy.computes(self.fusion.asked(k, x, seen)).nonzero()[:, 0]
            if len(rows):
                x = x.index_copy(0, rows, self.fusion(k, x[rows], seen[rows]))
            x = layer(x, x)
        return self.head(x.mean(1))

    def trace(self, batch: PartsBatch, leaf: Leaf | None = None) -> Trace:
        x, seen = self.read(batch, leaf)
        gates = []
        for k, layer in enumerate(self.layers):
            margin = self.policy.margin(self.fusion.asked(k, x, seen))[:, None]
            computed = margin > 0
            everyone = torch.ones_like(computed)
            gates.append(Gate(f"fusions.{k}", margin, computed, everyone, cost=self.fusion.macs))
            x = torch.where(computed[:, :, None], self.fusion(k, x, seen), x)
            x = layer(x, x)
        fused = torch.cat([gate.active for gate in gates], 1).sum(1)
        return Trace(
            logits=self.head(x.mean(1)),
            gates=tuple(gates),
            macs=self.least + fused.double() * self.fusion.macs,
        )


class Outliers:
    """PruMerge's rule: kept is what lies above the third quartile by 1.5 interquartile ranges.

    Shang et al. 2024 (arXiv 2403.15388), section 3.1. At most a quarter of the tokens do. Each
    image by itself (the official code takes the quartiles over the flattened batch); what is left
    out is not merged into what is kept.
    """

    most = SEEN // 4

    def excess(self, attention: Tensor) -> Tensor:
        """Attention (B, SEEN) -> how far each token lies above the bound, (B, SEEN)."""
        low, high = attention.quantile(torch.tensor([0.25, 0.75]).to(attention), dim=1)
        return attention - (high + 1.5 * (high - low))[:, None]


class Best:
    """A fixed ratio, the constant control: the ``most`` tokens that are looked at most."""

    def __init__(self, most: int) -> None:
        self.most = most

    def excess(self, attention: Tensor) -> Tensor:
        """How far each token lies above the first that is left out."""
        return attention - attention.topk(self.most + 1, dim=1).values[:, -1:]


class SelectedTokens(Asked):
    """Type C: an encoder chooses visual tokens, and the layers read them behind the question.

    Chosen is by the attention of one learnt row, as a class token's.

    Args:
        rule: which tokens are kept.
        settings: name and data.
    """

    def __init__(
        self, rule: Outliers | Best, *, name: str = "SelectedTokens", **settings: Any
    ) -> None:
        constant = isinstance(rule, Best)
        super().__init__(name=name, family="token sparsification", constant=constant, **settings)
        self.rule = rule
        self.looking = nn.Linear(SIZE.width, 1, bias=False)
        self.layers = nn.ModuleList(Block(SIZE) for _ in range(SIZE.depth))
        self.head = classifier(SIZE.width, len(ANSWERS))
        self.max_macs = float(self.reading_macs(torch.tensor(rule.most)))
        self.dense_macs = float(self.reading_macs(torch.tensor(SEEN))) - SEEN * SIZE.width
        self.eval()

    def reading_macs(self, kept: Tensor) -> Tensor:
        """Float64: MACs of an image of which so many tokens are kept."""
        tokens = LONGEST + kept.double()
        read = SIZE.depth * SIZE.block_macs(tokens, tokens)
        return self.seeing + SEEN * SIZE.width + read + SIZE.width * len(ANSWERS)

    def attention(self, seen: Tensor) -> Tensor:
        """(B, SEEN): what the learnt row looks at."""
        return self.looking(seen)[:, :, 0].softmax(1)

    def forward(self, batch: PartsBatch) -> Tensor:
        text, seen = self.read(batch)
        kept = self.rule.excess(self.attention(seen)) > 0
        sizes = kept.sum(1)
        answers = text.new_empty(len(text), len(ANSWERS))
        for size in sizes.unique().tolist():
            rows = (sizes == size).nonzero()[:, 0]
            chosen = seen[rows][kept[rows]].view(len(rows), size, SIZE.width)
            answers = answers.index_copy(0, rows, self.said(text[rows], chosen))
        return answers

    def said(self, text: Tensor, chosen: Tensor, there: Tensor | None = None) -> Tensor:
        """The answer to questions (B, LONGEST, width) about tokens (B, n, width).

        ``there`` (B, n) bool says which of the tokens there are; None: all.
        """
        x = torch.cat([text, chosen], 1)
        mask = None if there is None else F.pad(there, (LONGEST, 0), value=True)
        for layer in self.layers:
            x = layer(x, x, mask)
        return self.head(x[:, :LONGEST].mean(1))

    def trace(self, batch: PartsBatch, leaf: Leaf | None = None) -> Trace:
        text, seen = self.read(batch, leaf)
        attention = self.attention(seen)
        excess = self.rule.excess(attention)
        kept = excess > 0
        every = float(self.max_macs - self.reading_macs(torch.tensor(0))) / self.rule.most
        margin = bounded(SEEN * excess, 1)
        gate = Gate("image.tokens", margin, kept, torch.ones_like(kept), cost=every)
        return Trace(
            logits=self.said(text, seen, kept),
            gates=() if self.constant else (gate,),
            macs=self.reading_macs(kept.sum(1)),
            aux={"attention": attention},
            slack=excess.detach().abs().amin(1),
        )


SIGNS = (*ANSWERS, "so", "end")
"""What type D writes: the digits from left to right, "so", the answer, and the end."""
SO, END = SIGNS.index("so"), SIGNS.index("end")
CAP = 12


class OneSequence(Decoder):
    """Visual tokens, words and what is written in one sequence, read by one causal decoder."""

    def __init__(self) -> None:
        context = SEEN + LONGEST + CAP
        sizes = Sizes(len(SIGNS), SIZE.width, SIZE.depth, SIZE.heads, SIZE.heads, 128, context)
        super().__init__(sizes)
        self.sight, self.questions = Sight(SIZE.width), Questions(SIZE.width)
        example = torch.zeros(1, *DOMAIN.parts["image"].shape)
        self.price = Seeing(sizes.price, float(count_macs(self.sight, example)))

    def seen(self, batch: PartsBatch, leaf: Leaf | None = None) -> Tensor:
        """(B, SEEN + LONGEST, width): what is read before anything is written."""
        words = self.questions(batch["question"], leaf)
        return torch.cat([self.sight(batch["image"]), words], 1)


class Seeing:
    """The price of a decoder behind an encoder that costs the same for every image."""

    def __init__(self, decoder: Price, sight: float) -> None:
        self.decoder, self.sight = decoder, sight

    def macs(self, prompt: Tensor, passes: Tensor, cached: bool = True) -> Tensor:
        return self.decoder.macs(prompt, passes, cached) + self.sight

    def held(self, prompt: Tensor, passes: Tensor) -> Tensor:
        return self.decoder.held(prompt, passes)

    def moved(self, prompt: Tensor, passes: Tensor, cached: bool = True) -> Tensor:
        """Modelled, as of the decoder; what the encoder moves is the same for every image."""
        return self.decoder.moved(prompt, passes, cached)


class WritesAnswers(Writer):
    """Type D: the digits that it sees, and then the answer, are written one by one.

    A batch of its writer is what was read, ``network.seen(batch)``: a trace sees once.

    Args:
        network: of one sequence.
        settings: name and data.
    """

    network: OneSequence

    def __init__(
        self, network: OneSequence, *, name: str = "WritesAnswers", **settings: Any
    ) -> None:
        super().__init__(network, DOMAIN, cap=CAP, end=END, name=name, **settings)
        self.task = Conclusion(SO, CAP, END, Pieces(SIGNS))

    def lift(self, batch: Tensor, places: Tensor) -> Leaf:
        return self.network.questions.lift(batch, places)

    def forward(self, batch: PartsBatch) -> Tensor:
        """Images with questions -> what is written, (B, cap), the end token included."""
        return super().forward(self.network.seen(batch))

    def trace(self, batch: PartsBatch, leaf: Leaf | None = None) -> Trace:
        return super().trace(self.network.seen(batch, leaf))

    def begun(self, batch: Tensor, leaf: Leaf | None) -> tuple[Tensor, Memory]:
        return batch, None

    @property
    def _longest(self) -> int:
        return SEEN + LONGEST

    def _expect_fit(self, longest: int) -> None:
        assert longest + self.cap - 1 <= self.network.context

    def _asked(self, batch: Tensor | PartsBatch) -> Tensor:
        return torch.full((len(batch),), self._longest, device=batch.device)

    def _alike(
        self, batch: Tensor, leaf: Leaf | None = None
    ) -> Iterator[tuple[Tensor, Tensor, Leaf | None]]:
        yield torch.arange(len(batch), device=batch.device), batch, None
