"""Gated victims in few bits: the contract, gates and costs of the float victim, values of int8."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from toys import import_or_skip

from effattack import audit
from effattack.counting.macs import MacsCounter
from effattack.errors import UsageError
from effattack.models_zoo.cascade.cascade import Cascade
from effattack.models_zoo.criteria import Confidence
from effattack.models_zoo.early_exit.early_exit import EarlyExit
from effattack.models_zoo.early_exit.msdnet import MSDNet
from effattack.models_zoo.networks import Residual, convolution, pooled_head
from effattack.models_zoo.quantization.followed import FollowedATS
from effattack.models_zoo.quantization.gated import GatedInFewBits, QuantizedGates, StaticInt8Gates
from effattack.models_zoo.quantization.static_int8 import KERNELS
from effattack.models_zoo.token_sparsification.ats import ATS
from effattack.models_zoo.token_sparsification.tome import ToMe
from effattack.victim import Victim
from effattack.victim.checks import INVARIANTS, Check

SHAPE = (3, 16, 16)


@pytest.fixture(autouse=True)
def torchao() -> Any:
    return import_or_skip("torchao.quantization.pt2e")


def images(count: int = 12, seed: int = 1) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def undecided(victim: Any) -> Any:
    """With the threshold that half of the images reach at the first classifier."""
    with torch.no_grad():
        confidence = victim.trace(images(40)).stage_logits[:, 0].softmax(1).amax(1)
    victim.criterion = Confidence(confidence.median().item())
    return victim


def early_exit() -> EarlyExit:
    """The second stage starts with a residual sum, whose operand comes from outside."""
    torch.manual_seed(0)
    stages = [convolution(3, 8), nn.Sequential(Residual(8), convolution(8, 16, 2))]
    heads = [pooled_head(8, 4), nn.Sequential(nn.Flatten(), nn.Linear(16 * 64, 4))]
    return undecided(EarlyExit(stages, heads, 0.5, SHAPE))


def cascade() -> Cascade:
    torch.manual_seed(0)
    small, large = (nn.Sequential(convolution(3, width), pooled_head(width, 4)) for width in (6, 8))
    return undecided(Cascade([small, large], 0.5, SHAPE))


def ats() -> ATS:
    torch.manual_seed(0)
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2}
    vit = VisionTransformer(num_classes=4, **sizes)
    for name, parameter in vit.named_parameters():
        if "norm" not in name:
            nn.init.normal_(parameter, std=0.3)
    return ATS(vit, ats_blocks=(0, 1), reference_tokens=14)


FLOATS: dict[str, Callable[[], Victim]] = {
    "early exit": early_exit,
    "cascade": cascade,
    "ats": ats,
}
FORMS: dict[str, Callable[[Victim], GatedInFewBits]] = {
    "int8_dynamic": QuantizedGates,
    "int4_weight_only": lambda victim: QuantizedGates(victim, scheme="int4_weight_only"),
    "int8_static": lambda victim: StaticInt8Gates(victim, images(32, seed=2)),
}

SLOW = ("ats", "int8_static")
"""Every layer of a ViT is exported by itself."""

every_kind = pytest.mark.parametrize("kind", FLOATS)
every_one = pytest.mark.parametrize(
    ("kind", "form"),
    [
        pytest.param(*one, marks=[pytest.mark.slow] * (one == SLOW), id="-".join(one))
        for one in product(FLOATS, FORMS)
    ],
)


@cache
def quantized(kind: str, form: str) -> GatedInFewBits:
    return FORMS[form](FLOATS[kind]())


@every_one
@pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
def test_contract(kind: str, form: str, check: Check) -> None:
    assert check(quantized(kind, form), images()) == []


@every_one
def test_both_paths_take_the_same_decisions_beside_no_knife_edge(kind: str, form: str) -> None:
    victim, pixels = quantized(kind, form), images(40, seed=3)
    found = audit(victim, pixels)
    assert not found.knife_edge.any()
    assert len(found.macs.unique()) > 1
    with torch.no_grad():
        assert torch.equal(found.macs, victim.trace(pixels).macs)
        torch.testing.assert_close(victim(pixels), victim.trace(pixels).logits, rtol=0, atol=1e-5)


@every_one
def test_gates_and_costs_are_those_of_the_float_victim(kind: str, form: str) -> None:
    victim, exact = quantized(kind, form), FLOATS[kind]()
    found, expected = (v.trace(images(2)).gates for v in (victim, exact))
    told = [[(g.name, g.cost, g.proxy, g.pushed) for g in gates] for gates in (found, expected)]
    assert told[0] == told[1]
    for fact in ("family", "max_macs", "dense_macs", "constant", "batch_coupled", "input_shape"):
        assert getattr(victim, fact) == getattr(exact, fact), fact


@pytest.mark.parametrize("kind", ["early exit", "cascade"])
def test_static_int8_runs_every_layer_on_int8_kernels(kind: str) -> None:
    victim = quantized(kind, "int8_static")
    with torch.no_grad(), MacsCounter() as counter:
        victim(images(1))
    assert counter.total == victim.trace(images(1)).macs.item()
    assert {name for name, macs in counter.by_operator.items() if macs} <= set(KERNELS)


@pytest.mark.slow
def test_static_int8_leaves_the_attention_of_a_vit_in_floats() -> None:
    victim = quantized(*SLOW)
    with torch.no_grad(), MacsCounter() as counter:
        victim(images(1))
    rest = sum(macs for name, macs in counter.by_operator.items() if name not in KERNELS)
    tokens = [17]  # 16 patches and CLS, before every block
    for gate in victim.trace(images(1)).gates:
        tokens.append(1 + int(gate.active.sum()))
    (first, second, third), width = tokens, 32
    sampled = [(first, second), (second, third)]
    assert rest == sum(n * n * width + kept * n * width for n, kept in sampled)


@every_one
def test_values_and_gradient_follow_the_float_victim(kind: str, form: str) -> None:
    """The last logits of stages; what the first decision of ATS rests on, as its tokens differ."""
    pixels = images().requires_grad_()
    traces = [v.trace(pixels) for v in (quantized(kind, form), FLOATS[kind]())]
    found, expected = (
        t.aux["significance"][:, 0] if kind == "ats" else t.stage_logits[:, -1] for t in traces
    )
    assert 0 < (found - expected).abs().max() < 0.2 * expected.abs().max()
    upstream = torch.randn(found.shape, generator=torch.Generator().manual_seed(0))
    gradients = [torch.autograd.grad(values, pixels, upstream)[0] for values in (found, expected)]
    cosine = torch.cosine_similarity(*(g.flatten() for g in gradients), dim=0)
    assert cosine > (0.7 if form.startswith("int4") else 0.9)


@every_one
def test_values_are_the_same_with_gradients_and_without(kind: str, form: str) -> None:
    victim = quantized(kind, form)
    with torch.no_grad():
        plain = victim.trace(images())
    followed = victim.trace(images().requires_grad_())
    assert torch.equal(plain.macs, followed.macs)
    assert torch.equal(plain.logits, followed.logits.detach())


@every_one
def test_the_float_victim_is_left_as_it_was(kind: str, form: str) -> None:
    used, fresh = quantized(kind, form).float_victim, FLOATS[kind]()
    with torch.no_grad():
        assert torch.equal(used(images()), fresh(images()))
    assert all(parameter.requires_grad for parameter in used.parameters())


def test_a_followed_trace_is_that_of_ats() -> None:
    """In float64, where no rounding parts them: the masked trace is the other implementation."""
    exact = ats().double()
    followed, pixels = FollowedATS.of(exact).double(), images(8).double()
    found, expected = followed.trace(pixels), exact.trace(pixels)
    assert torch.equal(found.macs, expected.macs)
    torch.testing.assert_close(found.logits, expected.logits)
    torch.testing.assert_close(found.aux["significance"], expected.aux["significance"])
    for one, other in zip(found.gates, expected.gates, strict=True):
        assert torch.equal(one.active, other.active)
        assert torch.equal(one.reached, other.reached)
        torch.testing.assert_close(one.margin[one.reached], other.margin[one.reached])


def test_only_gates_with_a_form_here_are_quantized() -> None:
    victim = ToMe(ats().vit, r=2)
    for form in FORMS.values():
        with pytest.raises(UsageError, match="ToMe is a ToMe: only early exits, cascades and ATS"):
            form(victim)


def test_a_scheme_that_finds_nothing() -> None:
    stages, heads = [convolution(3, 4), convolution(4, 4)], [_Means(), _Means()]
    with pytest.raises(UsageError, match="it would change nothing"):
        QuantizedGates(EarlyExit(stages, heads, 0.5, SHAPE))
    with pytest.raises(UsageError, match="unknown quantization scheme 'int7_dynamic'"):
        QuantizedGates(early_exit(), scheme="int7_dynamic")


class _Means(nn.Module):
    """Logits without a layer."""

    def forward(self, features: Tensor) -> Tensor:
        return features.mean((2, 3))


def test_parts_that_take_lists_are_refused() -> None:
    victim = MSDNet(
        blocks=2,
        channels=4,
        base=1,
        step=1,
        growth_rate=2,
        scales=2,
        growth_factors=(1, 1),
        bottleneck_factors=(1, 1),
        thresholds=0.5,
        input_size=16,
    )
    with pytest.raises(UsageError, match=r"of MSDNet takes a list: static int8 exports parts"):
        StaticInt8Gates(victim, images(2))


@pytest.mark.parametrize(
    "calibration", [images()[:0], images()[..., :4], images() + 1], ids=["none", "shape", "range"]
)
def test_bad_calibration_images(calibration: Tensor) -> None:
    with pytest.raises(UsageError, match="images"):
        StaticInt8Gates(cascade(), calibration)


def test_static_int8_stays_on_the_cpu() -> None:
    victim = quantized("cascade", "int8_static")
    assert victim.to("cpu") is victim
    with pytest.raises(UsageError, match="cannot move to meta: its int8 kernels"):
        victim.to("meta")


@pytest.mark.parametrize("module", ["torchao.quantization", "torchao.quantization.pt2e.lowering"])
def test_missing_torchao_names_the_extra(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    form = FORMS["int8_static" if "pt2e" in module else "int8_dynamic"]
    with pytest.raises(UsageError, match=r"needs torchao .*\.\[quant\]"):
        form(cascade())
