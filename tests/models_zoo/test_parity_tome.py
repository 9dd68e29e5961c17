"""ToMe against the official implementation, for three schedules."""

from __future__ import annotations

import pytest
import torch
from parity import golden, relative

from effattack import audit
from effattack.models_zoo.token_sparsification.tome import ToMe

FACTS, VECTORS, WEIGHTS = golden("tome")
IMAGES = VECTORS["input"]


@pytest.fixture(params=sorted(FACTS["variants"]))
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def victim(variant: str) -> ToMe:
    return ToMe.from_official(WEIGHTS, **FACTS["variants"][variant])


@pytest.mark.parametrize("path", ["forward", "trace"])
def test_logits(victim: ToMe, variant: str, path: str) -> None:
    expected = VECTORS[FACTS["logits"][variant]]
    with torch.no_grad():
        logits = victim(IMAGES) if path == "forward" else victim.trace(IMAGES).logits
        exact = victim.double()(IMAGES.double())
    assert relative(logits, expected) < 1e-5
    assert relative(exact, VECTORS[f"{variant}/logits_f64"]) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_merged_tokens_in_order(victim: ToMe, variant: str, dtype: torch.dtype) -> None:
    with torch.no_grad():
        aux = victim.to(dtype).trace(IMAGES.to(dtype)).aux
    merging = [index for index, r in enumerate(FACTS["variants"][variant]["r"]) if r]
    assert list(aux) == [f"blocks.{index}.group" for index in merging]
    for index, group in zip(merging, aux.values(), strict=True):
        recorded = f"{variant}/block{index}"
        assert torch.equal(group, VECTORS[f"{recorded}/group_of_token"].long())
        sizes = torch.stack([row.bincount() for row in group])
        assert torch.equal(sizes, VECTORS[f"{recorded}/size"].long())
        assert sizes.shape[1] == VECTORS[f"{variant}/tokens_after_block"][index]


def test_gradient(victim: ToMe, variant: str) -> None:
    images = IMAGES.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(victim.trace(images).logits[:, 3].sum(), images)
    assert relative(gradient[:1], VECTORS[f"{variant}/grad_logit3_sum_sample0"]) < 1e-4


def test_executed_macs(victim: ToMe) -> None:
    assert audit(victim, IMAGES).macs.tolist() == [victim.max_macs] * len(IMAGES)
