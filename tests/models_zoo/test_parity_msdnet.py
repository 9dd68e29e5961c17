"""MSDNet against the official implementation."""

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
from effattack.models_zoo.early_exit.msdnet import MSDNet
from effattack.victim.checks import INVARIANTS, Check

GOLDEN = Path(__file__).parents[1] / "golden"
FACTS = json.loads((GOLDEN / "msdnet.json").read_text())["from_official"]
VECTORS = load_file(GOLDEN / "msdnet.safetensors")
IMAGES = VECTORS["input"]
EXITS = 3
BUDGETS = ("budget_p10", "budget_p20", "budget_p30")


def weights() -> dict[str, Tensor]:
    """Official names; some convolutions are stored in int8, with an exact scale."""
    stored = {k[8:]: v for k, v in VECTORS.items() if k.startswith("weights/")}
    scales = {k[14:]: v for k, v in VECTORS.items() if k.startswith("weights_scale/")}
    return stored | {key: stored[key].float() * scale for key, scale in scales.items()}


def build(variant: str = "fixed_0.6", **changes: Any) -> MSDNet:
    return MSDNet.from_official(weights(), **(FACTS["variants"][variant] | changes))


def all_exits(suffix: str = "") -> Tensor:
    return torch.stack([VECTORS[f"logits_exit{k}{suffix}"] for k in range(EXITS)], dim=1)


@pytest.mark.parametrize("variant", FACTS["variants"])
def test_exits_and_logits(variant: str) -> None:
    victim, taken = build(variant), VECTORS[f"exit_index/{variant}"].long()
    with torch.no_grad():
        trace, deployed = victim.trace(IMAGES), victim(IMAGES)
    passed = torch.cat([gate.active for gate in trace.gates], dim=1).sum(1)
    assert passed.tolist() == taken.tolist()
    expected = all_exits()[range(len(IMAGES)), taken]
    assert relative(trace.logits, expected) < 1e-5
    assert relative(deployed, expected) < 1e-5


@pytest.mark.parametrize("variant", BUDGETS)
def test_budgeted_exits_but_for_knife_edges(variant: str) -> None:
    """These thresholds equal the confidence of some image: one ulp decides there."""
    thresholds = VECTORS[f"thresholds/{variant}"]
    edge = (VECTORS["confidence"] - thresholds).abs().amin(1) < 1e-6
    with torch.no_grad():
        gates = build(thresholds=thresholds).trace(IMAGES).gates
    passed = torch.cat([gate.active for gate in gates], dim=1).sum(1)
    assert (~edge).any()
    assert passed[~edge].tolist() == VECTORS[f"exit_index/{variant}"][~edge].tolist()


def test_every_exit() -> None:
    with torch.no_grad():
        single = build().trace(IMAGES).stage_logits
        double = build().double().trace(IMAGES.double()).stage_logits
    assert single is not None
    assert double is not None
    assert relative(single, all_exits()) < 1e-5
    assert relative(double, all_exits("_f64")) < 1e-12


def test_gradient() -> None:
    images = IMAGES.clone().requires_grad_()
    stage_logits = build().trace(images).stage_logits
    assert stage_logits is not None
    (gradient,) = torch.autograd.grad(stage_logits[:, :, 3].sum(), images)
    assert relative(gradient[:1], VECTORS["grad_logit3_all_exits_sample0"]) < 1e-4


@pytest.mark.parametrize("variant", FACTS["variants"])
def test_executed_macs(variant: str) -> None:
    victim = build(variant)
    counted = audit(victim, IMAGES)
    assert not counted.knife_edge.any()
    early = VECTORS[f"exit_index/{variant}"] < EXITS - 1
    assert torch.equal(counted.macs < victim.max_macs, early)


@pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
def test_contract(check: Check) -> None:
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert check(build("fixed_0.7"), images) == []


@pytest.mark.parametrize("prune", ["max", "min"])
@pytest.mark.parametrize("step_mode", ["even", "lin_grow"])
@pytest.mark.parametrize("bottleneck", [True, False])
def test_other_shapes(prune: str, step_mode: str, bottleneck: bool) -> None:
    torch.manual_seed(0)
    victim = MSDNet(
        blocks=3,
        channels=4,
        base=1,
        step=1,
        step_mode=step_mode,
        growth_rate=2,
        growth_factors=[1, 2, 4],
        bottleneck_factors=[1, 2, 4],
        prune=prune,
        bottleneck=bottleneck,
        thresholds=0.5,
    )
    images = torch.rand(2, 3, 32, 32)
    audit(victim, images)
    gates = victim.trace(images).gates
    assert [gate.name for gate in gates] == ["exits.0", "exits.1"]


def test_lin_grow_has_longer_blocks() -> None:
    sizes: dict[str, Any] = {"blocks": 4, "channels": 4, "base": 1, "step": 1, "thresholds": 0.5}
    even = MSDNet(**sizes, reduction=0)
    growing = MSDNet(**sizes, reduction=0, step_mode="lin_grow")
    assert [len(stage) for stage in even.stages] == [2, 1, 1, 1]
    assert [len(stage) for stage in growing.stages] == [2, 2, 3, 4]


def test_imagenet_form_round_trip() -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "blocks": 2,
        "channels": 4,
        "base": 2,
        "step": 1,
        "growth_rate": 2,
        "scales": 4,
        "growth_factors": [1, 2, 4, 4],
        "bottleneck_factors": [1, 2, 4, 4],
        "thresholds": [0.3, -1e8],
    }
    victim = MSDNet(form="imagenet", num_classes=20, **sizes).eval()
    state_dict = {
        f"module.{official}.{key}": tensor
        for official, parts in (("blocks", victim.stages), ("classifier", victim.heads))
        for key, tensor in parts.state_dict().items()
    }
    twin = MSDNet.from_official(state_dict, **sizes)
    assert twin.input_shape == (3, 224, 224)
    images = torch.rand(2, *victim.input_shape)
    with torch.no_grad():
        assert torch.equal(twin(images), victim(images))


def test_official_marks_for_always_and_never() -> None:
    with torch.no_grad():
        never = build(thresholds=[1e8, 1e8, -1e8]).trace(IMAGES).macs
        always = build(thresholds=[-1e8, 0.5, -1e8]).trace(IMAGES).macs
    assert repr(build(thresholds=[0.6, 0.6]).criterion) == "Confidence((0.6, 0.6))"
    assert never.tolist() == [build().max_macs] * 4
    assert len(set(always.tolist())) == 1
    assert always[0] < never[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prune": "all"}, "unknown prune"),
        ({"step_mode": "odd"}, "unknown step_mode"),
        ({"form": "mnist"}, "unknown form"),
        ({"growth_factors": [1, 2]}, "one entry for each of the 3 scales"),
        ({"growth_rate": 3, "growth_factors": [1, 1, 2]}, "is odd"),
        ({"input_size": 64}, "4 x 4"),
        ({"thresholds": [0.5, 1.5, -1e8]}, r"\[1\.5\] are no probabilities"),
        ({"thresholds": [0.5]}, "1 thresholds for 2 decisions"),
        ({"bottleneck": False}, r"surplus .*net\.3\.weight"),
        ({"blocks": 2, "thresholds": 0.5}, r"surplus .*blocks\.2\.0"),
        ({"channels": 6}, r"shapes of .*blocks\.0\.0\.layers\.0\.net\.0\.weight"),
    ],
)
def test_bad_input(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(**changes)
