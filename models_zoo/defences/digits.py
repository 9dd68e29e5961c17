"""The defended victims on digits, by path: ``effattack.models_zoo.defences.digits:FACTORY``.

Caps and thresholds are set on the held-out images.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from effattack.models_zoo import embedded
from effattack.models_zoo.defences.hysteresis import Hysteresis
from effattack.models_zoo.defences.token_caps import CappedATS, CappedAViT, Order, heldout_caps
from effattack.models_zoo.digits import digits
from effattack.models_zoo.early_exit.early_exit import EarlyExit
from effattack.models_zoo.files import WEIGHTS, load_weights, read_card
from effattack.models_zoo.networks import small_vit
from effattack.models_zoo.token_sparsification.avit import AViT

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
