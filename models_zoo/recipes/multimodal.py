"""Scenes with questions: what reads both is trained on what the frozen trunk sees of each scene."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from effattack.domains.tokens import PAD, lengths
from effattack.models_zoo.detection import scenes
from effattack.models_zoo.detection.embedded import scenes_detector
from effattack.models_zoo.exits import lowest_threshold
from effattack.models_zoo.files import WEIGHTS, save_weights, write_card
from effattack.models_zoo.multimodal import embedded, questions
from effattack.models_zoo.multimodal.fusion import (
    CAP,
    END,
    SEEN,
    SO,
    Asked,
    CrossAttended,
    OneSequence,
    Sight,
)
from effattack.models_zoo.multimodal.questions import LONGEST
from effattack.models_zoo.recipes import cards, fitting, generation
from effattack.models_zoo.recipes.common import straight_through

EPOCHS, RATE, BATCH = 12, 3e-3, 128
GATED_EPOCHS = 5
"""Of the gates, behind those of the layers."""
GATE_SHARE = 0.5
"""Of the questions, to run each fusion layer for."""
SHARE_WEIGHT = 2.0
"""Of the squared distance from that share, summed over the gates."""
LOOKED_AT = 0.5
"""Share of the attention that is to lie on the middles of digits; the rest lies anywhere."""
AT_ONCE = 100
DATA = (
    "questions about scenes of scikit-learn's digits: 32000 about 4000 training, 600 about 200 "
    "held-out, 200 about 200 test scenes (effattack.models_zoo.multimodal.questions)"
)


class Seen:
    """The questions of a split by number, and what a frozen trunk sees of their scenes."""

    def __init__(self, split: str) -> None:
        self.rows, self.ids, self.answers = questions.drawn(split)
        images, self.boxes = scenes.scenes(split)
        trunk = with_trunk(Sight(1)).trunk
        with torch.no_grad():
            self.cells = torch.cat([trunk(some) for some in images.split(AT_ONCE)])

    def read(self, victim: Asked | OneSequence, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of questions, and visual tokens of their scenes, as a victim reads them."""
        cells = self.cells[self.rows[numbers]]
        return victim.questions(self.ids[numbers]), victim.sight.tokens(cells)

    def middles(self, numbers: Tensor) -> Tensor:
        """(B, SEEN): 1 at visual tokens that hold the middle of a digit, else 0."""
        boxes = self.boxes[self.rows[numbers]]
        side = math.isqrt(SEEN)
        middle = (boxes[..., :2] + boxes[..., 2:4]) / 2 * side / scenes.SIDE
        place = middle[..., 1].long() * side + middle[..., 0].long()
        found = torch.zeros(len(numbers), SEEN)
        return found.scatter_add(1, place.clamp_min(0), (boxes[..., 4] > 0).float()).clamp_max(1)


def with_trunk(sight: Sight) -> Sight:
    """The same with the trunk of ``scenes_detector``, which stays as it is."""
    detector: Any = scenes_detector().model
    sight.trunk.load_state_dict(detector.trunk.state_dict())
    sight.trunk.requires_grad_(False)
    return sight.eval()


def train_cross() -> None:
    """Type A: the last classifier trains the layers, the others learn what theirs show anyway.

    As of ``text_exit``: trained together, the first answers as well as the last, and no threshold
    moves any work. It is chosen on held-out questions.
    """
    torch.manual_seed(0)
    victim, seen = embedded.questions_cross(trained=False), Seen("train")

    def loss(numbers: Tensor, answers: Tensor) -> Tensor:
        *early, last = victim.means(*seen.read(victim, numbers))
        said = victim.said([*(mean.detach() for mean in early), last])
        return F.cross_entropy(said.mT, answers[:, None].expand(-1, said.shape[1]))

    fit(victim, loss, seen)
    save(victim)
    threshold = lowest_threshold(*stages(victim, "heldout"))
    write_card(victim.name, {"threshold": threshold})
    said, answers = stages(victim, "test")
    right = (said.argmax(2) == answers[:, None]).double().mean(0)
    each = [round(share, 4) for share in right.tolist()]
    describe(embedded.questions_cross(), each[-1], threshold=threshold, stage_accuracies=each)


def stages(victim: CrossAttended, split: str) -> tuple[Tensor, Tensor]:
    """What every classifier says of the questions of a split, and their answers."""
    batch, answers = questions.asked(split)
    with torch.no_grad():
        said = [victim.trace(some).stage_logits for some in batch.split(AT_ONCE)]
    return torch.cat([each for each in said if each is not None]), answers


