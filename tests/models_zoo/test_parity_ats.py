"""ATS against the official implementation, each image by itself (variant ``drop_alone``)."""

from __future__ import annotations

import pytest
import torch
from parity import golden, relative

from effattack import audit
from effattack.models_zoo.token_sparsification.ats import ATS

FACTS, VECTORS, WEIGHTS = golden("ats")
IMAGES = VECTORS["input"]


@pytest.fixture(params=sorted(FACTS["variants"]))
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def victim(variant: str) -> ATS:
    return ATS.from_official(WEIGHTS, **FACTS["variants"][variant])


@pytest.mark.parametrize("path", ["forward", "trace"])
def test_logits(victim: ATS, variant: str, path: str) -> None:
    with torch.no_grad():
        logits = victim(IMAGES) if path == "forward" else victim.trace(IMAGES).logits
    assert relative(logits, VECTORS[FACTS["logits"][variant]]) < 1e-5


def test_kept_tokens(victim: ATS, variant: str) -> None:
    with torch.no_grad():
        trace = victim.trace(IMAGES)
    assert len(trace.gates) == len(victim.ats_blocks)
    for gate in trace.gates:
        block = f"{variant}/block{gate.name.split('.')[1]}"
        for kept, expected in zip(gate.active, VECTORS[f"{block}/kept_patch_index"], strict=True):
            assert kept.nonzero()[:, 0].tolist() == sorted(expected[expected >= 0].tolist())
        assert (gate.active.sum(1) + 1).tolist() == VECTORS[f"{block}/kept_count"].tolist()


def test_forward_equals_trace_in_float64(victim: ATS) -> None:
    victim, images = victim.double(), IMAGES.double()
    with torch.no_grad():
        torch.testing.assert_close(victim(images), victim.trace(images).logits, rtol=0, atol=1e-10)


def test_executed_macs(victim: ATS) -> None:
    counted = audit(victim, IMAGES)
    assert not counted.knife_edge.any()
    assert (counted.macs < victim.max_macs).all()
