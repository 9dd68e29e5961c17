"""AdaViT: equal to the official implementation, obeying the contract, not blind where saturated."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from parity import golden, relative
from timm.layers import SwiGLU
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from effattack import audit
from effattack.errors import UsageError
from effattack.models_zoo.networks import small_vit
from effattack.models_zoo.token_sparsification.adavit import AdaViT
from effattack.models_zoo.token_sparsification.adavit_policy import Choice
from effattack.victim import Trace
from effattack.victim.checks import INVARIANTS, Check

FACTS, VECTORS, WEIGHTS = golden("adavit")
IMAGES = VECTORS["input"]
FORMS: dict[str, dict[str, Any]] = {
    "width": {},
    "identity": {"dropped_head": "identity_attention"},
    "every_block": {"keep_layers": 0},
    "heads_only": {"layers": False},
    "layers_only": {"heads": False, "keep_layers": 2},
    "tokens_only": {"heads": False, "layers": False},
}


@pytest.fixture(params=sorted(FACTS["variants"]))
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def official(variant: str) -> AdaViT:
    return AdaViT.from_official(WEIGHTS, **FACTS["variants"][variant])


@pytest.fixture(params=sorted(FORMS))
def form(request: pytest.FixtureRequest) -> str:
    return request.param


def policies(trace: Trace) -> dict[str, Tensor]:
    """σ of all policies, as the official code returns them."""
    return {name: values for name, values in trace.aux.items() if name.endswith("_policy")}


def random_victim(form: str, spread: float = 0.3) -> AdaViT:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        victim = AdaViT(small_vit(depth=4), **FORMS[form])
        with torch.no_grad():
            for parameter in victim.vit.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
            for parameter in victim.policies.parameters():
                parameter.normal_(std=spread)
    return victim


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    noise = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return noise * torch.linspace(0, 1, 6).view(-1, 1, 1, 1)


def gates(trace: Trace, kind: str) -> list[Tensor]:
    return [gate.active for gate in trace.gates if gate.name.endswith(kind)]


@pytest.mark.parametrize("path", ["forward", "trace"])
def test_logits(official: AdaViT, variant: str, path: str) -> None:
    with torch.no_grad():
        logits = official(IMAGES) if path == "forward" else official.trace(IMAGES).logits
        official, images = official.double(), IMAGES.double()
        exact = official(images) if path == "forward" else official.trace(images).logits
    assert relative(logits, VECTORS[f"{variant}/logits"]) < 1e-5
    assert relative(exact, VECTORS[f"{variant}/logits_f64"]) < 1e-12


def test_decisions(official: AdaViT, variant: str) -> None:
    """The official code asks every policy; the gates say which of the answers matter."""
    with torch.no_grad():
        trace = official.trace(IMAGES)
    tokens = VECTORS[f"{variant}/token_select"][:, :, 1:].bool()
    assert torch.equal(trace.aux["token_policy"] > 0.6, tokens)
    if variant == "token_only":
        assert list(policies(trace)) == ["token_policy"]
        assert torch.equal(torch.stack(gates(trace, "tokens"), 1), tokens)
        return
    heads, layers = (VECTORS[f"{variant}/{kind}_select"].bool() for kind in ("head", "layer"))
    assert torch.equal(trace.aux["head_policy"] > 0.5, heads)
    assert torch.equal(trace.aux["layer_policy"] > 0.5, layers)
    assert torch.equal(torch.cat(gates(trace, "attention"), 1), layers[:, :, 0])
    assert torch.equal(torch.cat(gates(trace, "mlp"), 1), layers[:, :, 1])
    computed = layers.any(2)
    assert torch.equal(
        torch.stack(gates(trace, "tokens")[1:], 1), tokens[:, 1:] & computed[..., None]
    )
    matter = computed if variant == "all" else layers[:, :, 0]
    assert torch.equal(torch.stack(gates(trace, "heads"), 1), heads & matter[..., None])


def test_policy_logits(official: AdaViT, variant: str) -> None:
    with torch.no_grad():
        found = policies(official.trace(IMAGES))
    for name, policy in found.items():
        expected = VECTORS[f"{variant}/{name.split('_')[0]}_select_logits"].sigmoid()
        torch.testing.assert_close(policy, expected.view_as(policy), rtol=0, atol=1e-5)


def test_gradients(official: AdaViT, variant: str) -> None:
    """In training mode; the official decisions are straight-through in eval mode too."""
    images = IMAGES.clone().requires_grad_()
    trace = official.train().trace(images)
    flat = torch.cat([policy.flatten() for policy in policies(trace).values()])
    for name, source in {"logit3": trace.logits[:, 3], "policy": flat}.items():
        (gradient,) = torch.autograd.grad(source.sum(), images, retain_graph=True)
        assert relative(gradient[:1], VECTORS[f"{variant}/grad_{name}_sum_sample0"]) < 1e-4


def test_only_training_mode_is_straight_through(form: str, pixels: Tensor) -> None:
    victim = random_victim(form)
    parameters = list(victim.policies.parameters())
    deployed, training = victim.trace(pixels), victim.train().trace(pixels)
    assert torch.equal(training.logits, deployed.logits)
    assert torch.equal(training.macs, deployed.macs)
    for trace, flows in ((deployed, False), (training, True)):
        loss = trace.logits.square().sum()
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        assert any(g is not None and bool(g.any()) for g in gradients) == flows


def test_executed_macs(official: AdaViT) -> None:
    counted = audit(official, IMAGES)
    assert not counted.knife_edge.any()
    assert (counted.macs < official.dense_macs).all()


@pytest.mark.parametrize("kind", ["tokens", "heads", "attention", "mlp"])
def test_random_victim_is_undecided(kind: str, pixels: Tensor) -> None:
    with torch.no_grad():
        trace = random_victim("width").trace(pixels)
    assert len(set(trace.macs.tolist())) == len(pixels)
    assert 0 < torch.cat([active.flatten() for active in gates(trace, kind)]).float().mean() < 1


@pytest.mark.parametrize("check", INVARIANTS)
def test_contract(check: Check, form: str, pixels: Tensor) -> None:
    warnings = check(random_victim(form), pixels)
    if form == "every_block":  # before the first attention CLS is the same for all images
        warnings = [w for w in warnings if not re.search(r"blocks\.0\.(attention|mlp|heads)", w)]
    assert warnings == []


def test_forward_equals_trace_in_float64(form: str, pixels: Tensor) -> None:
    victim, images = random_victim(form).double(), pixels.double()
    with torch.no_grad():
        torch.testing.assert_close(victim(images), victim.trace(images).logits, rtol=0, atol=1e-10)


POLICIES = ("token_select", "head_select", "layer_select")
BIASES = {"none": (-99.0, -99.0, -99.0), "all": (99.0, 99.0, 99.0), "no_head": (99.0, -99.0, 99.0)}


@pytest.mark.parametrize("kept", BIASES)
def test_extremes(kept: str, form: str, pixels: Tensor) -> None:
    """Nothing kept, everything kept, and sublayers without a single head or patch token."""
    for tokens in (BIASES[kept][0], -99.0):
        victim, open_gates = random_victim(form), []
        for policy in victim.policies:
            biases = (tokens, *BIASES[kept][1:])
            for child, bias in zip(POLICIES, biases, strict=True):
                if (layer := getattr(policy, child)) is not None:
                    nn.init.constant_(layer.bias, bias)
                    open_gates.append(bias > 0)
        with torch.no_grad():
            trace, counted = victim.trace(pixels), audit(victim, pixels)
        torch.testing.assert_close(counted.logits, trace.logits, rtol=1e-4, atol=1e-4)
        assert ((counted.macs == victim.max_macs) == all(open_gates)).all()


def test_an_untrained_policy_keeps_the_model(pixels: Tensor) -> None:
    vit = small_vit(depth=4)
    victim = AdaViT(vit)
    with torch.no_grad():
        expected, trace = vit(pixels), victim.trace(pixels)
        torch.testing.assert_close(victim(pixels), expected, rtol=1e-4, atol=1e-5)
    assert (trace.macs == victim.max_macs).all()
    policies = 4 * 64 * 64 + 3 * (4 + 2) * 64
    assert victim.max_macs - victim.dense_macs == policies


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threshold", [0.5, 0.6])
def test_the_sign_of_the_margin_is_the_decision(dtype: torch.dtype, threshold: float) -> None:
    """Also within rounding of the threshold, where log-odds and probabilities may disagree."""
    near = torch.tensor(threshold, dtype=dtype).logit() + torch.linspace(-1e-6, 1e-6, 2001)
    choice = Choice(near.to(dtype), threshold)
    assert torch.equal(choice.margin > 0, choice.keep)
    assert 0 < choice.keep.float().mean() < 1


def test_saturated_policies_keep_a_slope(pixels: Tensor) -> None:
    """Where σ(z) is 0 or 1 in float32 its own slope is 0; the margin still tells where to push."""
    victim = random_victim("width", spread=300.0)
    images = pixels.clone().requires_grad_()
    trace = victim.trace(images)
    policy = trace.aux["token_policy"][:, 0]
    closed = trace.gates[0].reached & (policy == 0)
    assert closed.any()
    native, house = (
        torch.autograd.grad((values * closed).sum(), images, retain_graph=True)[0]
        for values in (policy, trace.gates[0].margin)
    )
    assert not native.any()
    assert (house.flatten(1).norm(dim=1)[closed.any(1)] > 1e-8).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"token_threshold": 0.0}, "tokens 0.0"),
        ({"head_threshold": 1.0, "layer_threshold": -1.0}, r"heads 1\.0, layers -1\.0"),
        ({"keep_layers": 2}, "keep_layers"),
        ({"dropped_head": "none"}, "identity_attention"),
    ],
)
def test_values_out_of_range(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        AdaViT(small_vit(depth=1), **wrong)


def test_heads_that_cannot_leave_by_width(pixels: Tensor) -> None:
    vit = VisionTransformer(
        img_size=32, patch_size=4, embed_dim=64, depth=1, num_heads=4, mlp_layer=SwiGLU
    )
    with pytest.raises(UsageError, match="MLP of type SwiGLU"):
        AdaViT(vit)
    audit(AdaViT(vit, keep_layers=0, dropped_head="identity_attention"), pixels[:1])


def test_keys_that_do_not_fit() -> None:
    weights = dict(WEIGHTS)
    weights["blocks.1.attn.extra"] = weights.pop("blocks.1.attn.query.bias")
    with pytest.raises(UsageError, match=r"missing .*1\.attn\.query\.bias.*surplus .*attn\.extra"):
        AdaViT.from_official(weights, **FACTS["variants"]["all"])


def test_policies_of_other_forms() -> None:
    """A checkpoint without the policies that are switched off loads as one with them."""
    tokens = {
        k: v for k, v in WEIGHTS.items() if "head_select" not in k and "layer_select" not in k
    }
    found, expected = (
        AdaViT.from_official(weights, **FACTS["variants"]["token_only"])
        for weights in (tokens, WEIGHTS)
    )
    with torch.no_grad():
        assert torch.equal(found(IMAGES[:1]), expected(IMAGES[:1]))
    with pytest.raises(UsageError, match=r"missing .*blocks\.1\.head_select\.mlp_head\.weight"):
        AdaViT.from_official(tokens, **FACTS["variants"]["all"])
