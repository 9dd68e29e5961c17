"""LLM.int8(): bitsandbytes' own numbers, executed MACs, gates, batch coupling, and bad input."""

from __future__ import annotations

import copy
import sys
from collections.abc import Collection
from functools import cache
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from toys import import_or_skip

from effattack import audit
from effattack.attacks.house.slowdown import Slowdown
from effattack.counting.macs import count_macs
from effattack.domains.pixels import to_grid
from effattack.errors import UsageError
from effattack.models_zoo.quantization import llm_int8
from effattack.models_zoo.quantization.llm_int8 import Int8Linear, LLMInt8, OutlierColumns
from effattack.victim import load_victim
from effattack.victim.checks import INVARIANTS, Check

SHAPE = (3, 16, 16)
WIDTH, TOKENS, CLASSES = 32, 17, 5


@pytest.fixture(autouse=True)
def bitsandbytes() -> Any:
    return import_or_skip("bitsandbytes")


def small_vit() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": WIDTH, "depth": 2, "num_heads": 2}
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=CLASSES, **sizes)
    for name, parameter in vit.named_parameters():
        if "norm" not in name:
            nn.init.normal_(parameter, std=0.3)
    return vit.eval()


def build(threshold: float = 2.5, **settings: Any) -> LLMInt8:
    return LLMInt8(small_vit(), SHAPE, threshold=threshold, **settings)


def images(count: int = 6) -> Tensor:
    return to_grid(torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1)))


@cache
def digits_victim() -> LLMInt8:
    """What ``digits_vit_llm_int8`` is to be."""
    ats: Any = load_victim("digits_vit_ats")
    return LLMInt8(ats.vit, ats.input_shape, threshold=3.0, name="digits_vit_llm_int8")


