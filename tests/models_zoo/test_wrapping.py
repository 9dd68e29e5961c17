"""Token mechanisms on stock timm models: the contract, the closed forms, and bad input."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import timm
import torch
from timm.layers import HybridEmbed, Mlp
from timm.models.vision_transformer import ParallelScalingBlock, VisionTransformer
from torch import Tensor, nn

from effattack import audit
from effattack.errors import UsageError
from effattack.models_zoo.token_sparsification.adavit import AdaViT
from effattack.models_zoo.token_sparsification.ats import ATS
from effattack.models_zoo.token_sparsification.avit import AViT
from effattack.models_zoo.token_sparsification.dynamicvit import DynamicViT
from effattack.models_zoo.token_sparsification.dynamicvit_policy import Threshold
from effattack.models_zoo.token_sparsification.evit import FUSED, EViT
from effattack.models_zoo.token_sparsification.tome import ToMe
from effattack.models_zoo.token_sparsification.vit import ViTVictim
from effattack.victim.checks import INVARIANTS, Check

WIDTH, DEPTH, PATCHES = 64, 4, 64
STEM_AND_HEAD = 3 * 4 * 4 * WIDTH * PATCHES + WIDTH * 10


def small_vit(name: str = "vit_tiny_patch16_224", **changes: Any) -> VisionTransformer:
    sizes = {"img_size": 32, "patch_size": 4, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": 4}
    torch.manual_seed(0)
    vit = timm.create_model(name, **{**sizes, "num_classes": 10, **changes})
    for name, parameter in vit.named_parameters():
        if "norm" not in name and ".ls" not in name:
            nn.init.normal_(parameter, std=0.2)
    return vit


def sharp(victim: DynamicViT) -> DynamicViT:
    """Predictors that are sure, and of both minds."""
    torch.manual_seed(6)
    for layer in victim.score_predictor.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.3)
            nn.init.zeros_(layer.bias)
    return victim


VICTIMS: dict[str, Callable[..., ViTVictim]] = {
    "ats": lambda vit: ATS(vit, ats_blocks=range(1, 4)),
    "ats_cap": lambda vit: ATS(vit, ats_blocks=[0, 2], reference_tokens=20),
    "evit_fuse": lambda vit: EViT(vit, keep_rates=[1, 0.7, 0.7, 0.5]),
    "evit_drop": lambda vit: EViT(vit, keep_rates=[0.3, 1, 0.99, 0.1], fuse=False),
    "tome": lambda vit: ToMe(vit, r=13),
    "tome_capped": lambda vit: ToMe(vit, r=[40, 0, 10, 99], proportional_attention=False),
    "top_k": lambda vit: DynamicViT(vit, pruning_blocks=[0, 2], keep_ratios=[0.7, 0.2]),
    "threshold": lambda vit: sharp(DynamicViT(vit, pruning_blocks=[1, 2, 3], rule="threshold")),
}


@pytest.fixture(params=VICTIMS)
def victim(request: pytest.FixtureRequest) -> ViTVictim:
    return VICTIMS[request.param](small_vit())


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randint(0, 256, (3, 3, 32, 32), generator=generator) / 255
    return torch.cat([noise, torch.full((1, 3, 32, 32), 0.5)])


@pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
def test_contract(victim: ViTVictim, images: Tensor, check: Check) -> None:
    assert check(victim, images) == []


def test_paths_and_batches_agree_in_float64(victim: ViTVictim, images: Tensor) -> None:
    victim, images = victim.double(), images.double()
    with torch.no_grad():
        together = victim.trace(images)
        torch.testing.assert_close(victim(images), together.logits, rtol=0, atol=1e-10)
        for index, image in enumerate(images.split(1)):
            alone = victim.trace(image)
            torch.testing.assert_close(alone.logits[0], together.logits[index], rtol=0, atol=1e-10)
            assert alone.macs[0] == together.macs[index]
            for single, gate in zip(alone.gates, together.gates, strict=True):
                assert torch.equal(single.active[0], gate.active[index])
            for name in (key for key in together.aux if key.endswith((".kept", ".group"))):
                assert torch.equal(alone.aux[name][0], together.aux[name][index])


def test_gradient_of_every_image_reaches_its_pixels(victim: ViTVictim, images: Tensor) -> None:
    images.requires_grad_()
    (gradient,) = torch.autograd.grad(victim.trace(images).logits[:, 0].sum(), images)
    assert gradient.isfinite().all()
    assert gradient.flatten(1).any(dim=1).all()


def test_controls_are_constant(victim: ViTVictim, images: Tensor) -> None:
    macs = audit(victim, images).macs
    assert victim.constant == (not victim.trace(images).gates)
    if victim.constant:
        assert macs.tolist() == [victim.max_macs] * len(images)
    else:
        assert macs.unique().numel() > 1, "these images should not all cost the same"


@pytest.mark.parametrize("shape", [(0, 3, 32, 32), (1, 3, 16, 16), (3, 32, 32)])
def test_images_that_do_not_fit(victim: ViTVictim, shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"at least one image of shape \(3, 32, 32\)"):
        victim(torch.zeros(shape))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_patch16_224"])
def test_normalisation_is_that_of_the_model(name: str, images: Tensor) -> None:
    vit = small_vit(name)
    config = vit.pretrained_cfg
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    untouched = EViT(vit, keep_rates=[1] * DEPTH)
    with torch.no_grad():
        torch.testing.assert_close(untouched(images), vit((images - mean) / std))
        given = EViT(vit, keep_rates=[1] * DEPTH, mean=(0, 0, 0), std=(1, 1, 1))
        torch.testing.assert_close(given(images), vit(images))


@pytest.mark.slow
def test_features_of_timm_that_are_honoured(images: Tensor) -> None:
    vit = small_vit(init_values=1e-1, qk_norm=True, scale_attn_norm=True, scale_mlp_norm=True)
    dense = EViT(vit, keep_rates=[1] * DEPTH)
    with torch.no_grad():
        for same in (
            ToMe(vit, r=0),
            DynamicViT(vit, pruning_blocks=[1], keep_ratios=[1]),
        ):
            torch.testing.assert_close(same(images), dense(images))
    for make in VICTIMS.values():
        for check in INVARIANTS:
            check(make(vit), images)


def test_macs_in_closed_form() -> None:
    vit = small_vit()

    def dense(tokens: int) -> int:
        return 12 * tokens * WIDTH**2 + 2 * tokens**2 * WIDTH

    def pruned(tokens: int, kept: int) -> int:
        return 4 * tokens * WIDTH**2 + 2 * tokens**2 * WIDTH + 8 * kept * WIDTH**2

    fused = EViT(vit, keep_rates=[1, 0.7, 0.7, 0.5])
    assert fused.dense_macs == STEM_AND_HEAD + 4 * dense(65)
    assert fused.max_macs == STEM_AND_HEAD + dense(65) + (
        pruned(65, 47) + pruned(47, 1 + 33 + 1) + pruned(35, 1 + 17 + 1)
    )
    merged = ToMe(vit, r=[30, 99, 0, 0])
    matching = (33 * 32 + 18 * 17) * WIDTH // 4
    assert merged.max_macs == STEM_AND_HEAD + matching + (
        pruned(65, 35) + pruned(35, 18) + 2 * dense(18)
    )
    top_k = DynamicViT(vit, pruning_blocks=[2], keep_ratios=[0.33])
    predictor = WIDTH**2 * (1 + 1 / 2 + 1 / 8) + WIDTH / 2
    assert top_k.max_macs == STEM_AND_HEAD + 2 * dense(65) + 64 * predictor + 2 * dense(1 + 21)


def test_evit_marks_fused_tokens(images: Tensor) -> None:
    kept = EViT(small_vit(), keep_rates=[0.5, 0.97, 1, 1]).trace(images).aux
    assert {name: tuple(slots.shape) for name, slots in kept.items()} == {
        "blocks.0.kept": (4, 32)
    }, "of 33 tokens, ceil(0.97 * 33) = 33 stay"
    again = EViT(small_vit(), keep_rates=[0.5, 0.96, 1, 1]).trace(images).aux["blocks.1.kept"]
    assert again.min() >= FUSED
    assert again.shape == (4, 32)


def test_tome_counts_every_token_once(images: Tensor) -> None:
    victim = ToMe(small_vit(), r=20)
    tokens = 65
    for group in victim.trace(images).aux.values():
        tokens -= min(20, (tokens - 1) // 2)
        assert group.shape == (4, 65)
        assert all(row.unique().tolist() == list(range(tokens)) for row in group)
        assert not group[:, 0].any(), "CLS stays first"
        assert ((group == 0).sum(1) == 1).all(), "nothing merges into CLS"


def planted(odds: float, dtype: torch.dtype = torch.float32) -> DynamicViT:
    """Every predictor gives every token the same odds of being kept."""
    victim = DynamicViT(small_vit(), pruning_blocks=[1, 3], rule="threshold").to(dtype)
    for predictor in victim.score_predictor:
        nn.init.zeros_(predictor.out_conv[4].weight)
        predictor.out_conv[4].bias.data = torch.tensor([odds, 0.0], dtype=dtype)
    return victim


def test_threshold_worst_case_is_reached(images: Tensor) -> None:
    victim = planted(1.0)
    assert audit(victim, images).macs.tolist() == [victim.max_macs] * 4
    assert victim.max_macs > victim.dense_macs


def test_threshold_may_drop_all_patches(images: Tensor) -> None:
    victim = planted(-1.0, torch.float64)
    with torch.no_grad():
        trace, logits = victim.trace(images.double()), victim(images.double())
    assert logits.isfinite().all()
    torch.testing.assert_close(logits, trace.logits, rtol=0, atol=1e-10)
    assert not any(gate.active.any() for gate in trace.gates)
    assert not trace.gates[1].reached.any()
    one_stage = 64 * victim.score_predictor[0].macs_per_token
    dense, alone = (12 * n * WIDTH**2 + 2 * n**2 * WIDTH for n in (65, 1))
    assert trace.macs.tolist() == [STEM_AND_HEAD + dense + one_stage + 3 * alone] * 4
    assert audit(planted(-1.0), images).macs.tolist() == trace.macs.tolist()


@pytest.mark.parametrize("scale", [1e-3, 1, 1e3, 1e6])
def test_threshold_margin_is_bounded_and_never_blind(scale: float) -> None:
    normal = torch.randn(2, 50, 2, generator=torch.Generator().manual_seed(0))
    scores = (normal * scale).log_softmax(2).requires_grad_()
    policy = Threshold(None, 1, 50)
    live = torch.ones(2, 50, dtype=torch.bool)
    margin = policy.margin(scores, live)
    assert torch.equal(margin > 0, policy.keep(scores))
    assert (margin.abs() <= 1).all()
    (slope,) = torch.autograd.grad(margin.sum(), scores)
    assert (slope[..., 0] > 0).all()
    assert (slope[..., 1] < 0).all()


class GatedMlp(Mlp):
    """Stands for an MLP that may mix tokens."""


def hybrid() -> VisionTransformer:
    backbone = nn.Conv2d(3, 8, 2, 2)
    backbone.num_features = 8
    return small_vit(embed_layer=partial(HybridEmbed, backbone=backbone, feature_size=(16, 16)))


def gated() -> VisionTransformer:
    vit = small_vit()
    vit.blocks[1].attn.gate = nn.Linear(WIDTH, WIDTH)
    return vit


BAD: dict[str, tuple[Callable[[], object], str]] = {
    "no ViT": (lambda: EViT(timm.create_model("resnet18"), keep_rates=[1]), "ResNet is no timm"),
    "distilled": (
        lambda: ToMe(small_vit("deit_tiny_distilled_patch16_224"), r=1),
        "a distillation token",
    ),
    "registers": (lambda: ToMe(small_vit(reg_tokens=2), r=1), "register tokens"),
    "average pooling": (lambda: ToMe(small_vit(global_pool="avg"), r=1), "global_pool='avg'"),
    "hybrid": (lambda: ToMe(hybrid(), r=1), "patch embedding of type HybridEmbed"),
    "gated": (lambda: ToMe(gated(), r=1), "gated attention"),
    "other blocks": (
        lambda: ToMe(small_vit(block_fn=ParallelScalingBlock), r=1),
        "a non-standard block",
    ),
    "other MLP": (
        lambda: ToMe(small_vit(mlp_layer=GatedMlp), r=1),
        "an MLP of type GatedMlp",
    ),
    "no classifier": (lambda: ToMe(small_vit(num_classes=0), r=1), "no classifier"),
    "no CLS": (
        lambda: ToMe(small_vit(class_token=False, global_pool="avg"), r=1),
        "no CLS token",
    ),
    "dynamic size": (lambda: ToMe(small_vit(dynamic_img_size=True), r=1), "dynamic image size"),
    "rate 0": (lambda: EViT(small_vit(), keep_rates=[1, 1, 1, 0]), r"\[0\] are no shares"),
    "rate 1.1": (lambda: EViT(small_vit(), keep_rates=[1, 1.1, 1, 1]), r"\[1.1\] are no shares"),
    "rate NaN": (lambda: EViT(small_vit(), keep_rates=[1, 1, 1, float("nan")]), "no shares"),
    "three rates": (lambda: EViT(small_vit(), keep_rates=[1] * 3), "3 keep_rates for 4 blocks"),
    "negative r": (lambda: ToMe(small_vit(), r=-1), r"\[-1, -1, -1, -1\] are no numbers"),
    "fractional r": (lambda: ToMe(small_vit(), r=[1, 2.5, 1, 1]), r"\[2.5\] are no numbers"),
    "three r": (lambda: ToMe(small_vit(), r=[1] * 3), "one number for all, or one each"),
    "no ratios": (lambda: DynamicViT(small_vit(), pruning_blocks=[1]), "no keep_ratios for 1"),
    "two ratios": (
        lambda: DynamicViT(small_vit(), pruning_blocks=[1], keep_ratios=[0.7, 0.5]),
        "2 keep_ratios for 1 pruning_blocks",
    ),
    "ratio 2": (
        lambda: DynamicViT(small_vit(), pruning_blocks=[1], keep_ratios=[2]),
        r"\[2\] are no shares",
    ),
    "no token survives": (
        lambda: DynamicViT(small_vit(img_size=8), pruning_blocks=[1], keep_ratios=[0.2]),
        "of 4 patches leave no patch token",
    ),
    "ratios with threshold": (
        lambda: DynamicViT(small_vit(), pruning_blocks=[1], keep_ratios=[0.5], rule="threshold"),
        "belong to rule='top_k'",
    ),
    "unknown rule": (
        lambda: DynamicViT(small_vit(), pruning_blocks=[1], rule="topk"),
        "did you mean top_k",
    ),
    "block 4 of 4": (
        lambda: DynamicViT(small_vit(), pruning_blocks=[4], rule="threshold"),
        "blocks 0 to 3",
    ),
    "unordered blocks": (
        lambda: DynamicViT(small_vit(), pruning_blocks=[2, 1], keep_ratios=[0.7, 0.5]),
        "increasing order",
    ),
    "no blocks": (lambda: DynamicViT(small_vit(), pruning_blocks=[]), "blocks 0 to 3"),
    "ATS blocks": (lambda: ATS(small_vit(), ats_blocks=[7]), "blocks 0 to 3"),
    "ATS cap 0": (
        lambda: ATS(small_vit(), ats_blocks=[1], reference_tokens=0),
        "leaves no patch token",
    ),
    "ATS on one patch": (lambda: ATS(small_vit(img_size=4), ats_blocks=[1]), "leaves no patch"),
    "EViT on no patch": (lambda: EViT(small_vit(img_size=2), keep_rates=[1] * 4), "no patch token"),
    "ToMe on no patch": (lambda: ToMe(small_vit(img_size=2), r=1), "no patch token"),
    "AViT on no patch": (
        lambda: AViT(small_vit(img_size=2), gate_scale=1, gate_center=1),
        "no patch token",
    ),
    "AdaViT on no patch": (lambda: AdaViT(small_vit(img_size=2)), "no patch token"),
    "DynamicViT on no patch": (
        lambda: DynamicViT(small_vit(img_size=2), pruning_blocks=[1], rule="threshold"),
        "no patch token",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str) -> None:
    make, message = BAD[case]
    with pytest.raises(UsageError, match=message):
        make()


def test_one_patch_is_enough_for_the_rest() -> None:
    image = torch.full((1, 3, 4, 4), 0.5)
    for make in (
        lambda vit: EViT(vit, keep_rates=[0.1] * 4),
        lambda vit: ToMe(vit, r=5),
        lambda vit: DynamicViT(vit, pruning_blocks=[1], keep_ratios=[1]),
        lambda vit: DynamicViT(vit, pruning_blocks=[1], rule="threshold"),
    ):
        for check in INVARIANTS:
            check(make(small_vit(img_size=4)), image)


OFFICIAL: dict[str, Callable[[dict[str, Tensor]], ViTVictim]] = {
    "ats": lambda weights: ATS.from_official(weights, num_heads=4, ats_blocks=[1]),
    "evit": lambda weights: EViT.from_official(weights, num_heads=4, keep_rates=[0.5] * 4),
    "tome": lambda weights: ToMe.from_official(weights, num_heads=4, r=4),
    "dynamicvit": lambda weights: DynamicViT.from_official(
        weights, num_heads=4, pruning_blocks=[1, 2], rule="threshold"
    ),
}


def official_weights(mechanism: str, vit: VisionTransformer) -> dict[str, Tensor]:
    weights = vit.state_dict()
    if mechanism == "ats":
        weights["blocks.1.attn.out_zero_mask"] = torch.zeros(1, WIDTH)
    if mechanism == "dynamicvit":
        predictors = DynamicViT(vit, pruning_blocks=[1, 2], rule="threshold").score_predictor
        weights |= predictors.state_dict(prefix="score_predictor.")
    return weights


@pytest.mark.parametrize("mechanism", OFFICIAL)
def test_official_state_dict(mechanism: str, images: Tensor) -> None:
    vit = small_vit(mlp_ratio=3, qkv_bias=False, img_size=32)
    weights = official_weights(mechanism, vit)
    before = {name: tensor.clone() for name, tensor in weights.items()}
    victim = OFFICIAL[mechanism](weights)
    assert victim.input_shape == (3, 32, 32)
    assert not victim.mean.any(), "the normalisation is the identity unless given"
    for check in INVARIANTS:
        check(victim, images)
    assert all(torch.equal(before[name], tensor) for name, tensor in weights.items())
    doubled = OFFICIAL[mechanism]({name: tensor.double() for name, tensor in weights.items()})
    assert doubled(images.double()).dtype == torch.float64


@pytest.mark.parametrize("mechanism", OFFICIAL)
@pytest.mark.parametrize(
    ("gone", "extra"),
    [
        ("blocks.2.norm1.weight", "foo.bar"),
        ("head.bias", "module.head.bias"),
        ("cls_token", "dist_token"),
    ],
)
def test_misfit_state_dict(mechanism: str, gone: str, extra: str) -> None:
    weights = official_weights(mechanism, small_vit())
    weights[extra] = weights.pop(gone)
    with pytest.raises(UsageError, match=rf"missing {gone}; surplus {re.escape(extra)}"):
        OFFICIAL[mechanism](weights)


@pytest.mark.parametrize("gone", ["patch_embed.proj.weight", "pos_embed", "head.weight"])
def test_state_dict_without_sizes(gone: str) -> None:
    weights = official_weights("evit", small_vit())
    del weights[gone]
    with pytest.raises(UsageError, match=f"missing {gone}"):
        OFFICIAL["evit"](weights)


def test_state_dicts_that_fit_no_model() -> None:
    weights = official_weights("evit", small_vit())
    with pytest.raises(UsageError, match="num_heads = 5 does not divide the width 64"):
        EViT.from_official(weights, num_heads=5, keep_rates=[1] * 4)
    with pytest.raises(UsageError, match=r"patch_embed\.proj\.weight, pos_embed"):
        EViT.from_official({"model": weights}, num_heads=4, keep_rates=[1] * 4)  # type: ignore
    distilled = {**weights, "pos_embed": torch.zeros(1, 66, WIDTH)}
    with pytest.raises(UsageError, match="66 positions"):
        EViT.from_official(distilled, num_heads=4, keep_rates=[1] * 4)
    reshaped = {**weights, "norm.bias": torch.zeros(65)}
    with pytest.raises(UsageError, match=r"norm.bias \(65,\) for \(64,\)"):
        EViT.from_official(reshaped, num_heads=4, keep_rates=[1] * 4)
    predictors = official_weights("dynamicvit", small_vit())
    with pytest.raises(UsageError, match=r"surplus score_predictor\.1"):
        DynamicViT.from_official(predictors, num_heads=4, pruning_blocks=[1], rule="threshold")
    with pytest.raises(UsageError, match=r"missing score_predictor\.2"):
        DynamicViT.from_official(
            predictors, num_heads=4, pruning_blocks=[1, 2, 3], rule="threshold"
        )


@pytest.mark.parametrize("wrong", [{"mean": (0, 0)}, {"std": (1, 1, 0)}])
def test_a_normalisation_that_does_not_fit(wrong: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(UsageError, match="for images of 3 channels: give mean= and"):
        EViT(small_vit(), keep_rates=[1] * DEPTH, **wrong)
