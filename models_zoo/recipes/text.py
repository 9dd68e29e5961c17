"""Text: encoders learn requests to an assistant; thresholds are chosen on held-out sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from effattack.domains.tokens import lengths
from effattack.errors import UsageError
from effattack.models_zoo.criteria import Confidence
from effattack.models_zoo.exits import lowest_threshold
from effattack.models_zoo.files import WEIGHTS, save_weights, write_card
from effattack.models_zoo.recipes import fitting
from effattack.models_zoo.text import embedded, sentences
from effattack.models_zoo.text.encoder import there
from effattack.models_zoo.text.sentence_exits import SentenceExits
from effattack.models_zoo.text.token_exits import TokenExits
from effattack.victim import Victim

EPOCHS, RATE = 5, 4e-3
DROP = 0.005
"""Accuracy on held-out sentences that leaving early may cost."""
DROP_TAGGED = 0.02
"""The same of a tagger, which is right on a sentence only if it is on every token."""
TRIED = (0.9, 0.95, 0.98, 0.99, 0.995, 0.997, 0.999)
"""Confidence thresholds of a tagger."""
COMMON = (
    "requests to an assistant, made by a recipe: 12000 training, 600 held-out, 300 test sentences "
    "of templates of their own (effattack.models_zoo.text.sentences)"
)


def train_text_exit() -> None:
    """The last classifier trains the encoder; the others learn what its blocks show anyway.

    So does DeeBERT in its second stage (Xin et al. 2020): early blocks serve the last one, and an
    early answer is less sure than it could be made.
    """
    torch.manual_seed(0)
    victim = embedded.text_exit(trained=False)

    def loss(prompts: Tensor, labels: Tensor) -> Tensor:
        sizes = lengths(prompts)[:, None]
        means = ((x * there(prompts)[:, :, None]).sum(1) / sizes for x in blocks(victim, prompts))
        said = torch.stack([h(mean) for h, mean in zip(victim.heads, means, strict=True)], 1)
        return F.cross_entropy(said.mT, labels[:, None].expand(-1, said.shape[1]))

    _fit(victim, loss, sentences.requests("train"))
    prompts, labels = sentences.requests("heldout")
    with torch.no_grad():
        threshold = lowest_threshold(stages_of(victim, prompts), labels, DROP)
        tested, wanted = sentences.requests("test")
        dense = (stages_of(victim, tested)[:, -1].argmax(1) == wanted).double().mean().item()
    _describe(embedded.text_exit, threshold, dense)


def blocks(victim: SentenceExits | TokenExits, prompts: Tensor) -> Iterator[Tensor]:
    """What every block makes of all tokens, (B, L, width) each; gradients pass the last alone."""
    present = there(prompts)
    x = victim.encoder.read(prompts)
    for k, block in enumerate(victim.encoder.blocks):
        x = block(x, x, present)
        yield x if k == len(victim.heads) - 1 else x.detach()


def stages_of(victim: SentenceExits, prompts: Tensor) -> Tensor:
    """(B, stages, classes): what every classifier says."""
    stages = victim.trace(prompts).stage_logits
    assert stages is not None
    return stages


def train_ner_exit() -> None:
    """As ``text_exit``, every token by itself; in training none leaves."""
    torch.manual_seed(0)
    victim = embedded.ner_exit(trained=False)

    def loss(prompts: Tensor, tags: Tensor) -> Tensor:
        pairs = zip(victim.heads, blocks(victim, prompts), strict=True)
        said = torch.stack([head(x) for head, x in pairs], 2)
        each = tags[:, :, None].expand(said.shape[:3])
        return F.cross_entropy(said[each >= 0], each[each >= 0])

    _fit(victim, loss, sentences.entities("train"))
    dense = right(victim, "test")
    _describe(embedded.ner_exit, tagging_threshold(victim), dense)


def tagging_threshold(victim: TokenExits) -> float:
    """The lowest of ``TRIED`` at which few held-out sentences are tagged worse than without exits.

    Raises:
        UsageError: if there is none.
    """
    victim.criterion = Confidence(1.0)
    floor = right(victim, "heldout") - DROP_TAGGED
    for threshold in TRIED:
        victim.criterion = Confidence(threshold)
        if right(victim, "heldout") >= floor:
            return threshold
    raise UsageError(f"no threshold of {victim.name} keeps its accuracy: train it longer")


def right(victim: Victim, split: str) -> float:
    """Share of the sentences of a split that are answered without a fault."""
    data = sentences.entities if isinstance(victim, TokenExits) else sentences.requests
    prompts, labels = data(split)
    with torch.no_grad():
        answers = victim.task.answer(victim.trace(prompts).logits)
    return victim.task.right(answers, labels).double().mean().item()


def _fit(victim: Victim, loss: fitting.Loss, data: tuple[Tensor, Tensor]) -> None:
    fitting.fit(victim, _narrow(loss), data, fitting.as_they_are, epochs=EPOCHS, rate=RATE)
    save_weights(victim, WEIGHTS / f"{victim.name}.safetensors")


def _narrow(loss: fitting.Loss) -> fitting.Loss:
    """Without columns that only pad."""

    def narrowed(prompts: Tensor, labels: Tensor) -> Tensor:
        width = int(lengths(prompts).max())
        return loss(prompts[:, :width], labels[:, :width] if labels.dim() == 2 else labels)

    return narrowed


def _describe(factory: Callable[[], Victim], threshold: float, dense_accuracy: float) -> None:
    """Store the threshold, and then the card of the victim that reads it."""
    name = factory.__name__
    write_card(name, {"threshold": threshold})
    victim = factory()
    prompts, _ = sentences.requests("test")
    with torch.no_grad():
        clean, most = victim.trace(prompts).macs.mean(), victim.ceiling(prompts).mean()
    accuracy = right(victim, "test")
    write_card(
        name,
        {
            "name": name,
            "family": victim.family,
            "data": COMMON,
            "recipe": f"python -m effattack.models_zoo.train {name}",
            "accuracy": round(accuracy, 4),
            "dense_accuracy": round(dense_accuracy, 4),
            "clean_macs": round(clean.item()),
            "mean_ceiling": round(most.item()),
            "max_macs": round(victim.max_macs),
            "mean_tokens": round(there(prompts).sum(1).double().mean().item(), 2),
            "threshold": threshold,
            "parameters": sum(p.numel() for p in victim.parameters()),
            "torch": torch.__version__,
        },
    )
    print(
        f"{name}: accuracy {accuracy:.2%} (to the end {dense_accuracy:.2%}), clean MACs "
        f"{clean / most:.1%} of all blocks, threshold {threshold}"
    )


RECIPES: dict[str, Callable[[], None]] = {
    "text_exit": train_text_exit,
    "ner_exit": train_ner_exit,
}