def train_gated() -> None:
    """Type B: all fusion layers first, then with hard gates that have the gradient of σ(z).

    Each gate has a target share, as in ConvNet-AIG (Veit and Belongie, ECCV 2018).
    """
    torch.manual_seed(0)
    victim, seen = embedded.questions_gated(trained=False), Seen("train")

    def relaxed(seen: Seen, numbers: Tensor, *, always: bool) -> tuple[Tensor, Tensor]:
        x, tokens = seen.read(victim, numbers)
        shares = []
        for k, layer in enumerate(victim.layers):
            share = straight_through(victim.policy.share(victim.fusion.asked(k, x, tokens)), 0.5)
            shares.append(torch.ones_like(share) if always else share)
            x = x + shares[-1][:, None, None] * (victim.fusion(k, x, tokens) - x)
            x = layer(x, x)
        return victim.head(x.mean(1)), torch.stack(shares, 1)

    def loss(numbers: Tensor, answers: Tensor) -> Tensor:
        logits, shares = relaxed(seen, numbers, always=False)
        away = (shares.mean(0) - GATE_SHARE).square().sum()
        return F.cross_entropy(logits, answers) + SHARE_WEIGHT * away

    fit(victim, lambda n, a: F.cross_entropy(relaxed(seen, n, always=True)[0], a), seen)
    tested = Seen("test")
    with torch.no_grad():
        logits, _ = relaxed(tested, torch.arange(len(tested.answers)), always=True)
    dense = (logits.argmax(1) == tested.answers).double().mean().item()
    fit(victim, loss, seen, epochs=GATED_EPOCHS)
    save(victim)
    describe(embedded.questions_gated(), dense)


def train_selected() -> None:
    """Type C: the learnt row is shown where digits are, the layers read what the rule keeps.

    Its dense model is another of the same sizes that is trained on all tokens, and reads them.
    """
    torch.manual_seed(0)
    seen, tested = Seen("train"), Seen("test")
    dense = embedded.questions_selected(trained=False)
    fit(dense, lambda n, a: F.cross_entropy(dense.said(*seen.read(dense, n)), a), seen)
    with torch.no_grad():
        said = dense.said(*tested.read(dense, torch.arange(len(tested.answers))))
    reference = (said.argmax(1) == tested.answers).double().mean().item()

    torch.manual_seed(0)
    victim = embedded.questions_selected(trained=False)

    def loss(numbers: Tensor, answers: Tensor) -> Tensor:
        text, tokens = seen.read(victim, numbers)
        attention, middles = victim.attention(tokens), seen.middles(numbers)
        wanted = LOOKED_AT * middles / middles.sum(1, keepdim=True) + (1 - LOOKED_AT) / SEEN
        excess, place = victim.rule.excess(attention).topk(victim.rule.most, dim=1)
        chosen = tokens.gather(1, place[:, :, None].expand(-1, -1, tokens.shape[2]))
        said = victim.said(text, chosen, excess > 0)
        looking = F.kl_div(attention.log(), wanted, reduction="batchmean")
        return F.cross_entropy(said, answers) + looking

    fit(victim, loss, seen)
    save(victim)
    describe(embedded.questions_selected(), reference)
    describe(embedded.questions_fixed_ratio(), reference, recipe=victim.name)


def train_written() -> None:
    """Type D: cross-entropy of every token that is written, digits included."""
    torch.manual_seed(0)
    victim, seen = embedded.questions_written(trained=False), Seen("train")
    network = victim.network
    texts = torch.full((len(seen.answers), CAP), PAD)
    for row, scene, answer in zip(texts, seen.rows.tolist(), seen.answers.tolist(), strict=True):
        digits = map(int, questions.row_of(seen.boxes[scene][seen.boxes[scene, :, 4] >= 0]))
        written = torch.tensor([*digits, SO, answer, END])
        row[: len(written)] = written

    def loss(numbers: Tensor, answers: Tensor) -> Tensor:
        text = texts[numbers]
        text = text[:, : int(lengths(text).max())]
        words, tokens = seen.read(network, numbers)
        rows = torch.cat([tokens, words, network.lift(text[:, :-1].clamp_min(0))], 1)
        state, _ = network.read(rows)
        said = network.draw(state[:, SEEN + LONGEST - 1 :])
        return F.cross_entropy(said.mT, text, ignore_index=PAD)

    fit(network, loss, seen)
    save_weights(network, WEIGHTS / f"{victim.name}.safetensors")
    batch, answers = questions.scored_conclusions()
    generation.describe(embedded.questions_written(), batch, answers, data=DATA)


def fit(
    model: Asked | OneSequence, loss: fitting.Loss, seen: Seen, *, epochs: int = EPOCHS
) -> None:
    """Train all but the trunk on questions by number."""
    with_trunk(model.sight)
    data = torch.arange(len(seen.answers)), seen.answers
    fitting.fit(model, loss, data, fitting.as_they_are, epochs=epochs, rate=RATE, batch=BATCH)


def save(victim: Asked) -> None:
    """Its weights, where its factory finds them."""
    save_weights(victim, WEIGHTS / f"{victim.name}.safetensors")


def describe(victim: Asked, dense: float, *, recipe: str | None = None, **facts: Any) -> None:
    """Its card, from the test questions; ``recipe`` is that of its weights, if not its own."""
    batch, answers = questions.asked("test")
    recipe = recipe or victim.name
    cards.describe(victim, batch, answers, data=DATA, recipe=recipe, dense_accuracy=dense, **facts)


RECIPES: dict[str, Callable[[], None]] = {
    "questions_cross": train_cross,
    "questions_gated": train_gated,
    "questions_selected": train_selected,
    "questions_written": train_written,
}
