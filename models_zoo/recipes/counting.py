"""Counting from proposals: the detector is there already and stays, the rest learns to count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from effattack.domains import PartsBatch
from effattack.models_zoo.detection import scenes
from effattack.models_zoo.detection.embedded import scenes_detector
from effattack.models_zoo.detection.networks import STRIDE, cell_middles
from effattack.models_zoo.files import WEIGHTS, save_weights
from effattack.models_zoo.multimodal import crowds, questions
from effattack.models_zoo.multimodal.counting import CountsProposals, Found
from effattack.models_zoo.multimodal.embedded import questions_counted
from effattack.models_zoo.recipes import cards, fitting

EPOCHS, RATE, BATCH = 6, 1e-2, 128
AT_ONCE = 100
DATA = (
    "questions how many, about scenes of scikit-learn's digits of two classes each: 16000 about "
    "4000 training, 600 about 200 held-out, 200 about 200 test scenes "
    "(effattack.models_zoo.multimodal.crowds)"
)


def train_counted() -> None:
    """Cross-entropy of the answer, and of what is attended to: cells on a digit that is asked for.

    Its dense model has the same weights; the best cells of every scene are its proposals, whatever
    their score.
    """
    torch.manual_seed(0)
    victim = questions_counted(trained=False)
    fit(victim)
    save_weights(victim, WEIGHTS / f"{victim.name}.safetensors")
    victim, (batch, answers) = questions_counted(), crowds.counted("test")
    dense = CountsProposals(score=0.0)
    dense.load_state_dict(victim.state_dict())
    cards.describe(
        victim,
        batch,
        answers,
        data=DATA,
        recipe=victim.name,
        dense_accuracy=cards.share_right(dense, batch, answers),
        **facts(victim, batch, answers),
    )


def fit(victim: CountsProposals) -> None:
    """Give it the network of ``scenes_detector``, and train all else on what that says."""
    detector: Any = scenes_detector().model
    victim.network.load_state_dict(detector.state_dict())
    victim.network.requires_grad_(False)
    images, boxes, rows, ids, answers = crowds.drawn("train")
    with torch.no_grad():
        seen = [victim.proposed(some) for some in images.split(AT_ONCE)]
    found = Found(*map(torch.cat, zip(*seen, strict=True)))

    def loss(numbers: Tensor, answers: Tensor) -> Tensor:
        words, scene = ids[numbers], rows[numbers]
        about, asked = Found(*(part[scene] for part in found)), victim.questions(words)
        attention = victim.attention(about.scores, victim.asked(asked.sum(1)))
        looking = F.binary_cross_entropy(attention, wanted(boxes[scene], words))
        return F.cross_entropy(victim.said(about, asked), answers) + looking

    data = torch.arange(len(answers)), answers
    fitting.fit(victim, loss, data, fitting.as_they_are, epochs=EPOCHS, rate=RATE, batch=BATCH)


def wanted(boxes: Tensor, words: Tensor) -> Tensor:
    """Boxes (B, M, 6), questions (B, 8) -> (B, cells): 1 where a digit that is asked for holds the
    middle of a cell, else 0."""
    kinds = words[:, 2, None] - questions.WORDS.index(questions.MANY[0])
    side = scenes.SIDE // STRIDE
    middles = cell_middles(side, side)[None, :, None]
    inside = ((boxes[:, None, :, :2] <= middles) & (middles <= boxes[:, None, :, 2:4])).all(3)
    return (inside & (boxes[..., 5] == kinds)[:, None]).any(2).float()


def facts(victim: CountsProposals, batch: PartsBatch, answers: Tensor) -> dict[str, Any]:
    """Accuracy by what is counted, and of questions about scenes of any digits; clean counts."""
    with torch.no_grad():
        traces = [victim.trace(some) for some in batch.split(AT_ONCE)]
    right = torch.cat([trace.logits for trace in traces]).argmax(1) == answers
    plain, about = questions.asked("test")
    many = plain["question"][:, 0] == questions.WORDS.index("how")
    return {
        "accuracy_by_answer": {
            str(n): round(right[answers == n].double().mean().item(), 4)
            for n in answers.unique().tolist()
        },
        "accuracy_any_digits": round(cards.share_right(victim, plain[many], about[many]), 4),
        **{
            f"clean_{name}": torch.cat([trace.also[name] for trace in traces]).mean().item()
            for name in victim.counts
        },
    }


RECIPES: dict[str, Callable[[], None]] = {"questions_counted": train_counted}
