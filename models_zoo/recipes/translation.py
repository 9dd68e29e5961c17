"""Encoder-decoders: a network learns to write the exact answer to a prompt, the end token last."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from effattack.domains.tokens import PAD, lengths, padded
from effattack.models_zoo.files import WEIGHTS, save_weights
from effattack.models_zoo.generation import dates, embedded
from effattack.models_zoo.generation.encoder_decoder import EncoderDecoder
from effattack.models_zoo.recipes import fitting
from effattack.models_zoo.recipes.generation import describe

DATA = "effattack.models_zoo.generation.dates: 60000 training, 200 held-out, 200 test prompts"
TOGETHER = 64
"""Prompts of one length that are learned together, so that none is padded."""


def train_dates_translator() -> None:
    """Cross-entropy of every token of the answer."""
    torch.manual_seed(0)
    victim = embedded.dates_translator(trained=False)
    fit(victim, *dates.dates("train"), epochs=8, rate=3e-3)
    save_weights(victim.network, WEIGHTS / "dates_translator.safetensors")
    describe(embedded.dates_translator(), *dates.dates("test"), data=DATA)


def fit(
    victim: EncoderDecoder, prompts: Tensor, answers: Tensor, *, epochs: int, rate: float
) -> None:
    """Train the network on prompts of one length at a time."""
    asked, texts = bundles(prompts, ended(victim, answers))
    loss = text_loss(victim)
    fitting.fit(
        victim.network, loss, (asked, texts), fitting.as_they_are, epochs=epochs, rate=rate, batch=1
    )


def ended(victim: EncoderDecoder, answers: Tensor) -> Tensor:
    """Answers (B, M), padded, with the end token behind each: (B, M + 1)."""
    wide = padded(answers, answers.shape[1] + 1)
    return wide.scatter(1, lengths(answers)[:, None], victim.choice.end)


def bundles(prompts: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
    """Prompts (B, L) and texts (B, M), in bundles of one length of prompts: (N, together, L) and
    (N, together, M); what does not fill a bundle is left out."""
    sizes = lengths(prompts)
    rows = torch.stack(
        [
            bundle
            for size in sizes.unique()
            for bundle in (sizes == size).nonzero()[:, 0].split(TOGETHER)
            if len(bundle) == TOGETHER
        ]
    )
    return prompts[rows], texts[rows]


def text_loss(victim: EncoderDecoder) -> fitting.Loss:
    """Of all tokens of a bundle's texts, each after those before it."""

    def loss(asked: Tensor, texts: Tensor) -> Tensor:
        logits, _ = victim.continued(asked[0], victim.read_by(texts[0]))
        return F.cross_entropy(logits.mT, texts[0, :, : logits.shape[1]], ignore_index=PAD)

    return loss


RECIPES: dict[str, Callable[[], None]] = {"dates_translator": train_dates_translator}
