"""Six exits on MiniLM: classifiers learn what the blocks of the frozen encoder show anyway.

The sentences, their splits and the loss are those of ``text_exit``. The encoder is left as its
authors trained it: one pass over the training sentences is all that it does, a few minutes of one
core.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effattack.domains.tokens import lengths
from effattack.models_zoo.criteria import Confidence
from effattack.models_zoo.exits import lowest_threshold
from effattack.models_zoo.files import WEIGHTS, save_weights, write_card
from effattack.models_zoo.recipes import fitting
from effattack.models_zoo.recipes.text import COMMON, DROP
from effattack.models_zoo.text import minilm
from effattack.models_zoo.text.bert_files import weights_digest
from effattack.models_zoo.text.sentence_exits import SentenceExits

EPOCHS, RATE = 60, 1e-2
AT_ONCE = 256


def train_minilm_exit() -> None:
    """Train the classifiers, choose the threshold, and write weights and card.

    The last block of an encoder of whole sentences tells less of single clauses than those before:
    accuracy may fall by ``DROP`` below the best classifier's, not the last one's.
    """
    torch.manual_seed(0)
    folder = minilm.model_folder()
    victim, words = minilm.untrained(folder)
    prompts, labels = minilm.requests(words, "train")

    def loss(means: Tensor, labels: Tensor) -> Tensor:
        said = _said(victim.heads, means)
        return F.cross_entropy(said.mT, labels[:, None].expand(-1, said.shape[1]))

    fitting.fit(
        victim.heads,
        loss,
        (means_of(victim, prompts), labels),
        fitting.as_they_are,
        epochs=EPOCHS,
        rate=RATE,
    )
    save_weights(victim.heads, WEIGHTS / f"{minilm.NAME}.safetensors")
    victim.heads.half().float()
    prompts, labels = minilm.requests(words, "heldout")
    with torch.no_grad():
        stages = _said(victim.heads, means_of(victim, prompts))
    each = _accuracies(stages, labels)
    threshold = lowest_threshold(stages, labels, DROP - (max(each) - each[-1]))
    victim.criterion = Confidence(threshold)
    prompts, labels = minilm.requests(words, "test")
    with torch.no_grad():
        trace = victim.trace(prompts)
    assert trace.stage_logits is not None
    each = _accuracies(trace.stage_logits, labels)
    accuracy = (trace.logits.argmax(1) == labels).double().mean().item()
    clean, most = trace.macs.mean().item(), victim.ceiling(prompts).mean().item()
    write_card(
        minilm.NAME,
        {
            "name": minilm.NAME,
            "family": victim.family,
            "data": COMMON,
            "recipe": f"python -m effattack.models_zoo.train {minilm.NAME}",
            "accuracy": round(accuracy, 4),
            "accuracy_of_each_exit": [round(value, 4) for value in each],
            "clean_macs": round(clean),
            "mean_ceiling": round(most),
            "max_macs": round(victim.max_macs),
            "mean_tokens": round(lengths(prompts).double().mean().item(), 2),
            "threshold": threshold,
            "parameters": sum(p.numel() for p in victim.parameters()),
            "trained_parameters": sum(p.numel() for p in victim.heads.parameters()),
            "encoder": weights_digest(folder),
            "vocabulary": words.digest(),
            "torch": torch.__version__,
        },
    )
    print(
        f"{minilm.NAME}: accuracy {accuracy:.2%} (to the end {each[-1]:.2%}), clean MACs "
        f"{clean / most:.1%} of all blocks, threshold {threshold}"
    )


def means_of(victim: SentenceExits, prompts: Tensor) -> Tensor:
    """(B, blocks, width): what each classifier sees; prompts of equal length run together."""
    sizes, width = lengths(prompts), victim.encoder.size.width
    found = torch.empty(len(prompts), len(victim.heads), width)
    with torch.no_grad():
        for size in sizes.unique().tolist():
            for rows in (sizes == size).nonzero()[:, 0].split(AT_ONCE):
                batch = prompts[rows, :size]
                means = victim.means(batch, victim.encoder.read(batch))
                found[rows] = torch.stack([*means], dim=1)
    return found


def _said(heads: nn.ModuleList, means: Tensor) -> Tensor:
    return torch.stack([head(means[:, k]) for k, head in enumerate(heads)], dim=1)


def _accuracies(stages: Tensor, labels: Tensor) -> list[float]:
    return (stages.argmax(2) == labels[:, None]).double().mean(0).tolist()


RECIPES: dict[str, Callable[[], None]] = {minilm.NAME: train_minilm_exit}
