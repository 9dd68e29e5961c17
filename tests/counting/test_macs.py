"""The counter against closed forms, and against torch's own where a probe shows that one right."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from macs_oracles import closed_form, expect_as_torch, multihead_macs
from torch import Tensor, nn
from torch.nn import functional as F
from toys import embedded_or_skip, import_or_skip

from effattack.counting import macs
from effattack.counting.joules import INT8_OPERATORS
from effattack.counting.macs import MacsCounter, count_macs, linear_macs, register
from effattack.errors import UnknownOperator
from effattack.models_zoo.digits import digits

property_test = settings(max_examples=20, deadline=None, derandomize=True)

small = st.integers(1, 4)


# layers, products, attention, and networks of them


@given(batch=small, tokens=small, inputs=small, outputs=small, bias=st.booleans())
@property_test
def test_linear(batch: int, tokens: int, inputs: int, outputs: int, bias: bool) -> None:
    layer, x = nn.Linear(inputs, outputs, bias), torch.rand(batch, tokens, inputs)
    assert count_macs(layer, x) == batch * tokens * inputs * outputs
    assert count_macs(layer, x) == linear_macs(batch * tokens, [layer])
    expect_as_torch(layer, x)


@given(
    dims=st.integers(1, 3),
    groups=st.integers(1, 3),
    inputs=small,
    outputs=small,
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    batch=small,
)
@property_test
def test_convolution(
    dims: int,
    groups: int,
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
    batch: int,
) -> None:
    kind = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
    layer = kind(
        inputs * groups, outputs * groups, kernel, stride, padding, dilation, groups=groups
    )
    x = torch.rand(batch, inputs * groups, *[7] * dims)
    per_output = inputs * kernel**dims
    assert count_macs(layer, x) == layer(x).numel() * per_output
    expect_as_torch(layer, x)


@given(groups=st.integers(1, 3), inputs=small, outputs=small, stride=st.integers(1, 3))
@property_test
def test_transposed_convolution(groups: int, inputs: int, outputs: int, stride: int) -> None:
    layer = nn.ConvTranspose2d(inputs * groups, outputs * groups, 3, stride, groups=groups)
    x = torch.rand(2, inputs * groups, 5, 6)
    assert count_macs(layer, x) == x.numel() * outputs * 9
    expect_as_torch(layer, x)


@given(batch=small, rows=small, inner=small, columns=small)
@property_test
def test_batched_product(batch: int, rows: int, inner: int, columns: int) -> None:
    a, b = torch.rand(batch, rows, inner), torch.rand(batch, inner, columns)
    assert count_macs(torch.bmm, a, b) == batch * rows * inner * columns
    assert count_macs(torch.matmul, a, b) == count_macs(torch.bmm, a, b)
    expect_as_torch(torch.bmm, a, b)


@pytest.mark.parametrize(
    ("function", "shapes", "expected"),
    [
        (torch.mv, [(3, 5), (5,)], 15),
        (torch.dot, [(5,), (5,)], 5),
        (torch.addmm, [(3, 4), (3, 5), (5, 4)], 60),
        (torch.addmv, [(3,), (3, 5), (5,)], 15),
        (torch.baddbmm, [(2, 3, 4), (2, 3, 5), (2, 5, 4)], 120),
        (torch.addbmm, [(3, 4), (2, 3, 5), (2, 5, 4)], 120),
        (torch.Tensor.addmm_, [(3, 4), (3, 5), (5, 4)], 60),
        (lambda a, b: torch.einsum("bik,bjk->bij", a, b), [(2, 3, 5), (2, 4, 5)], 120),
        (lambda a, b: a @ b, [(2, 3, 5), (5,)], 30),
    ],
)
def test_products(
    function: Callable[..., Tensor], shapes: list[tuple[int, ...]], expected: int
) -> None:
    assert count_macs(function, *map(torch.rand, shapes)) == expected


def test_scaled_dot_product_attention() -> None:
    q, k, v = torch.rand(2, 3, 5, 8), torch.rand(2, 3, 7, 8), torch.rand(2, 3, 7, 8)
    expected = 2 * 3 * 5 * 7 * (8 + 8)
    assert count_macs(F.scaled_dot_product_attention, q, k, v) == expected
    expect_as_torch(F.scaled_dot_product_attention, q, k, v)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("vit_tiny_patch16_224", 224),
        ("resnet10t", 64),
        ("mobilenetv3_small_050", 64),
        ("convnext_atto", 64),
        ("levit_128s", 224),
    ],
)
def test_ordinary_models(name: str, size: int) -> None:
    model, image = timm.create_model(name, pretrained=False).eval(), torch.rand(1, 3, size, size)
    expected = closed_form(model, image)
    assert count_macs(model, image) == expected > 0
    with torch.inference_mode(), MacsCounter() as counter:
        model(image)
    assert counter.total == expected, "inference mode hands composite operators over whole"
    expect_as_torch(model, image)


def test_swin() -> None:
    model = timm.models.SwinTransformer(
        img_size=56, embed_dim=24, depths=(2, 2), num_heads=(2, 4), num_classes=5
    ).eval()
    image = torch.rand(1, 3, 56, 56)
    assert count_macs(model, image) == closed_form(model, image) > 0
    expect_as_torch(model, image)


def test_vit_closed_form() -> None:
    width, depth, tokens = 32, 3, 17
    vit = timm.models.VisionTransformer(
        img_size=16, patch_size=4, embed_dim=width, depth=depth, num_heads=2, num_classes=10
    ).eval()
    block = 12 * tokens * width**2 + 2 * tokens**2 * width
    expected = 3 * 4 * 4 * width * 16 + depth * block + width * 10
    assert count_macs(vit, torch.rand(1, 3, 16, 16)) == expected


# fused and quantized layers, which torch's own counter has seen as 0


def test_multihead_attention_in_eval_mode() -> None:
    layer, x = nn.MultiheadAttention(16, 4, batch_first=True).eval(), torch.rand(2, 5, 16)

    def attend(x: Tensor) -> Tensor:
        return layer(x, x, x)[0]

    assert count_macs(attend, x) == multihead_macs(2, 5, 5, 16)


@pytest.mark.parametrize("norm_first", [False, True])
def test_encoder_layer_in_eval_mode(norm_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 40, batch_first=True, norm_first=norm_first).eval()
    x = torch.rand(2, 5, 16)
    expected = multihead_macs(2, 5, 5, 16) + 2 * 2 * 5 * 16 * 40
    assert count_macs(layer, x) == expected
    with torch.enable_grad(), MacsCounter() as counter:
        layer(x)
    assert counter.total == expected, "the same work without the fused kernel"


def test_dynamically_quantized_linear() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.ao.quantization.quantize_dynamic(
            nn.Sequential(nn.Linear(16, 8)).eval(), {nn.Linear}
        )
    x = torch.rand(2, 5, 16)
    assert count_macs(model, x) == 2 * 5 * 16 * 8


def test_torchao_int8_linear() -> None:
    quantization = import_or_skip("torchao.quantization")
    model = nn.Sequential(nn.Linear(32, 64)).eval()
    quantization.quantize_(model, quantization.Int8DynamicActivationInt8WeightConfig(version=2))
    x = torch.rand(2, 5, 32)
    assert count_macs(model, x) == 2 * 5 * 32 * 64
    with torch.inference_mode(), MacsCounter() as counter:
        model(x)
    assert counter.total == 2 * 5 * 32 * 64


@pytest.mark.parametrize(
    ("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)], ids=["LSTM", "GRU", "RNN"]
)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_recurrent_layers(kind: type[nn.RNNBase], gates: int, bidirectional: bool) -> None:
    layer = kind(12, 20, num_layers=2, bidirectional=bidirectional, batch_first=True)
    directions = 1 + bidirectional
    per_step = directions * gates * 20 * ((12 + 20) + (20 * directions + 20))
    assert count_macs(layer, torch.rand(3, 7, 12)) == 3 * 7 * per_step


def test_cudnn_recurrent_layers() -> None:
    layer = nn.LSTM(12, 20, num_layers=2, proj_size=5)
    x, weights = torch.rand(7, 3, 12), list(layer.parameters())
    counted = macs.COSTS["aten._cudnn_rnn"](x, weights, 5, out=None)
    per_step = 80 * (12 + 5) + 20 * 5 + 80 * (5 + 5) + 20 * 5
    assert counted == 7 * 3 * per_step


ZOO = sorted(
    entry.name
    for entry in entry_points(group="effattack.victims")
    if entry.value.startswith("effattack.models_zoo.")
)


EXPORTED = {"digits_cnn_early_exit_int8", "digits_tinysaver_cascade_int8"}
"""Whose parts are exported one by one, which takes long."""


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in EXPORTED)) for n in ZOO]
)
def test_every_victim_of_the_zoo(name: str) -> None:
    """The victim's own closed form, and torch's counter per operator."""
    victim = embedded_or_skip(name)
    single = digits("test")[0][:1]
    single = single if victim.domain.fits(single) else victim.example(1)
    with torch.no_grad(), MacsCounter() as counter:
        victim(single)
    assert counter.total == victim.trace(single).macs.item()
    int8 = any(operator.startswith(INT8_OPERATORS) for operator in counter.by_operator)
    assert int8 == ("int8" in name and not name.endswith("_weight_only"))
    expect_as_torch(victim, single)


# what is free, what is unknown


def test_what_moves_or_adds_is_free() -> None:
    layers = nn.Sequential(
        nn.GroupNorm(2, 4),
        nn.PReLU(),
        nn.Hardswish(inplace=True),
        nn.GELU(),
        nn.GLU(1),
        nn.InstanceNorm2d(2),
        nn.MaxPool2d(2),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Unfold(3),
        nn.LogSoftmax(1),
    ).eval()
    assert count_macs(layers, torch.rand(2, 4, 8, 8)) == 0


@pytest.fixture
def tables() -> Iterator[None]:
    """Both tables as they were, afterwards."""
    costs, free = dict(macs.COSTS), set(macs.FREE)
    yield
    macs.COSTS.clear()
    macs.COSTS.update(costs)
    macs.FREE.clear()
    macs.FREE.update(free)


@pytest.fixture(scope="module")
def operator() -> Any:
    """An operator that no table can know: an outer product."""

    @torch.library.custom_op("effattack_tests::outer", mutates_args=())
    def outer(a: Tensor, b: Tensor) -> Tensor:
        return a[:, None] * b

    return outer


@pytest.mark.usefixtures("tables")
def test_unknown_operator_is_named_and_can_be_registered(operator: Any) -> None:
    a, b = torch.rand(3), torch.rand(4)
    with pytest.raises(UnknownOperator, match=r"effattack_tests\.outer.*register\('effattack_te"):
        count_macs(operator, a, b)
    register("effattack_tests.outer", lambda a, b, out: a.numel() * b.numel())
    assert count_macs(operator, a, b) == 12
    register(torch.ops.effattack_tests.outer, lambda a, b, out: 2 * out.numel())
    assert count_macs(operator, a, b) == 24
    register(torch.ops.effattack_tests.outer.default, None)
    assert count_macs(operator, a, b) == 0


def test_tables_are_restored(operator: Any) -> None:
    with pytest.raises(UnknownOperator):
        count_macs(operator, torch.rand(3), torch.rand(4))


@pytest.mark.usefixtures("tables")
def test_known_operator_can_be_given_another_cost() -> None:
    register(torch.ops.aten.mm, None)
    assert count_macs(torch.mm, torch.rand(2, 3), torch.rand(3, 4)) == 0
    register("aten.softmax_", lambda *a, **k: 7)
    assert "aten.softmax" in macs.COSTS, "in place counts as the operator itself"


def test_tables_do_not_overlap() -> None:
    assert not macs.COSTS.keys() & macs.FREE


def test_an_error_leaves_no_mode_behind(operator: Any) -> None:
    with pytest.raises(UnknownOperator):
        count_macs(lambda: F.linear(operator(torch.rand(3), torch.rand(4)), torch.rand(5, 4)))
    operator(torch.rand(3), torch.rand(4))


# where it went


def test_attribution() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Sequential(nn.Linear(8, 5)))
    with torch.no_grad(), MacsCounter(model) as counter:
        model(torch.rand(1, 1, 4, 4))
    convolution, linear = 2 * 2 * 2 * 9, 8 * 5
    assert counter.total == convolution + linear
    assert counter.by_operator == {"aten.convolution": convolution, "aten.addmm": linear}
    assert counter.by_module["Sequential"] == counter.total
    assert counter.by_module["Sequential.0"] == convolution
    assert counter.by_module["Sequential.2"] == counter.by_module["Sequential.2.0"] == linear
    assert "Sequential.1" not in counter.by_module


def test_attribution_under_inference_mode() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 5))
    with torch.inference_mode(), MacsCounter(model) as counter:
        model(torch.rand(1, 1, 4, 4))
    assert counter.by_module["Sequential.0"] == 72
    assert counter.by_module["Sequential.2"] == 40


def test_counters_nest() -> None:
    layer, x = nn.Linear(3, 4), torch.rand(2, 3)
    with torch.no_grad(), MacsCounter() as outer:
        layer(x)
        with MacsCounter() as inner:
            layer(x)
    assert (outer.total, inner.total) == (48, 24)
