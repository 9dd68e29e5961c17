"""SDN against the official implementation (DeepSloth's copy), ResNet and VGG forms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from parity import relative
from safetensors.torch import load_file
from torch import Tensor

from effattack import audit
from effattack.errors import UsageError
from effattack.models_zoo.criteria import Patience
from effattack.models_zoo.early_exit.sdn import SDN
from effattack.victim.checks import INVARIANTS, Check

GOLDEN = Path(__file__).parents[1] / "golden"
FORMS = ("sdn_resnet", "sdn_vgg")
FACTS = {f: json.loads((GOLDEN / f"{f}.json").read_text())["from_official"] for f in FORMS}
VECTORS = {f: load_file(GOLDEN / f"{f}.safetensors") for f in FORMS}
IMAGES = {f: VECTORS[f]["input"] for f in FORMS}
VARIANTS = [(form, variant) for form in FORMS for variant in FACTS[form]["variants"]]
FALLBACKS = {"last": "exit_index", "most confident": "exit_index_most_confident"}


def build(form: str, variant: str = "threshold_0.65", **changes: Any) -> SDN:
    settings = FACTS[form]["variants"][variant] | changes
    return SDN.from_official(weights(form), **settings)


def weights(form: str) -> dict[str, Tensor]:
    return {k[8:]: v for k, v in VECTORS[form].items() if k.startswith("weights/")}


def all_exits(form: str, suffix: str = "") -> Tensor:
    """Official logits (B, exits, classes), every exit of every image."""
    exits = VECTORS[form]["confidence"].shape[1]
    return torch.stack([VECTORS[form][f"logits_exit{k}{suffix}"] for k in range(exits)], dim=1)


@pytest.mark.parametrize(("form", "variant"), VARIANTS)
@pytest.mark.parametrize("fallback", FALLBACKS)
def test_exits_and_logits(form: str, variant: str, fallback: str) -> None:
    column = list(FACTS[form]["variants"]).index(variant)
    victim, images = build(form, variant, fallback=fallback), IMAGES[form]
    with torch.no_grad():
        trace, deployed = victim.trace(images), victim(images)
    passed = torch.cat([gate.active for gate in trace.gates], dim=1).sum(1)
    assert passed.tolist() == VECTORS[form]["exit_index"][:, column].tolist()
    answering = VECTORS[form][FALLBACKS[fallback]][:, column].long()
    expected = all_exits(form)[range(len(images)), answering]
    if fallback == "last":
        torch.testing.assert_close(expected, VECTORS[form]["exit_logits"][:, column])
    assert relative(trace.logits, expected) < 1e-5
    assert relative(deployed, expected) < 1e-5


@pytest.mark.parametrize("form", FORMS)
def test_every_exit(form: str) -> None:
    with torch.no_grad():
        single = build(form).trace(IMAGES[form]).stage_logits
        double = build(form).double().trace(IMAGES[form].double()).stage_logits
    assert single is not None
    assert double is not None
    assert relative(single, all_exits(form)) < 1e-5
    assert relative(double, all_exits(form, "_f64")) < 1e-12
    confidence = VECTORS[form]["confidence"]
    torch.testing.assert_close(single.softmax(2).amax(2), confidence, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_gradient(form: str) -> None:
    images = IMAGES[form].clone().requires_grad_()
    stage_logits = build(form).trace(images).stage_logits
    assert stage_logits is not None
    (gradient,) = torch.autograd.grad(stage_logits[:, :, 3].sum(), images)
    assert relative(gradient[:1], VECTORS[form]["grad_logit3_all_exits_sample0"]) < 1e-4


@pytest.mark.parametrize(("form", "variant"), VARIANTS)
def test_executed_macs(form: str, variant: str) -> None:
    victim = build(form, variant)
    counted = audit(victim, IMAGES[form])
    assert not counted.knife_edge.any()
    column = list(FACTS[form]["variants"]).index(variant)
    is_early = VECTORS[form]["is_early"][:, column].bool()
    assert torch.equal(counted.macs < victim.max_macs, is_early)


@pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("fallback", FALLBACKS)
@pytest.mark.parametrize("form", FORMS)
def test_contract(form: str, fallback: str, check: Check) -> None:
    victim = build(form, fallback=fallback)
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert check(victim, images) == []


@pytest.mark.parametrize("form", FORMS)
def test_most_confident_costs_the_whole_network(form: str) -> None:
    victim = build(form, threshold=1, fallback="most confident")
    with torch.no_grad():
        trace, deployed = victim.trace(IMAGES[form]), victim(IMAGES[form])
    best = VECTORS[form]["confidence"].argmax(1)
    assert relative(trace.logits, all_exits(form)[range(4), best]) < 1e-5
    torch.testing.assert_close(deployed, trace.logits)
    assert trace.macs.tolist() == [victim.max_macs] * 4


def test_hand_counted_macs() -> None:
    sizes = FACTS["sdn_vgg"]["variants"]["threshold_0.5"]
    victim = SDN(**(sizes | {"exits": [0, 1, 0, 0, 0], "threshold": 0}))
    exit_macs = 32 * 32 * 9 * (3 * 8 + 8 * 16) + 256 * 10
    with torch.no_grad():
        assert victim.trace(IMAGES["sdn_vgg"]).macs.tolist() == [exit_macs] * 4
    rest = 16 * 16 * 9 * 16 * 16 + 8 * 8 * 9 * 16 * 24 + 384 * 32 + 32 * 24 + 24 * 10
    assert victim.max_macs == exit_macs + rest
    assert victim.dense_macs == victim.max_macs - 256 * 10


def test_only_the_chosen_exits_are_loaded() -> None:
    with pytest.raises(UsageError, match=r"surplus .*layers\.0\.output\.alpha"):
        build("sdn_vgg", exits=[0, 1, 1, 0, 1])
    with pytest.raises(UsageError, match=r"missing .*layers\.3\.output\.linear\.weight"):
        build("sdn_vgg", exits=[1, 1, 1, 1, 1])


def test_a_wrapped_and_old_state_dict_loads() -> None:
    old = {
        f"module.{key}": tensor
        for key, tensor in weights("sdn_resnet").items()
        if not key.endswith("num_batches_tracked")
    }
    settings = FACTS["sdn_resnet"]["variants"]["threshold_0.5"]
    with torch.no_grad():
        found = SDN.from_official(old, **settings)(IMAGES["sdn_resnet"])
        expected = build("sdn_resnet", "threshold_0.5")(IMAGES["sdn_resnet"])
    assert torch.equal(found, expected)


def test_other_criteria_and_sizes() -> None:
    torch.manual_seed(0)
    resnet = SDN("resnet", blocks=[1, 1], exits=[[1], [1]], threshold=Patience(1), input_size=64)
    vgg = SDN(
        "vgg",
        conv_channels=[4, 4],
        max_pool_sizes=[2, 3],
        fc_layers=[6],
        exits=[1, 0],
        threshold=0.2,
        batch_norm=False,
        num_classes=7,
        input_size=21,
    )
    for victim in (resnet, vgg):
        images = torch.rand(3, *victim.input_shape)
        assert audit(victim, images).logits.shape == (3, victim.num_classes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "densenet"}, "unknown architecture"),
        ({"fallback": "first"}, "unknown fallback"),
        ({"threshold": 1.5}, r"\[1\.5\] are no probabilities"),
        ({"threshold": float("nan")}, "no probabilities"),
        ({"blocks": [2, 2]}, "exits"),
        ({"exits": [[0, 1], [0, 1], [1, 0]]}, "exits"),
        ({"exits": [[0, 0], [0, 0], [0]]}, "at least two stages"),
        ({"threshold": [0.5, 0.5]}, "2 thresholds for 3 decisions"),
        ({"threshold": Patience(3)}, "nothing would ever be saved"),
    ],
)
def test_bad_input(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build("sdn_resnet", **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exits": [1, 1]}, "2 exits for 4 convolutions and 1 fully"),
        ({"max_pool_sizes": [1, 2]}, "same length"),
        ({"conv_channels": []}, "none may be empty"),
        ({"fc_layers": []}, "none may be empty"),
        ({"conv_channels": [8, 16, 16, 12]}, "do not fit|does not fit"),
    ],
)
def test_bad_vgg(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build("sdn_vgg", **changes)


def test_missing_sizes_are_named() -> None:
    state_dict = weights("sdn_resnet")
    del state_dict["end_layers.2.weight"]
    with pytest.raises(UsageError, match=r"missing end_layers\.2\.weight"):
        SDN.from_official(state_dict, **FACTS["sdn_resnet"]["variants"]["threshold_0.5"])
