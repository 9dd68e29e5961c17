"""Static int8: real int8 kernels, constant MACs, a gradient, and models that do not fit."""

from __future__ import annotations

import copy
import sys
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import import_or_skip

from effattack import audit
from effattack.counting.macs import MacsCounter, count_macs
from effattack.errors import UsageError
from effattack.models_zoo.networks import Residual, convolution, pooled_head
from effattack.models_zoo.quantization.static_int8 import StaticInt8, calibrated
from effattack.victim.checks import INVARIANTS, Check
from effattack.victim.digests import victim_digest

SHAPE = (3, 8, 8)
GROUPED = 64 * 8 * 4 * 9
CONVOLUTIONS = 64 * 27 * 8 + 2 * 64 * 72 * 8 + GROUPED
HEAD = 8 * 5


@pytest.fixture(autouse=True)
def torchao() -> Any:
    return import_or_skip("torchao.quantization.pt2e")


def network() -> nn.Module:
    """Batch norm, a residual sum, groups, pooling: all that a small CNN may hold."""
    torch.manual_seed(0)
    grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
    layers = convolution(3, 8), Residual(8), grouped, nn.ReLU6(), nn.MaxPool2d(2), pooled_head(8, 5)
    return nn.Sequential(*layers).eval()


def one_convolution() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), pooled_head(4, 5))


def images(count: int = 4) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1))


@cache
def victim() -> StaticInt8:
    return StaticInt8(network(), SHAPE, images(16))


@pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
def test_contract(check: Check) -> None:
    assert check(victim(), images()) == []


def test_all_macs_run_on_int8_kernels() -> None:
    assert victim().constant
    assert victim().quantized_macs == victim().max_macs == CONVOLUTIONS + HEAD
    with torch.no_grad(), MacsCounter() as counter:
        victim()(images(1))
    assert counter.by_operator == {
        "onednn.qconv_pointwise": CONVOLUTIONS,
        "onednn.qlinear_pointwise": HEAD,
    }
    assert audit(victim(), images()).macs.tolist() == [victim().max_macs] * 4


def test_bit_operations() -> None:
    macs = victim().trace(images(2)).macs
    assert victim().bit_operations(macs).tolist() == [(CONVOLUTIONS + HEAD) * 64] * 2


def test_values_and_gradient_follow_the_float_model() -> None:
    pixels = images().requires_grad_()
    logits, expected = victim().trace(pixels).logits, network()(pixels)
    assert 0 < (logits - expected).abs().max() < 0.05 * expected.abs().max()
    upstream = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
    (found,) = torch.autograd.grad(logits, pixels, upstream)
    (wanted,) = torch.autograd.grad(expected, pixels, upstream)
    assert torch.cosine_similarity(found.flatten(), wanted.flatten(), dim=0) > 0.9


def test_the_range_is_that_of_the_calibration_images() -> None:
    """Pixels above every calibrated one saturate: equal logits, no gradient."""
    dark = StaticInt8(one_convolution(), SHAPE, images(16) / 2)
    brighter = [torch.full((1, *SHAPE), level, requires_grad=True) for level in (0.6, 0.9)]
    first, second = (dark.trace(pixels).logits for pixels in brighter)
    assert torch.equal(first, second)
    assert not torch.autograd.grad(second.sum(), brighter[1])[0].any()


def test_the_layout_of_floats_is_no_obstacle() -> None:
    """int8 kernels lay channels last: a sum with the input itself, and a view of what comes out."""
    torch.manual_seed(0)
    flat = nn.Flatten(), nn.Linear(4 * 64, 5)
    model = nn.Sequential(Residual(3), nn.Conv2d(3, 4, 3, padding=1), *flat).eval()
    rounded = StaticInt8(model, SHAPE, images(16))
    assert rounded.quantized_macs == rounded.max_macs
    with torch.no_grad():
        exact = model(images())
        assert 0 < (rounded(images()) - exact).abs().max() < 0.1 * exact.abs().max()
        torch.testing.assert_close(rounded(images()), rounded.trace(images()).logits)


