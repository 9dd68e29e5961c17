"""Victims of the zoo after hardening: name -> factory.

They need no data from outside. Those that keep what is asked of them are registered as entry points
of the group ``effattack.victims``. Two go by their paths: ``digits_vit_ats_hardened``, which costs
more than a point of accuracy, and ``digits_skipnet_hardened``, on which images outside the budget
cost more than any attack within it. With ``trained=False`` a factory builds the victim that was
hardened, under the new name.
"""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from effattack.models_zoo import embedded
from effattack.models_zoo.cascade.cascade import TinySaver
from effattack.models_zoo.criteria import Confidence
from effattack.models_zoo.early_exit.early_exit import EarlyExit
from effattack.models_zoo.files import WEIGHTS, load_weights, read_card
from effattack.models_zoo.layer_skipping.skipnet import SkipNet
from effattack.models_zoo.token_sparsification.ats import ATS
from effattack.victim import Victim

V = TypeVar("V", bound=Victim)


def digits_cnn_early_exit_hardened(trained: bool = True) -> EarlyExit:
    """``digits_cnn_early_exit``, all of it trained under attack; its threshold chosen so, too."""
    return _hardened(embedded.digits_cnn_early_exit(), trained)


def digits_tinysaver_cascade_hardened(trained: bool = True) -> TinySaver:
    """``digits_tinysaver_cascade`` with another saver and threshold; the base is the same."""
    return _hardened(embedded.digits_tinysaver_cascade(), trained)


def digits_skipnet_hardened(trained: bool = True) -> SkipNet:
    """``digits_skipnet``, its blocks trained under attack; the gates are the same."""
    return _hardened(embedded.digits_skipnet(), trained)


def digits_vit_ats_hardened(trained: bool = True) -> ATS:
    """``digits_vit_ats``, its ViT trained under attack."""
    return _hardened(embedded.digits_vit_ats(), trained)


def changed_part(victim: Victim) -> nn.Module:
    """What hardening trains, and what is stored: of a cascade its saver, else all of it."""
    return victim.models[0] if isinstance(victim, TinySaver) else victim


def _hardened(victim: V, trained: bool) -> V:
    victim.name = f"{victim.name}_hardened"
    if trained:
        load_weights(changed_part(victim), WEIGHTS / f"{victim.name}.safetensors")
        if isinstance(victim, EarlyExit | TinySaver):
            threshold = read_card(victim.name)["threshold"]
            victim.criterion = Confidence(threshold)
    return victim
