"""EViT against the official implementation, with and without the fused token."""

from __future__ import annotations

import pytest
import torch
from parity import golden, relative

from effattack import audit
from effattack.models_zoo.token_sparsification.evit import FUSED, EViT

FACTS, VECTORS, WEIGHTS = golden("evit")
IMAGES = VECTORS["input"]


@pytest.fixture(params=sorted(FACTS["variants"]))
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def victim(variant: str) -> EViT:
    return EViT.from_official(WEIGHTS, **FACTS["variants"][variant])


@pytest.mark.parametrize("path", ["forward", "trace"])
def test_logits(victim: EViT, variant: str, path: str) -> None:
    expected = VECTORS[FACTS["logits"][variant]]
    with torch.no_grad():
        logits = victim(IMAGES) if path == "forward" else victim.trace(IMAGES).logits
        exact = victim.double()(IMAGES.double())
    assert relative(logits, expected) < 1e-5
    assert relative(exact, VECTORS[f"{variant}/logits_f64"]) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kept_tokens_in_order(victim: EViT, variant: str, dtype: torch.dtype) -> None:
    with torch.no_grad():
        aux = victim.to(dtype).trace(IMAGES.to(dtype)).aux
    assert sorted(aux) == ["blocks.1.kept", "blocks.2.kept", "blocks.3.kept"]
    for name, kept in aux.items():
        expected = VECTORS[f"{variant}/block{name.split('.')[1]}/kept_patch_index"]
        assert torch.equal(kept, expected.long().clamp_min(FUSED))
        tokens = 1 + kept.shape[1] + victim.fuse
        assert tokens == VECTORS[f"{variant}/tokens_after_block"][int(name.split(".")[1])]


def test_gradient(victim: EViT, variant: str) -> None:
    images = IMAGES.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(victim.trace(images).logits[:, 3].sum(), images)
    assert relative(gradient[:1], VECTORS[f"{variant}/grad_logit3_sum_sample0"]) < 1e-4


def test_executed_macs(victim: EViT) -> None:
    assert audit(victim, IMAGES).macs.tolist() == [victim.max_macs] * len(IMAGES)
