"""The defended victims on digits, by path: ``effattack.models_zoo.defences.digits:FACTORY``.

Caps and thresholds are set on the held-out images.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import nn

from effattack.models_zoo import embedded
from effattack.models_zoo.defences.cut_off import cut_off
from effattack.models_zoo.defences.hysteresis import Hysteresis
from effattack.models_zoo.defences.screened import Screened, screening_limit
from effattack.models_zoo.defences.token_caps import CappedATS, CappedAViT, Order, heldout_caps
from effattack.models_zoo.digits import SHAPE, digits
from effattack.models_zoo.early_exit.early_exit import EarlyExit
from effattack.models_zoo.files import WEIGHTS, load_weights, read_card, stored_threshold
from effattack.models_zoo.networks import exit_stages, small_vit
from effattack.models_zoo.token_sparsification.avit import AViT
from effattack.victim.entry import Entry, bits, jpeg, median, random_crop, resize
from effattack.victim.entry.steps import Step
from effattack.victim.smoothed import Smoothed

BAND = 0.6
"""Where the band of the hysteresis begins, as a share of the exit threshold."""


@cache
def _caps(name: str) -> dict[int, int]:
    return heldout_caps(getattr(embedded, name)(), digits("heldout")[0])


def _ats(order: Order) -> CappedATS:
    return CappedATS(
        embedded.digits_vit(),
        ats_blocks=(1, 2),
        reference_tokens=74,
        caps=_caps("digits_vit_ats"),
        order=order,
        name=f"digits_vit_ats_cap_{order}",
        data=embedded.DATA,
    )


def _avit(order: Order) -> CappedAViT:
    settings: dict[str, Any] = {"caps": _caps("digits_vit_avit"), "order": order}
    victim = CappedAViT(
        small_vit(),
        gate_scale=10,
        gate_center=5,
        name=f"digits_vit_avit_cap_{order}",
        data=embedded.DATA,
        **settings,
    )
    load_weights(victim, WEIGHTS / "digits_vit_avit.safetensors")
    return victim


def ats_cap_confidence() -> CappedATS:
    """``digits_vit_ats``, capped; the most significant tokens stay."""
    return _ats("confidence")


def ats_cap_random() -> CappedATS:
    """``digits_vit_ats``, capped; a draw decides which tokens stay."""
    return _ats("random")


def avit_cap_confidence() -> CappedAViT:
    """``digits_vit_avit``, capped; the tokens that have halted least stay."""
    return _avit("confidence")


def avit_cap_random() -> CappedAViT:
    """``digits_vit_avit``, capped; a draw decides which tokens stay."""
    return _avit("random")


def avit_patch_pool() -> AViT:
    """``digits_vit_avit``, trained against a growing pool of universal patches."""
    name = "digits_vit_avit_patch_pool"
    victim = AViT(small_vit(), gate_scale=10, gate_center=5, name=name, data=embedded.DATA)
    load_weights(victim, WEIGHTS / f"{name}.safetensors")
    return victim


def cnn_hysteresis() -> EarlyExit:
    """``digits_cnn_early_exit`` whose exits remember: its threshold, and a lower one behind it."""
    plain = embedded.digits_cnn_early_exit()
    high = read_card(plain.name)["threshold"]
    return EarlyExit(
        list(plain.stages),
        list(plain.heads),
        Hysteresis(high, BAND * high),
        plain.input_shape,
        name="digits_cnn_hysteresis",
        data=embedded.DATA,
    )


def cnn_cut_off() -> EarlyExit:
    """``digits_cnn_early_exit`` without what 95 % of held-out images never reach."""
    images, _ = digits("heldout")
    return cut_off(embedded.digits_cnn_early_exit(), images, name="digits_cnn_cut_off")


def cnn_jpeg() -> Entry:
    """``digits_cnn_early_exit`` behind JPEG of quality 75 (Das et al. 2017, arXiv 1705.02900)."""
    return _behind("digits_cnn_jpeg", jpeg(75))


def cnn_bits() -> Entry:
    """``digits_cnn_early_exit`` behind a rounding to 3 bits (Xu et al. 2018, arXiv 1704.01155)."""
    return _behind("digits_cnn_bits", bits(3))


def cnn_median() -> Entry:
    """``digits_cnn_early_exit`` behind a median of 3 x 3 (the same)."""
    return _behind("digits_cnn_median", median(3))


def cnn_crop() -> Entry:
    """``digits_cnn_early_exit`` behind a random crop, rescaled (Guo et al. 2018, 1711.00117)."""
    return _behind("digits_cnn_crop", random_crop(28), resize(SHAPE[1], "bilinear"))


def cnn_noise() -> Smoothed:
    """``digits_cnn_early_exit`` behind noise of σ = .05 (Byun et al. 2022, arXiv 2101.04829)."""
    return Smoothed(embedded.digits_cnn_early_exit(), 0.05, name="digits_cnn_noise")


def cascade_screened() -> Screened:
    """``digits_tinysaver_cascade`` whose saver's flagged images are not handed on."""
    plain, squeezers = embedded.digits_tinysaver_cascade(), [bits(3), median(3)]
    limit = screening_limit(plain, squeezers, digits("heldout")[0])
    return Screened(plain, squeezers, limit, name="digits_cascade_screened")


def _behind(name: str, *steps: Step) -> Entry:
    return Entry(embedded.digits_cnn_early_exit(), steps, name=name)


def _exits(name: str) -> EarlyExit:
    stages, heads = exit_stages()
    load_weights(nn.ModuleList([*stages, *heads]), WEIGHTS / f"{name}.safetensors")
    threshold = stored_threshold(name)
    return EarlyExit(stages, heads, threshold, SHAPE, name=name, data=embedded.DATA)


def cnn_trained_on_answers() -> EarlyExit:
    """``digits_cnn_early_exit``, trained on against attacks on its last answer."""
    return _exits("digits_cnn_trained_on_answers")


def cnn_trained_on_slowdowns() -> EarlyExit:
    """``digits_cnn_early_exit``, trained on against DeepSloth's objective."""
    return _exits("digits_cnn_trained_on_slowdowns")
