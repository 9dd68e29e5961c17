"""The victims trained on CIFAR-10: name -> factory. Their weights come along, their data do not.

Each is registered as an entry point of the group ``effattack.victims``. With ``trained=False`` a
factory builds what its recipe starts from.
"""

from __future__ import annotations

from timm.models.vision_transformer import VisionTransformer
from torch import nn

from effattack.models_zoo.cascade.cascade import TinySaver
from effattack.models_zoo.cifar10 import SHAPE
from effattack.models_zoo.early_exit.sdn import SDN
from effattack.models_zoo.files import read_card, stored_threshold, with_weights
from effattack.models_zoo.networks import saver_cnn, small_vit
from effattack.models_zoo.quantization.quantized import Quantized
from effattack.models_zoo.token_sparsification.ats import ATS
from effattack.models_zoo.token_sparsification.avit import AViT

DATA = "effattack.models_zoo.cifar10:scored_images"


def cifar10_sdn(trained: bool = True) -> SDN:
    """A ResNet-20 with four internal classifiers, all trained together."""
    name = "cifar10_sdn"
    victim = SDN(
        "resnet",
        blocks=(3, 3, 3),
        exits=((0, 1, 0), (1, 0, 1), (0, 1, 0)),
        threshold=stored_threshold(name, trained),
        name=name,
        data=DATA,
    )
    return with_weights(victim, name, trained)


def cifar10_resnet() -> nn.Sequential:
    """The ResNet-20 under ``cifar10_sdn``, without its internal classifiers; no victim."""
    victim = cifar10_sdn()
    return nn.Sequential(*victim.stages, victim.heads[-1])


def cifar10_saver(width: int, trained: bool = True) -> nn.Sequential:
    """A candidate saver; no victim."""
    return with_weights(saver_cnn(width), f"cifar10_saver_{width}", trained)


def cifar10_tinysaver_cascade() -> TinySaver:
    """The ResNet-20, and the saver that the search chose for it."""
    name = "cifar10_tinysaver_cascade"
    card = read_card(name)
    saver, base = cifar10_saver(card["saver_width"]), cifar10_resnet()
    return TinySaver(saver, base, card["threshold"], SHAPE, name=name, data=DATA)


def cifar10_vit(trained: bool = True) -> VisionTransformer:
    """A small plain ViT, which others wrap or start from; no victim."""
    return with_weights(small_vit(width=96, heads=3, mlp_ratio=2), "cifar10_vit", trained)


def cifar10_vit_ats() -> ATS:
    """The ViT, whose last four blocks sample tokens; training-free."""
    blocks = range(2, 6)
    return ATS(
        cifar10_vit(), ats_blocks=blocks, reference_tokens=65, name="cifar10_vit_ats", data=DATA
    )


def cifar10_vit_int8() -> Quantized:
    """The ViT, its linear layers in int8 with dynamic activations."""
    return Quantized(cifar10_vit(), SHAPE, name="cifar10_vit_int8", data=DATA)


def cifar10_vit_avit(trained: bool = True) -> AViT:
    """The ViT, trained on to halt its tokens."""
    name = "cifar10_vit_avit"
    vit = cifar10_vit(trained=False)
    victim = AViT(vit, gate_scale=10, gate_center=5, name=name, data=DATA)
    return with_weights(victim, name, trained)
