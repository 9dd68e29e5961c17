"""The plain ViT, and the victims that wrap it, the plain CNN or a gated victim without training."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from effattack.models_zoo import embedded
from effattack.models_zoo.files import WEIGHTS, read_card, save_weights
from effattack.models_zoo.networks import small_vit
from effattack.models_zoo.quantization.gated import GatedInFewBits
from effattack.models_zoo.recipes.common import accuracy, cross_entropy, describe, fit
from effattack.victim import Victim


def train_vit() -> None:
    """The plain ViT under ``digits_vit_ats`` and ``digits_vit_int8``."""
    torch.manual_seed(1)
    vit = small_vit()
    fit(vit, cross_entropy(vit, smoothing=0.1), epochs=100, rate=1e-3)
    save_weights(vit, WEIGHTS / "digits_vit.safetensors")
    reference = accuracy(vit, "test")
    for factory in (embedded.digits_vit_ats, embedded.digits_vit_int8):
        describe(factory(), recipe="digits_vit", dense_accuracy=reference, threshold=None)


def training_free(factory: Callable[[], Victim], plain: Callable[[], nn.Module]) -> None:
    """A card is all there is to make: the weights are those of the plain model."""
    victim = factory()
    reference = accuracy(plain(), "test")
    describe(victim, recipe=victim.name, dense_accuracy=reference)


def rounded(factory: Callable[[], GatedInFewBits]) -> None:
    """A card is all there is to make: weights and threshold are those of the float victim."""
    victim = factory()
    exact = read_card(victim.float_victim.name)
    describe(
        victim,
        recipe=victim.name,
        dense_accuracy=exact["dense_accuracy"],
        threshold=exact["threshold"],
    )


def large_cnn() -> nn.Module:
    """The base of the embedded cascades."""
    return embedded.digits_cnns()[1]


RECIPES: dict[str, Callable[[], None]] = {
    "digits_vit": train_vit,
    "digits_vit_ats": train_vit,
    "digits_vit_int8": train_vit,
    "digits_vit_int8_weight_only": partial(
        training_free, embedded.digits_vit_int8_weight_only, embedded.digits_vit
    ),
    "digits_vit_int4_weight_only": partial(
        training_free, embedded.digits_vit_int4_weight_only, embedded.digits_vit
    ),
    "digits_vit_evit": partial(training_free, embedded.digits_vit_evit, embedded.digits_vit),
    "digits_vit_llm_int8": partial(
        training_free, embedded.digits_vit_llm_int8, embedded.digits_vit
    ),
    "digits_vit_tome": partial(training_free, embedded.digits_vit_tome, embedded.digits_vit),
    "digits_cnn_int8": partial(training_free, embedded.digits_cnn_int8, large_cnn),
    "digits_cnn_pruned": partial(training_free, embedded.digits_cnn_pruned, large_cnn),
    "digits_cnn_early_exit_int8": partial(rounded, embedded.digits_cnn_early_exit_int8),
    "digits_tinysaver_cascade_int8": partial(rounded, embedded.digits_tinysaver_cascade_int8),
    "digits_vit_ats_int8": partial(rounded, embedded.digits_vit_ats_int8),
}
