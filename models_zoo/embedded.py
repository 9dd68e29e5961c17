"""The victims that come trained: name -> factory. They need no data from outside.

Each is registered as an entry point of the group ``effattack.victims``. With ``trained=False`` a
factory builds what its recipe starts from.
"""

from __future__ import annotations

from timm.models.vision_transformer import VisionTransformer
from torch import nn

from effattack.models_zoo import digits
from effattack.models_zoo.cascade.cascade import Cascade, TinySaver
from effattack.models_zoo.cascade.esn import ESN
from effattack.models_zoo.early_exit.early_exit import EarlyExit
from effattack.models_zoo.early_exit.exit_vit import ExitViT
from effattack.models_zoo.early_exit.msdnet import MSDNet
from effattack.models_zoo.early_exit.sdn import SDN
from effattack.models_zoo.files import stored_threshold, with_weights
from effattack.models_zoo.layer_skipping.skipnet import SkipNet
from effattack.models_zoo.networks import (
    base_cnn,
    exit_stages,
    gated_resnet,
    small_vit,
    tiny_cnn,
)
from effattack.models_zoo.quantization.gated import QuantizedGates, StaticInt8Gates
from effattack.models_zoo.quantization.llm_int8 import LLMInt8
from effattack.models_zoo.quantization.pruned import Pruned
from effattack.models_zoo.quantization.quantized import Quantized
from effattack.models_zoo.quantization.static_int8 import StaticInt8
from effattack.models_zoo.token_sparsification.adavit import AdaViT
from effattack.models_zoo.token_sparsification.ats import ATS
from effattack.models_zoo.token_sparsification.avit import AViT
from effattack.models_zoo.token_sparsification.dynamicvit import DynamicViT
from effattack.models_zoo.token_sparsification.evit import EViT
from effattack.models_zoo.token_sparsification.tome import ToMe

DATA = "effattack.models_zoo.digits:scored_images"
PRUNING_BLOCKS = (1, 2, 4)
KEEP_RATIOS = (0.7, 0.49, 0.343)
"""Of the patches, after each of DynamicViT's stages: ρ, ρ², ρ³ with the paper's ρ = 0.7."""


def digits_vit() -> VisionTransformer:
    """The plain small ViT on digits, which others wrap or start from; no victim."""
    return with_weights(small_vit(), "digits_vit")


def digits_vit_ats() -> ATS:
    """A small ViT on digits whose blocks 1 and 2 sample tokens; training-free."""
    return ATS(
        digits_vit(), ats_blocks=(1, 2), reference_tokens=74, name="digits_vit_ats", data=DATA
    )


def digits_vit_int8() -> Quantized:
    """The plain small ViT on digits, its linear layers in int8 with dynamic activations."""
    return Quantized(digits_vit(), digits.SHAPE, name="digits_vit_int8", data=DATA)


def digits_vit_int8_weight_only() -> Quantized:
    """The plain small ViT on digits, the weights of its linear layers in int8."""
    name = "digits_vit_int8_weight_only"
    return Quantized(digits_vit(), digits.SHAPE, scheme="int8_weight_only", name=name, data=DATA)


def digits_vit_int4_weight_only() -> Quantized:
    """The plain small ViT on digits, the weights of its linear layers in int4."""
    name = "digits_vit_int4_weight_only"
    return Quantized(digits_vit(), digits.SHAPE, scheme="int4_weight_only", name=name, data=DATA)


def digits_vit_llm_int8() -> LLMInt8:
    """The small ViT on digits under LLM.int8(); few columns of clean digits are outliers."""
    name = "digits_vit_llm_int8"
    return LLMInt8(digits_vit(), digits.SHAPE, threshold=3.0, name=name, data=DATA)


def digits_vit_evit() -> EViT:
    """A control: the small ViT on digits drops the least attended tokens; training-free."""
    rates = (1, 1, 1, 0.5, 0.5, 1)
    return EViT(digits_vit(), keep_rates=rates, name="digits_vit_evit", data=DATA)


def digits_vit_tome() -> ToMe:
    """A control: the small ViT on digits merges eight tokens per block; training-free."""
    return ToMe(digits_vit(), r=8, name="digits_vit_tome", data=DATA)


def digits_vit_avit(trained: bool = True) -> AViT:
    """A small ViT on digits whose tokens halt."""
    name = "digits_vit_avit"
    victim = AViT(small_vit(), gate_scale=10, gate_center=5, name=name, data=DATA)
    return with_weights(victim, name, trained)


def digits_vit_adavit(trained: bool = True) -> AdaViT:
    """A small ViT on digits that chooses tokens, heads and sublayers in every block."""
    name = "digits_vit_adavit"
    return with_weights(AdaViT(small_vit(), name=name, data=DATA), name, trained)


def digits_vit_dynamicvit(trained: bool = True) -> DynamicViT:
    """A small ViT on digits that drops the tokens which its predictors would rather not keep."""
    name = "digits_vit_dynamicvit"
    victim = DynamicViT(
        small_vit(), pruning_blocks=PRUNING_BLOCKS, rule="threshold", name=name, data=DATA
    )
    return with_weights(victim, name, trained)


