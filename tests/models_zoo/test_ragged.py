"""Ragged batches: a batch is its images one by one, whatever each of them keeps."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from effattack.counting.macs import COSTS, count_macs
from effattack.errors import UsageError
from effattack.models_zoo.token_sparsification import ragged
from effattack.models_zoo.token_sparsification.adavit import AdaViT
from effattack.models_zoo.token_sparsification.ats import ATS
from effattack.models_zoo.token_sparsification.avit import AViT
from effattack.models_zoo.token_sparsification.dynamicvit import DynamicViT
from effattack.models_zoo.token_sparsification.dynamicvit_policy import PredictorLG
from effattack.models_zoo.token_sparsification.ragged import Layout, alike, pack, ragged_block
from effattack.models_zoo.token_sparsification.vit import ViTVictim

property_test = settings(max_examples=8, deadline=None, derandomize=True)

counts = st.lists(st.integers(0, 5), min_size=1, max_size=6)


def vit() -> VisionTransformer:
    torch.manual_seed(0)
    model = VisionTransformer(
        img_size=16, patch_size=4, embed_dim=32, depth=4, num_heads=4, num_classes=5
    )
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            nn.init.normal_(parameter, std=0.3)
    return model


def undecided(victim: ViTVictim, std: float) -> ViTVictim:
    """Policies that say yes and no about equally often."""
    torch.manual_seed(3)
    for name, module in reversed(list(victim.named_modules())):
        if isinstance(module, nn.Linear) and ("select" in name or "score_predictor" in name):
            nn.init.normal_(module.weight, std=std)
            nn.init.zeros_(module.bias)
        if isinstance(module, PredictorLG):
            module.out_conv[0].weight.data[:, module.local :] *= 0.1
            module.out_conv[4].bias.data[0] = 0.3
    return victim


MAKERS: dict[str, Callable[[], ViTVictim]] = {
    "ats": lambda: ATS(vit(), ats_blocks=[0, 2, 3], reference_tokens=14),
    "avit": lambda: AViT(vit(), gate_scale=2, gate_center=0),
    "avit_stop": lambda: AViT(vit(), gate_scale=2, gate_center=0, stop_on_cls=True),
    "adavit": lambda: undecided(AdaViT(vit()), 0.3),
    "adavit_identity": lambda: undecided(AdaViT(vit(), dropped_head="identity_attention"), 0.3),
    "threshold": lambda: undecided(
        DynamicViT(vit(), pruning_blocks=[0, 1, 3], rule="threshold"), 0.3
    ),
}
VICTIMS = {name: make().double() for name, make in MAKERS.items()}


def noise(size: int, seed: int) -> Tensor:
    """Every patch of an image has a strength of its own."""
    generator = torch.Generator().manual_seed(seed)
    strength = torch.rand(size, 1, 4, 4, generator=generator, dtype=torch.float64) ** 4
    pixels = torch.rand(size, 3, 16, 16, generator=generator, dtype=torch.float64)
    return pixels * F.interpolate(strength, size=16)


@pytest.mark.parametrize("name", VICTIMS)
@given(size=st.integers(1, 7), seed=st.integers(0, 99))
@property_test
def test_a_batch_is_its_images_one_by_one(name: str, size: int, seed: int) -> None:
    victim, images = VICTIMS[name], noise(size, seed)
    with torch.no_grad():
        alone = torch.cat([victim(image) for image in images.split(1)])
        torch.testing.assert_close(victim(images), alone, rtol=0, atol=1e-10)
    spent = [count_macs(victim, image) for image in images.split(1)]
    assert count_macs(victim, images) == sum(spent), "decisions, or work beside them"
    assert spent == victim.trace(images).macs.tolist()


@pytest.mark.parametrize("name", VICTIMS)
def test_these_images_are_ragged(name: str) -> None:
    assert VICTIMS[name].trace(noise(7, 0)).macs.unique().numel() > 2


def test_half_precision_runs() -> None:
    for name, victim in VICTIMS.items():
        low = MAKERS[name]().bfloat16()
        with torch.no_grad():
            assert low(noise(5, 0).bfloat16()).isfinite().all(), victim.name


@given(counts=counts, seed=st.integers(0, 99))
@property_test
def test_keep_follows_every_token(counts: list[int], seed: int) -> None:
    """Twice dropped, tokens still stand with their image, in order, fewest first."""
    generator = torch.Generator().manual_seed(seed)
    label, layout = pack(torch.arange(len(counts) * 5).view(len(counts), 5, 1))
    kept = torch.arange(5) < torch.tensor(counts)[:, None]
    rows, layout = layout.keep(kept.flatten())
    label = label[rows]
    survives = torch.rand(len(label), generator=generator) < 0.7
    expected = set(label[survives, 0].tolist())
    rows, layout = layout.keep(survives)
    label = label[rows, 0]
    assert set(label.tolist()) == expected
    assert list(layout.counts) == sorted(layout.counts)
    assert sum(layout.counts) == len(label)
    for image, own in zip(layout.images, label.split(layout.counts or (0,)), strict=False):
        assert (own // 5 == image).all()
        assert own.tolist() == sorted(own.tolist())
    for image, first in zip(sorted(layout.images), layout.firsts(), strict=True):
        assert label[first] == min(entry for entry in expected if entry // 5 == image)


def test_buckets_are_slices_of_images_alike() -> None:
    layout = Layout(images=(4, 0, 2, 1), counts=(1, 3, 3, 7))
    found = [(bucket.rows, bucket.images, bucket.tokens) for bucket in layout.buckets()]
    assert found == [
        (slice(0, 1), (4,), 1),
        (slice(1, 7), (0, 2), 3),
        (slice(7, 14), (1,), 7),
    ]
    values = torch.arange(14)
    assert next(layout.buckets()).of(values).data_ptr() == values.data_ptr(), "no copy"
    assert torch.equal(layout.by_bucket(lambda rows: rows + 1, values), values + 1)
    assert layout.firsts() == [1, 7, 4, 0]


def test_alike() -> None:
    choices = torch.tensor([[1, 0], [0, 0], [1, 0]], dtype=torch.bool)
    assert dict(alike(choices)) == {(True, False): [0, 2], (False, False): [1]}


def test_a_packed_block_is_the_stock_block() -> None:
    block, layout = vit().blocks[0].double(), Layout((1, 0, 2), (2, 2, 5))
    tokens = torch.randn(9, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    stock = [block(own[None])[0] for own in tokens.split(layout.counts)]
    with torch.no_grad():
        torch.testing.assert_close(ragged_block(block, tokens, layout), torch.cat(stock))


class Varlen:
    """``torch.nn.attention.varlen`` as its documentation states it, for any device and dtype."""

    @staticmethod
    def varlen_attn(
        q: Tensor, k: Tensor, v: Tensor, bounds_q: Tensor, bounds_k: Tensor, max_q: int, max_k: int
    ) -> Tensor:
        assert bounds_q.dtype == bounds_k.dtype == torch.int32
        assert (max_q, max_k) == (bounds_q.diff().max(), bounds_k.diff().max())
        out = torch.empty_like(q)
        for first, last in zip(bounds_q[:-1].tolist(), bounds_q[1:].tolist(), strict=True):
            own = (part[first:last].transpose(0, 1) for part in (q, k, v))
            out[first:last] = F.scaled_dot_product_attention(*own).transpose(0, 1)
        return out


def random_heads(layout: Layout) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(3, sum(layout.counts), 4, 8, generator=generator))


def test_varlen_gets_what_buckets_get(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", Varlen)  # type: ignore[arg-type]
    layout = Layout(images=(2, 0, 1, 3), counts=(1, 4, 4, 9))
    heads = random_heads(layout)
    packed = ragged._varlen_attention(*heads, layout)
    torch.testing.assert_close(packed, ragged.attention(*heads, layout))


def test_torch_without_varlen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", None)  # type: ignore[arg-type]
    layout = Layout((0, 1), (1, 2))
    with pytest.raises(UsageError, match=r"torch 2.10 or newer, float32, or a batch of one"):
        ragged._varlen_attention(*random_heads(layout), layout)


@given(counts=st.lists(st.integers(1, 9), min_size=1, max_size=5))
@property_test
def test_varlen_macs_are_those_of_the_buckets(counts: list[int]) -> None:
    layout = Layout(tuple(range(len(counts))), tuple(sorted(counts)))
    heads: Any = random_heads(layout)
    bounds = torch.tensor([0, *torch.tensor(layout.counts).cumsum(0)], dtype=torch.int32)
    most = max(counts)
    formula = COSTS["torch_attn._varlen_attn"]
    counted = formula(*heads, bounds, bounds, most, most, False, out=(heads[0],))
    assert counted == count_macs(lambda: ragged.attention(*heads, layout))