@pytest.mark.parametrize("count", [1, 3, 32])
def test_batches_of_any_size(count: int) -> None:
    assert victim()(images(count)).shape == victim().trace(images(count)).logits.shape == (count, 5)


def test_the_users_model_is_left_as_it_was() -> None:
    model = one_convolution()
    before = copy.deepcopy(model.state_dict())
    StaticInt8(model, SHAPE, images())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.slow
def test_its_cells_are_known_again() -> None:
    same, again, other = (
        victim_digest(StaticInt8(one_convolution(), SHAPE, images(count))) for count in (4, 4, 3)
    )
    assert same == again != other


def test_stays_on_the_cpu() -> None:
    assert victim().to("cpu") is victim()
    assert not any(module.training for module in victim().modules())
    with pytest.raises(UsageError, match="cannot move to meta: its int8 kernels"):
        victim().to("meta")


class Branching(nn.Module):
    """A decision on the input, which no exported graph can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(192, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1) if x.mean() > 0.5 else -x.flatten(1))


def test_any_number_of_victims_in_one_process() -> None:
    calibration = images()
    for _ in range(1 + torch._dynamo.config.recompile_limit):
        calibrated(one_convolution(), calibration)


def test_bad_models() -> None:
    with pytest.raises(UsageError, match="Branching cannot be exported for batches of any size"):
        StaticInt8(Branching(), SHAPE, images())
    scale = nn.Sequential(nn.Flatten(), nn.LayerNorm(192))
    with pytest.raises(UsageError, match="it would change nothing"):
        StaticInt8(scale, SHAPE, images())
    with pytest.raises(UsageError, match="no parameters"):
        StaticInt8(nn.Flatten(), SHAPE, images())


@pytest.mark.parametrize(
    "calibration", [images()[:0], images()[..., :4], images() + 1], ids=["none", "shape", "range"]
)
def test_bad_calibration_images(calibration: Tensor) -> None:
    with pytest.raises(UsageError, match="images"):
        StaticInt8(network(), SHAPE, calibration)


@pytest.mark.parametrize("lowering", ["raises", "does nothing"])
def test_a_machine_without_the_kernels(lowering: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def lower(graph: Any, example: Any) -> Any:
        if lowering == "raises":
            raise RuntimeError("no oneDNN")
        return graph

    where = "torchao.quantization.pt2e.lowering.lower_pt2e_quantized_to_x86"
    monkeypatch.setattr(where, lower)
    with pytest.raises(UsageError, match=r"needs an x86 CPU .*oneDNN \((no oneDNN|all layers)"):
        StaticInt8(one_convolution(), SHAPE, images())


def test_missing_torchao_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization.pt2e.quantize_pt2e", None)
    with pytest.raises(UsageError, match=r"needs torchao .*\.\[quant\]"):
        StaticInt8(network(), SHAPE, images())


@pytest.mark.slow
def test_a_resnet_of_torchvision() -> None:
    """Stride, a residual path of its own, and adaptive pooling; partitioned as a whole."""
    torchvision = import_or_skip("torchvision")
    torch.manual_seed(0)
    resnet = torchvision.models.resnet18(num_classes=5).eval()
    shape = (3, 32, 32)
    held_out, scored = torch.rand(4, *shape), torch.rand(2, *shape)
    quantized = StaticInt8(resnet, shape, held_out, name="resnet18")
    assert quantized.quantized_macs == quantized.max_macs == count_macs(resnet, held_out[:1])
    assert audit(quantized, scored).macs.tolist() == [quantized.max_macs] * 2
    with torch.no_grad():
        exact, rounded = resnet(scored), quantized(scored)
    assert (exact - rounded).abs().max() < 0.2 * exact.abs().max()
