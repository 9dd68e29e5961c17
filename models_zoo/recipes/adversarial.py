"""Adversarial training of the early exits on digits, as it was published before any of ours.

Plain: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018
(arXiv 1706.06083), against attacks on the answer of the last classifier. On slowdowns: the same
against DeepSloth's objective (Hong et al., ICLR 2021, arXiv 2010.02432, who report that adversarial
training protects little). Neither is :mod:`effattack.hardening`, which cures a user's own victim.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effattack.models_zoo import embedded
from effattack.models_zoo.defences import digits as defended
from effattack.models_zoo.early_exit.early_exit import EarlyExit
from effattack.models_zoo.files import WEIGHTS, save_weights
from effattack.models_zoo.recipes.common import Loss, fit
from effattack.models_zoo.recipes.early_exit import all_exits, choose_threshold, lowest_threshold

EPS, STEPS, EPOCHS = 6 / 255, 5, 30
Wanted = Callable[[Tensor, Tensor], Tensor]
"""Logits (B, stages, classes) and labels (B,) -> what the attack raises, (B,)."""


def wrong_answer(stage_logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the last classifier: (B, stages, classes), (B,) -> (B,)."""
    return F.cross_entropy(stage_logits[:, -1], labels, reduction="none")


def unsure_exits(stage_logits: Tensor, labels: Tensor) -> Tensor:
    """DeepSloth's: - Σ over internal classifiers of CE(uniform, softmax), (B,)."""
    return stage_logits[:, :-1].log_softmax(2).mean(2).sum(1)


def ascended(
    model: nn.Module,
    value: Callable[[Tensor], Tensor],
    images: Tensor,
    eps: float = EPS,
    steps: int = STEPS,
) -> Tensor:
    """Images moved by signed gradient steps inside an l-inf ball, from a random point of it.

    Args:
        model: in eval mode meanwhile, and as it was afterwards.
        value: images -> what is raised, (B,).
        images: (B, C, H, W) in [0, 1].
        eps, steps: of the attack; each step is 2.5 eps / steps long.
    """
    mode = model.training
    model.eval()
    found = (images + (2 * torch.rand_like(images) - 1) * eps).clamp(0, 1)
    for _ in range(steps):
        found.requires_grad_()
        (slope,) = torch.autograd.grad(value(found).sum(), found)
        moved = found.detach() + 2.5 * eps / steps * slope.sign()
        found = torch.maximum(torch.minimum(moved, images + eps), images - eps).clamp(0, 1)
    model.train(mode)
    return found


def adversarial_loss(victim: EarlyExit, wanted: Wanted) -> Loss:
    """Cross-entropy of all classifiers on attacked images, and half of that on clean ones."""
    answers = all_exits(victim.stages, victim.heads)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        def value(moved: Tensor) -> Tensor:
            stage_logits = victim.trace(moved).stage_logits
            assert stage_logits is not None
            return wanted(stage_logits, labels)

        attacked = ascended(victim, value, images)
        return answers(attacked, labels) + 0.5 * answers(images, labels)

    return loss


def train_against(name: str, factory: Callable[[], EarlyExit], wanted: Wanted) -> None:
    """``digits_cnn_early_exit`` trained on, its threshold chosen as it was for the original."""
    torch.manual_seed(0)
    victim = embedded.digits_cnn_early_exit()
    modules = nn.ModuleList([*victim.stages, *victim.heads])
    fit(victim, adversarial_loss(victim, wanted), epochs=EPOCHS, rate=2e-3)
    save_weights(modules, WEIGHTS / f"{name}.safetensors")
    choose_threshold(name, factory, lowest_threshold)


def train_on_answers() -> None:
    """Against attacks on the last answer."""
    name = "digits_cnn_trained_on_answers"
    train_against(name, defended.cnn_trained_on_answers, wrong_answer)


def train_on_slowdowns() -> None:
    """Against DeepSloth's objective."""
    name = "digits_cnn_trained_on_slowdowns"
    train_against(name, defended.cnn_trained_on_slowdowns, unsure_exits)


RECIPES: dict[str, Callable[[], None]] = {
    "digits_cnn_trained_on_answers": train_on_answers,
    "digits_cnn_trained_on_slowdowns": train_on_slowdowns,
}
