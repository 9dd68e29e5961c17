"""Trained victims meet other images: tuned to a shifted set, or distilled into a smaller one."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from effattack.hardening.inner import answers_loss
from effattack.models_zoo.recipes import fitting
from effattack.models_zoo.recipes.common import Loss, moved
from effattack.models_zoo.recipes.low_rank import adapt, fold
from effattack.models_zoo.token_sparsification.ats import ATS
from effattack.victim import Victim

TEMPERATURE = 4.0
"""Of both softmaxes in a distillation."""


def tune(
    victim: Victim, data: tuple[Tensor, Tensor], *, rank: int, epochs: int, rate: float, seed: int
) -> int:
    """Train low-rank adapters of a classifier as it is deployed, and fold them in.

    The loss is the cross-entropy of its answer, or of all stages in a row; batch norm keeps its
    stored statistics.

    Args:
        victim: changed in place.
        data: images and labels.
        rank: of every adapter.
        epochs, rate: of the schedule.
        seed: of the adapters, and of the order of the images.

    Returns:
        How many weights were trained.
    """
    torch.manual_seed(seed)
    adapters = adapt(victim, rank)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        return answers_loss(victim.trace(images), labels).mean()

    generator = torch.Generator().manual_seed(seed)
    fitting.fit(adapters, loss, data, moved, epochs=epochs, rate=rate, generator=generator)
    fold(victim)
    return sum(parameter.numel() for parameter in adapters.parameters())


def distil(
    student: ATS,
    teacher: ATS,
    images: Tensor,
    *,
    matching: float,
    epochs: int,
    rate: float,
    seed: int,
) -> None:
    """Train a student on what its teacher says about images without labels.

    Args:
        student: changed in place.
        teacher: as deployed.
        images: (B, C, H, W).
        matching: of :func:`distillation`.
        epochs, rate: of the schedule.
        seed: of the order of the images.
    """
    generator = torch.Generator().manual_seed(seed)
    data, loss = (images, torch.arange(len(images))), distillation(student, teacher, matching)
    fitting.fit(student, loss, data, moved, epochs=epochs, rate=rate, generator=generator)


def distillation(student: ATS, teacher: ATS, matching: float) -> Loss:
    """What a student says otherwise than its teacher; of images alone, whatever stands beside them.

    Hinton et al., "Distilling the Knowledge in a Neural Network", 2015 (arXiv 1503.02531): the
    divergence of the student's softmax from the teacher's, both at a temperature T, times T². What
    both keep can be matched as well: tokens are sampled by their significance, so that its
    divergence is added, a mean over the blocks that sample.

    Args:
        student, teacher: with as many patches and as many blocks that sample.
        matching: weight of the significances' divergence; 0: answers alone are matched.
    """

    def loss(images: Tensor, _: Tensor) -> Tensor:
        with torch.no_grad():
            told = teacher.trace(images)
        said = student.trace(images)
        soft = ((logits / TEMPERATURE).softmax(1) for logits in (told.logits, said.logits))
        tokens = divergence(told.aux["significance"], said.aux["significance"]).mean(1)
        return (TEMPERATURE**2 * divergence(*soft) + matching * tokens).mean()

    return loss


def divergence(of: Tensor, given: Tensor, least: float = 1e-6) -> Tensor:
    """KL(of ‖ given) of distributions (..., n) -> (...); ``given`` counts as ``least`` or more."""
    return F.kl_div(given.clamp_min(least).log(), of, reduction="none").sum(-1)