def digits_vit_dynamicvit_topk() -> DynamicViT:
    """A control: the same weights under the published rule, which keeps a fixed number."""
    victim = DynamicViT(
        small_vit(),
        pruning_blocks=PRUNING_BLOCKS,
        keep_ratios=KEEP_RATIOS,
        name="digits_vit_dynamicvit_topk",
        data=DATA,
    )
    return with_weights(victim, "digits_vit_dynamicvit")


def digits_vit_exit(trained: bool = True) -> ExitViT:
    """A small ViT on digits with classifiers after its blocks 1, 2 and 3."""
    name = "digits_vit_exit"
    threshold = stored_threshold(name, trained)
    victim = ExitViT(small_vit(), exit_blocks=(1, 2, 3), criterion=threshold, name=name, data=DATA)
    return with_weights(victim, name, trained)


def digits_cnn_early_exit() -> EarlyExit:
    """A convolutional network on digits with three internal classifiers."""
    name = "digits_cnn_early_exit"
    stages, heads = exit_stages()
    with_weights(nn.ModuleList([*stages, *heads]), name)
    return EarlyExit(stages, heads, stored_threshold(name), digits.SHAPE, name=name, data=DATA)


def digits_cnn_sdn(trained: bool = True) -> SDN:
    """A VGG on digits with SDN's internal classifiers after its first three convolutions."""
    name = "digits_cnn_sdn"
    victim = SDN(
        "vgg",
        conv_channels=(8, 16, 32, 32),
        max_pool_sizes=(2, 2, 1, 2),
        fc_layers=(32,),
        exits=(1, 1, 1, 0),
        threshold=stored_threshold(name, trained),
        name=name,
        data=DATA,
    )
    return with_weights(victim, name, trained)


def digits_msdnet(trained: bool = True) -> MSDNet:
    """A narrow multi-scale dense network on digits with three exits."""
    name = "digits_msdnet"
    victim = MSDNet(
        blocks=3,
        channels=5,
        base=1,
        step=3,
        growth_rate=2,
        growth_factors=(3, 1, 1),
        prune="min",
        bottleneck=False,
        thresholds=stored_threshold(name, trained),
        name=name,
        data=DATA,
    )
    return with_weights(victim, name, trained)


def digits_skipnet(trained: bool = True) -> SkipNet:
    """A residual network on digits with a recurrent gate before every residual block."""
    name = "digits_skipnet"
    victim = SkipNet(*gated_resnet(), digits.SHAPE, name=name, data=DATA)
    return with_weights(victim, name, trained)


def digits_cnns() -> tuple[nn.Sequential, nn.Sequential]:
    """The tiny and the large plain CNN on digits, which others wrap; no victims."""
    saver, base = tiny_cnn(), base_cnn()
    with_weights(nn.ModuleList([saver, base]), "digits_tinysaver_cascade")
    return saver, base


def digits_tinysaver_cascade() -> TinySaver:
    """A tiny CNN that saves a larger one, on digits."""
    name = "digits_tinysaver_cascade"
    return TinySaver(*digits_cnns(), stored_threshold(name), digits.SHAPE, name=name, data=DATA)


def digits_three_stage_cascade() -> Cascade:
    """A tiny, a middling and a large CNN on digits; the middle one is that of the early exits."""
    name = "digits_three_stage_cascade"
    saver, base = digits_cnns()
    early_exit = digits_cnn_early_exit()
    middle = nn.Sequential(*early_exit.stages, early_exit.heads[-1])
    models = [saver, middle, base]
    return Cascade(models, stored_threshold(name), digits.SHAPE, name=name, data=DATA)


def digits_esn(trained: bool = True) -> ESN:
    """The tiny CNN on digits as first exit of the large one, which has four more."""
    name = "digits_esn"
    saver, base = digits_cnns()
    victim = ESN(
        (saver[:3], saver[3:]),
        list(base[:5]),
        base[5],
        stored_threshold(name, trained),
        digits.SHAPE,
        name=name,
        data=DATA,
    )
    with_weights(victim.sequence, name, trained)
    return victim


def digits_cnn_int8() -> StaticInt8:
    """The large CNN on digits under static int8, calibrated on the held-out images."""
    calibration, _ = digits.digits("heldout")
    name = "digits_cnn_int8"
    return StaticInt8(digits_cnns()[1], digits.SHAPE, calibration, name=name, data=DATA)


def digits_cnn_pruned() -> Pruned:
    """A control: the large CNN on digits without half of its weights."""
    return Pruned(digits_cnns()[1], digits.SHAPE, 0.5, name="digits_cnn_pruned", data=DATA)


def digits_cnn_early_exit_int8() -> StaticInt8Gates:
    """``digits_cnn_early_exit`` under static int8, with the threshold of the float victim."""
    calibration, _ = digits.digits("heldout")
    name = "digits_cnn_early_exit_int8"
    return StaticInt8Gates(digits_cnn_early_exit(), calibration, name=name, data=DATA)


def digits_tinysaver_cascade_int8() -> StaticInt8Gates:
    """``digits_tinysaver_cascade`` under static int8, with the threshold of the float victim."""
    calibration, _ = digits.digits("heldout")
    name = "digits_tinysaver_cascade_int8"
    return StaticInt8Gates(digits_tinysaver_cascade(), calibration, name=name, data=DATA)


def digits_vit_ats_int8() -> QuantizedGates:
    """``digits_vit_ats``, its linear layers in int8 with dynamic activations."""
    return QuantizedGates(digits_vit_ats(), name="digits_vit_ats_int8", data=DATA)
