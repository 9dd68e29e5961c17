"""The victims that come trained: name -> factory. They need no data from outside.

Each is registered as an entry point of the group ``effattack.victims``.
"""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from effattack.models_zoo import digits
from effattack.models_zoo.cascade.cascade import TinySaver
from effattack.models_zoo.early_exit.early_exit import EarlyExit
from effattack.models_zoo.files import WEIGHTS, load_weights, read_card
from effattack.models_zoo.networks import base_cnn, exit_stages, small_vit, tiny_cnn
from effattack.models_zoo.quantization.quantized import Quantized
from effattack.models_zoo.token_sparsification.ats import ATS

DATA = "effattack.models_zoo.digits:scored_images"


M = TypeVar("M", bound=nn.Module)


def _trained(model: M, weights: str) -> M:
    load_weights(model, WEIGHTS / f"{weights}.safetensors")
    return model.eval()


def digits_vit_ats() -> ATS:
    """A small ViT on digits whose blocks 1 and 2 sample tokens; training-free."""
    return ATS(
        _trained(small_vit(), "digits_vit"),
        ats_blocks=(1, 2),
        reference_tokens=74,
        name="digits_vit_ats",
        data=DATA,
    )


def digits_vit_int8() -> Quantized:
    """The plain small ViT on digits, its linear layers in int8 with dynamic activations."""
    return Quantized(
        _trained(small_vit(), "digits_vit"), digits.SHAPE, name="digits_vit_int8", data=DATA
    )


def digits_cnn_early_exit() -> EarlyExit:
    """A convolutional network on digits with three internal classifiers."""
    name = "digits_cnn_early_exit"
    stages, heads = exit_stages()
    _trained(nn.ModuleList([*stages, *heads]), name)
    threshold = read_card(name)["threshold"]
    return EarlyExit(stages, heads, threshold, digits.SHAPE, name=name, data=DATA)


def digits_tinysaver_cascade() -> TinySaver:
    """A tiny CNN that saves a larger one, on digits."""
    name = "digits_tinysaver_cascade"
    saver, base = tiny_cnn(), base_cnn()
    _trained(nn.ModuleList([saver, base]), name)
    threshold = read_card(name)["threshold"]
    return TinySaver(saver, base, threshold, digits.SHAPE, name=name, data=DATA)