def columns(victim: LLMInt8, batch: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.stack([gate.active.sum(1) for gate in victim.trace(batch).gates]).sum(0)


@pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("threshold", [0.5, 2.5, 60.0])
def test_contract(threshold: float, check: Check) -> None:
    assert check(build(threshold), images()) == []


@pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
def test_contract_on_digits(check: Check, digit_images: Tensor) -> None:
    assert check(digits_victim(), digit_images[:8]) == []


def test_closed_form() -> None:
    victim = build()
    block = 12 * TOKENS * WIDTH**2
    stem_and_head = 16 * 48 * WIDTH + WIDTH * CLASSES
    assert victim.dense_macs == 2 * (block + 2 * TOKENS**2 * WIDTH) + stem_and_head
    assert victim.max_macs == victim.dense_macs + 2 * block
    trace = victim.trace(images())
    names = ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"]
    assert [g.name for g in trace.gates] == [
        f"blocks.{b}.{n}.columns" for b in (0, 1) for n in names
    ]
    assert [g.cost for g in trace.gates] == [TOKENS * WIDTH * k for k in (3, 1, 4, 1)] * 2
    assert [g.margin.shape[1] for g in trace.gates] == [WIDTH, WIDTH, WIDTH, 4 * WIDTH] * 2
    extra = sum(gate.active.sum(1) * gate.cost for gate in trace.gates)
    assert torch.equal(trace.macs, victim.dense_macs + extra)
    assert torch.equal(audit(victim, images()).macs, trace.macs)
    assert len(set(trace.macs.tolist())) > 1


@pytest.mark.parametrize(("threshold", "share"), [(1e-7, 1), (6e4, 0)])
def test_extremes_are_max_and_dense(threshold: float, share: int) -> None:
    victim = build(threshold)
    (macs,) = set(audit(victim, images(2)).macs.tolist())
    assert macs == (victim.max_macs if share else victim.dense_macs)


class TestLayer:
    """Against bitsandbytes.nn.Linear8bitLt."""

    def pair(self, library: Any, threshold: float = 2.0) -> tuple[Int8Linear, nn.Module]:
        torch.manual_seed(0)
        layer = nn.Linear(64, 48)
        official = library.nn.Linear8bitLt(64, 48, has_fp16_weights=False, threshold=threshold)
        official.load_state_dict(layer.state_dict())
        return Int8Linear(layer, OutlierColumns(threshold)), official.to("cpu").eval()

    @pytest.mark.parametrize("threshold", [0.5, 2.0, 50.0])
    def test_equal_bit_by_bit(self, bitsandbytes: Any, threshold: float) -> None:
        ours, official = self.pair(bitsandbytes, threshold)
        x = torch.randn(3, 7, 64)
        assert torch.equal(ours(x), official(x))

    def test_same_columns(self, bitsandbytes: Any) -> None:
        _, official = self.pair(bitsandbytes)
        x = torch.randn(7, 64)
        x[:, :40] *= 0.3
        edge = torch.tensor(2.0)
        x[0, 0], x[1, 1], x[2, 2] = edge, torch.nextafter(edge, torch.tensor(0.0)), -1.998
        official(x)
        policy, peak = OutlierColumns(2.0), x.abs().amax(0)
        found = policy.outliers(peak).nonzero()[:, 0]
        assert torch.equal(found, official.state.idx)
        assert {0, 1} <= set(found.tolist()), "bitsandbytes rounds to float16 before it compares"
        assert 2 not in found
        assert torch.equal(policy.margin(peak) > 0, policy.outliers(peak))

    def test_gradient_is_that_of_the_dequantized_weight(self, bitsandbytes: Any) -> None:
        ours, _ = self.pair(bitsandbytes)
        x = torch.randn(7, 64, requires_grad=True)
        upstream = torch.randn(7, 48)
        (gradient,) = torch.autograd.grad(ours(x), x, upstream)
        weight = ours.weight.float() * ours.scales[:, None] / 127
        torch.testing.assert_close(gradient, upstream @ weight)

    def test_no_hidden_state(self, bitsandbytes: Any) -> None:
        ours, _ = self.pair(bitsandbytes)
        x = torch.randn(7, 64)
        expected = ours(x)
        assert torch.equal(ours.train()(x), expected)
        assert torch.equal(copy.deepcopy(ours)(x), expected)
        assert torch.equal(ours(x.view(1, 7, 1, 64)).view(7, 48), expected)


class TestPolicy:
    def test_sign_bounds_and_slope(self) -> None:
        peak = torch.tensor([0.0, 1.0, 2.99, 3.0, 3.01, 6.0, 7.0, 6e4], requires_grad=True)
        policy = OutlierColumns(3)
        margin = policy.margin(peak)
        assert torch.equal(margin > 0, peak >= 3)
        assert (margin.abs() <= 1).all()
        assert (margin.diff() > 0).all()
        (slope,) = torch.autograd.grad(margin.sum(), peak)
        assert (slope > 0).all(), "not clipped beyond 2 θ"
        assert slope.argmax() == 3

    @pytest.mark.parametrize("threshold", [0, -1, 1e-9, 7e4, float("nan"), float("inf")])
    def test_out_of_range(self, threshold: float) -> None:
        with pytest.raises(UsageError, match="0 < θ"):
            build(threshold)

    def test_rounded_as_compared(self) -> None:
        assert OutlierColumns(0.1).threshold == torch.tensor(0.1).half().item()


def test_close_to_the_float_model() -> None:
    with torch.no_grad():
        expected, found = small_vit()(images()), build()(images())
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()


def test_gradients_reach_the_pixels() -> None:
    pixels = images().requires_grad_()
    trace = build().trace(pixels)
    for values in (trace.logits, *(gate.margin for gate in trace.gates)):
        (gradient,) = torch.autograd.grad(values.sum(), pixels, retain_graph=True)
        assert gradient.flatten(1).any(1).all()


@pytest.mark.slow
def test_an_attack_makes_outliers(digit_images: Tensor, digit_labels: Tensor) -> None:
    victim, clean = digits_victim(), digit_images[:3]
    attacked = Slowdown(victim, eps=8 / 255, steps=10)(clean, digit_labels[:3])
    before, after = columns(victim, clean), columns(victim, attacked)
    assert before.float().mean() < 0.02 * 2688
    assert (after > 1.5 * before).all()
    audit(victim, attacked)


def test_one_image_contaminates_its_batch() -> None:
    """Its columns become outliers for all; traced alone, its mates are as before."""
    victim, clean = build(3.0), images()
    scaled = (clean[:1] - 0.5) * 40 + 0.5
    batch = torch.cat([scaled, clean[1:]])
    alone = sum(count_macs(victim, image) for image in batch.split(1))
    together = count_macs(victim, batch)
    assert together > alone > len(batch) * victim.dense_macs
    assert together - count_macs(victim, clean) > (
        count_macs(victim, batch[:1]) - count_macs(victim, clean[:1])
    )
    with torch.no_grad():
        assert torch.equal(victim.trace(batch).macs[1:], victim.trace(clean).macs[1:])


def test_batch_mates_share_columns_in_closed_form() -> None:
    victim, batch = build(), images()
    with torch.no_grad():
        first = victim.trace(batch).gates[0]
    shared = first.active.any(0).sum()
    layer: Any = victim.model.get_submodule("blocks.0.attn.qkv")
    seen: list[Tensor] = []
    layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    victim(batch)
    executed = count_macs(layer, seen[0])
    assert executed == len(batch) * first.cost * (WIDTH + shared)


def test_bit_operations() -> None:
    victim = build()
    macs = victim.trace(images(2)).macs
    int8 = 2 * 12 * TOKENS * WIDTH**2
    assert torch.equal(victim.bit_operations(macs), int8 * 64 + (macs - int8) * 1024)


@pytest.mark.parametrize(
    ("skip", "gates"),
    [(None, 8), ((), 9), (("head", "blocks.0"), 4), (("blocks.0.attn", "blocks.1"), 3)],
)
def test_skipped_modules_stay_float(skip: Collection[str] | None, gates: int) -> None:
    victim = build(skip_modules=skip)
    assert len(victim.trace(images(2)).gates) == gates
    audit(victim, images(2))


def test_a_layer_used_twice() -> None:
    shared = nn.Linear(8, 8)
    model = nn.Sequential(nn.Flatten(), shared, nn.ReLU(), shared, nn.Linear(8, 3))
    victim = LLMInt8(model, (1, 2, 4), threshold=0.5)
    batch = images(4)[:, :1, :2, :4]
    assert [gate.name for gate in victim.trace(batch).gates] == ["1.columns", "1.columns.1"]
    audit(victim, batch)


def test_the_users_model_is_left_as_it_was() -> None:
    vit = small_vit()
    before = copy.deepcopy(vit.state_dict())
    LLMInt8(vit, SHAPE)
    assert all(torch.equal(before[name], value) for name, value in vit.state_dict().items())


def test_bad_models() -> None:
    with pytest.raises(UsageError, match=r"unknown module to skip 'blocks\.0\.atn'"):
        build(skip_modules=["blocks.0.atn"])
    with pytest.raises(UsageError, match="changes nothing"):
        LLMInt8(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), (1, 2, 2))
    with pytest.raises(UsageError, match="no parameters"):
        LLMInt8(nn.Flatten(), (1, 2, 2))
    with pytest.raises(UsageError, match="plain logits"):
        LLMInt8(nn.Conv2d(1, 2, 1), (1, 2, 2))


def test_missing_bitsandbytes_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    llm_int8._bitsandbytes.cache_clear()
    with pytest.raises(UsageError, match=r"needs bitsandbytes .*\.\[quant\]"):
        build()


def test_bitsandbytes_does_not_warn(caplog: pytest.LogCaptureFixture) -> None:
    build()(images(1))
    assert not caplog.records
