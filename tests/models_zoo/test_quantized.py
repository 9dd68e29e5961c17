"""Quantized networks: every scheme, its gradient, its bits, and schemes that do not run here."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from toys import import_or_skip

from effattack import audit
from effattack.errors import UsageError
from effattack.models_zoo.quantization import quantized
from effattack.models_zoo.quantization.quantized import SCHEMES, Quantized, Scheme
from effattack.victim.checks import INVARIANTS, Check

SHAPE = (3, 16, 16)
WIDTH, TOKENS, CLASSES = 32, 17, 5
LINEAR = 2 * 12 * TOKENS * WIDTH**2 + WIDTH * CLASSES
BITS = {"int8_dynamic": 64, "int8_weight_only": 8 * 32, "int4_weight_only": 4 * 32}
"""Weight bits x activation bits, where a CPU runs the scheme."""

every_scheme = pytest.mark.parametrize("scheme", BITS)


@pytest.fixture(autouse=True)
def torchao() -> Any:
    return import_or_skip("torchao.quantization")


def small_vit() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": WIDTH, "depth": 2, "num_heads": 2}
    return timm.create_model("vit_tiny_patch16_224", num_classes=CLASSES, **sizes).eval()


def images(count: int = 4) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1))


@every_scheme
@pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
def test_contract(scheme: str, check: Check) -> None:
    assert check(Quantized(small_vit(), SHAPE, scheme=scheme), images()) == []


@every_scheme
def test_macs_are_those_of_the_float_model(scheme: str) -> None:
    victim = Quantized(small_vit(), SHAPE, scheme=scheme)
    dense = 2 * (12 * TOKENS * WIDTH**2 + 2 * TOKENS**2 * WIDTH) + 16 * 48 * WIDTH + WIDTH * CLASSES
    assert victim.constant
    assert victim.max_macs == victim.dense_macs == dense
    assert victim.quantized_macs == LINEAR
    assert audit(victim, images()).macs.tolist() == [dense] * 4


@every_scheme
def test_bit_operations(scheme: str) -> None:
    victim = Quantized(small_vit(), SHAPE, scheme=scheme)
    macs = victim.trace(images(2)).macs
    expected = LINEAR * BITS[scheme] + (victim.max_macs - LINEAR) * 32 * 32
    assert victim.bit_operations(macs).tolist() == [expected] * 2


@every_scheme
def test_values_and_gradient_follow_the_float_model(scheme: str) -> None:
    vit, pixels = small_vit(), images().requires_grad_()
    victim = Quantized(vit, SHAPE, scheme=scheme)
    logits = victim.trace(pixels).logits
    with torch.no_grad():
        torch.testing.assert_close(victim(pixels), logits, rtol=0, atol=1e-5)
    upstream = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
    (found,) = torch.autograd.grad(logits, pixels, upstream)
    (expected,) = torch.autograd.grad(vit(pixels), pixels, upstream)
    cosine = torch.cosine_similarity(found.flatten(), expected.flatten(), dim=0)
    assert cosine > (0.8 if scheme.startswith("int4") else 0.99)


def test_only_rounded_activations_need_a_straight_through_trace() -> None:
    for name in BITS:
        victim = Quantized(small_vit(), SHAPE, scheme=name)
        assert (victim._traced is victim.model) == (victim.scheme.activation_bits is None)
        assert victim(images().requires_grad_()).requires_grad == (victim._traced is victim.model)


def test_default_is_dynamic_int8() -> None:
    assert Quantized(small_vit(), SHAPE).scheme is SCHEMES["int8_dynamic"]


def test_a_scheme_of_ones_own() -> None:
    def int2(ao: Any) -> Any:
        return ao.IntxWeightOnlyConfig(torch.int2)

    victim = Quantized(small_vit(), SHAPE, scheme=Scheme(int2, 2, None, "torchao"))
    audit(victim, images(1))
    assert victim.bit_operations(victim.trace(images(1)).macs) < 0.2 * victim.max_macs * 1024


def test_a_linear_model_and_a_shared_layer() -> None:
    shared = nn.Linear(16, 16)
    model = nn.Sequential(nn.Flatten(), shared, nn.ReLU(), shared)
    pixels = images()[:, :1, :4, :4].requires_grad_()
    for check in INVARIANTS:
        assert check(Quantized(model, (1, 4, 4)), pixels.detach()) == []
    victim = Quantized(nn.Linear(16, 3), (16,))
    assert torch.autograd.grad(victim.trace(pixels.flatten(1)).logits.sum(), pixels)[0].any()


def test_unknown_scheme() -> None:
    with pytest.raises(
        UsageError, match="unknown quantization scheme 'int8_dinamic': did you mean"
    ):
        Quantized(small_vit(), SHAPE, scheme="int8_dinamic")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU may have float8 kernels")
def test_scheme_that_this_machine_lacks() -> None:
    with pytest.raises(UsageError, match=r"needs a GPU with float8 .*compute capability"):
        Quantized(small_vit(), SHAPE, scheme="float8_dynamic")


def test_scheme_that_this_torchao_lacks() -> None:
    future = Scheme(lambda ao: ao.Int1Config(), 1, None, "torchao 99")
    with pytest.raises(UsageError, match="it needs torchao 99"):
        Quantized(small_vit(), SHAPE, scheme=future)


def test_scheme_that_silently_does_nothing() -> None:
    """torchao leaves layers as they are whose width its group size does not divide."""
    grouped = Scheme(lambda ao: ao.Int4WeightOnlyConfig(group_size=128), 4, None, "a GPU")
    with pytest.raises(UsageError, match="it would change nothing"):
        Quantized(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), (1, 4, 4), scheme=grouped)


def test_bad_models() -> None:
    with pytest.raises(UsageError, match="it would change nothing"):
        Quantized(nn.Sequential(nn.Conv2d(1, 2, 4), nn.Flatten()), (1, 4, 4))
    with pytest.raises(UsageError, match="no parameters"):
        Quantized(nn.Flatten(), (1, 4, 4))


def test_missing_torchao_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(UsageError, match=r"needs torchao .*\.\[quant\]"):
        Quantized(small_vit(), SHAPE)


def test_torchao_that_does_not_fit_this_torch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def import_module(module: str) -> None:
        raise ImportError("cannot import name 'ScalingType'")

    monkeypatch.setattr(quantized, "import_module", import_module)
    monkeypatch.setattr(quantized, "version", lambda package: "0.99.1+cpu")
    remedy = r"torchao 0\.99\.1\+cpu does not import .*pip install 'torchao<0\.99\.1'$"
    with pytest.raises(UsageError, match=remedy):
        Quantized(small_vit(), SHAPE)
