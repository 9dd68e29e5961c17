"""Token sparsification: every recipe continues from the weights of ``digits_vit``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effattack.models_zoo import embedded
from effattack.models_zoo.files import WEIGHTS, load_weights, save_weights
from effattack.models_zoo.recipes.common import (
    Loss,
    accuracy,
    describe,
    fit,
    straight_through,
)
from effattack.models_zoo.token_sparsification.dynamicvit import DynamicViT
from effattack.models_zoo.token_sparsification.dynamicvit_policy import Threshold
from effattack.models_zoo.token_sparsification.vit import (
    ViTVictim,
    project_heads,
    queries_keys_values,
)

SMOOTHING = 0.1
"""Of labels, as for the ViT itself."""
PONDER_WEIGHT = 0.01
"""α_p of A-ViT."""
UNIT_SHARE = 0.75
"""Of AdaViT's tokens, heads and sublayers each, to compute."""
BUDGET_WEIGHT = 4.0
"""Of the squared distance from a share, for AdaViT and DynamicViT."""


def train_avit() -> None:
    """Cross-entropy and α_p times A-ViT's mean ponder, without its prior on the halting depth."""
    victim = embedded.digits_vit_avit(trained=False)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        trace = victim.trace(images)
        return classified(trace.logits, labels) + PONDER_WEIGHT * trace.aux["ponder"].mean()

    tune(victim, loss, epochs=15, rate=5e-4)
    finish(embedded.digits_vit_avit)


def train_adavit() -> None:
    """Cross-entropy and AdaViT's budget for each kind of unit, straight through."""
    torch.manual_seed(0)
    victim = embedded.digits_vit_adavit(trained=False)
    thresholds = victim.policies[0].thresholds

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        trace = victim.trace(images)
        shares = [
            straight_through(trace.aux[f"{kind}_policy"], threshold).mean()
            for kind, threshold in zip(("token", "head", "layer"), thresholds, strict=True)
        ]
        budget = sum((share - UNIT_SHARE) ** 2 for share in shares)
        return classified(trace.logits, labels) + BUDGET_WEIGHT * budget

    tune(victim, loss, epochs=15, rate=1e-3)
    finish(embedded.digits_vit_adavit)


def train_dynamicvit() -> None:
    """Cross-entropy and the keep ratio of each stage, over the batch instead of per image.

    The decisions are those of the threshold rule with the gradient of its margin, which does not
    vanish where a predictor is sure; the paper samples them. At first nearly all tokens are kept.
    The top-k victim has the same weights.
    """
    torch.manual_seed(0)
    victim = embedded.digits_vit_dynamicvit(trained=False)
    targets = torch.tensor(embedded.KEEP_RATIOS)
    for predictor in victim.score_predictor:
        open_predictor(predictor)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        logits, ratios = relaxed(victim, images)
        return classified(logits, labels) + BUDGET_WEIGHT * (ratios - targets).square().sum()

    tune(victim, loss, epochs=15, rate=1e-3)
    finish(embedded.digits_vit_dynamicvit)
    finish(embedded.digits_vit_dynamicvit_topk, recipe=victim.name)


def open_predictor(predictor: nn.Module) -> None:
    """Start with odds of e² for keeping, and weights large enough for tokens to differ."""
    linear = [layer for layer in predictor.modules() if isinstance(layer, nn.Linear)]
    for layer in linear:
        nn.init.kaiming_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
    with torch.no_grad():
        linear[-1].bias.copy_(torch.tensor([1.0, -1.0]))


def relaxed(victim: DynamicViT, images: Tensor) -> tuple[Tensor, Tensor]:
    """The masked path of DynamicViT with the gradient of its margin in place of each decision.

    Returns:
        logits (B, classes), and per stage the share of patches that the batch keeps (stages,).
    """
    assert isinstance(victim.policy, Threshold)
    x = victim.embed(images)
    live = torch.ones_like(x[:, :, 0])
    itself = torch.eye(x.shape[1], dtype=x.dtype)
    ratios: list[Tensor] = []
    for index, block in enumerate(victim.vit.blocks):
        if index in victim.pruning_blocks:
            log_probs = victim.score_predictor[len(ratios)](x[:, 1:], live[:, 1:])
            margin = victim.policy.margin(log_probs, live[:, 1:].detach())
            live = torch.cat([live[:, :1], live[:, 1:] * straight_through(margin, 0)], dim=1)
            ratios.append(live[:, 1:].mean())
        q, k, v = queries_keys_values(block.attn, block.norm1(x))
        scores = q @ k.transpose(-2, -1)
        weights = (scores - scores.amax(-1, keepdim=True).detach()).exp()
        weights = weights * (itself + (1 - itself) * live[:, None, None])
        attention = weights / weights.sum(-1, keepdim=True)
        x = x + block.ls1(project_heads(block.attn, attention @ v))
        x = x + block.ls2(block.mlp(block.norm2(x)))
    return victim.classify(x), torch.stack(ratios)


def classified(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with smoothed labels."""
    return F.cross_entropy(logits, labels, label_smoothing=SMOOTHING)


def tune(victim: ViTVictim, loss: Loss, *, epochs: int, rate: float) -> None:
    """Train on from the plain ViT, and store the victim."""
    load_weights(victim.vit, WEIGHTS / "digits_vit.safetensors")
    fit(victim, loss, epochs=epochs, rate=rate)
    save_weights(victim, WEIGHTS / f"{victim.name}.safetensors")


def finish(factory: Callable[[], ViTVictim], recipe: str | None = None) -> None:
    """The card; the dense base is the plain ViT."""
    victim = factory()
    reference = accuracy(embedded.digits_vit(), "test")
    describe(victim, recipe=recipe or victim.name, dense_accuracy=reference)


RECIPES: dict[str, Callable[[], None]] = {
    "digits_vit_avit": train_avit,
    "digits_vit_adavit": train_adavit,
    "digits_vit_dynamicvit": train_dynamicvit,
    "digits_vit_dynamicvit_topk": train_dynamicvit,
}
