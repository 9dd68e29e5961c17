"""Early exits on a stock timm ViT."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from effattack import audit
from effattack.errors import UsageError
from effattack.models_zoo.criteria import Confidence, Criterion, Entropy, Margin, Patience
from effattack.models_zoo.early_exit.exit_vit import ExitViT
from effattack.victim.checks import INVARIANTS, Check

WIDTH, TOKENS, CLASSES = 32, 17, 5


def small_vit(**changes: Any) -> VisionTransformer:
    torch.manual_seed(0)
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": WIDTH, "depth": 4, "num_heads": 2}
    vit = timm.create_model("vit_tiny_patch16_224", **{**sizes, "num_classes": CLASSES, **changes})
    for name, parameter in vit.named_parameters():
        if "norm" not in name:
            nn.init.normal_(parameter, std=0.3)
    return vit


def build(criterion: float | Criterion = 0.9, **settings: Any) -> ExitViT:
    settings = {"exit_blocks": [0, 2], **settings}
    vit = settings.pop("vit", None) or small_vit()
    victim = ExitViT(vit, criterion=criterion, **settings)
    torch.manual_seed(1)
    for parameter in victim.heads.parameters():
        if parameter.dim() == 2:
            nn.init.normal_(parameter, std=0.4)
    return victim


def images(count: int = 6) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


CRITERIA = [Confidence(0.9), Entropy(0.4), Margin(0.8), Patience(1)]


@pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("criterion", CRITERIA, ids=repr)
def test_contract(criterion: Criterion, check: Check) -> None:
    assert check(build(criterion), images()) == []


@pytest.mark.parametrize("criterion", CRITERIA, ids=repr)
def test_images_leave_at_different_exits(criterion: Criterion) -> None:
    assert len(set(audit(build(criterion), images()).macs.tolist())) > 1


def test_without_early_exits_it_is_the_model() -> None:
    victim = build(1.0)
    with torch.no_grad():
        expected = victim.vit((images() - 0.5) / 0.5)
        torch.testing.assert_close(victim(images()), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(victim.trace(images()).logits, expected, rtol=1e-4, atol=1e-5)


def test_closed_form() -> None:
    victim = build(0.0)
    stem, block = 3 * 16 * 16 * WIDTH, 12 * TOKENS * WIDTH**2 + 2 * TOKENS**2 * WIDTH
    head = WIDTH * CLASSES
    assert victim.dense_macs == stem + 4 * block + head
    assert victim.max_macs == victim.dense_macs + 2 * head
    assert victim.trace(images()).macs.tolist() == [stem + block + head] * 6


def test_gradient_from_every_gate() -> None:
    pixels = images().requires_grad_()
    gates = build(0.9).trace(pixels).gates
    assert [gate.name for gate in gates] == ["exits.0", "exits.1"]
    for gate in gates:
        (gradient,) = torch.autograd.grad(gate.margin.sum(), pixels, retain_graph=True)
        assert gradient.flatten(1).any(1).all()


def test_images_of_a_batch_do_not_meet() -> None:
    victim, batch = build().double(), images().double()
    with torch.no_grad():
        alone = torch.cat([victim(image) for image in batch.split(1)])
        torch.testing.assert_close(victim(batch), alone, rtol=0, atol=1e-12)


def test_every_weight_has_one_name_and_copies_are_whole() -> None:
    victim = build()
    names = victim.state_dict()
    assert all(name.startswith(("vit.", "heads.")) for name in names)
    assert len({tensor.data_ptr() for tensor in names.values()}) == len(names)
    with torch.no_grad():
        before = victim(images())
        twin = copy.deepcopy(victim)
        for parameter in twin.parameters():
            parameter.zero_()
        assert torch.equal(victim(images()), before)
        assert not twin(images()).any()


def test_own_heads_and_normalisation() -> None:
    victim = build(0.0, exit_heads=[nn.Linear(WIDTH, CLASSES)] * 2, mean=[0.0] * 3, std=[1.0] * 3)
    assert victim.exit_blocks == (0, 2)
    assert not victim.mean.any()
    assert (victim.std == 1).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"exit_blocks": []}, "exit_blocks"),
        ({"exit_blocks": [3]}, "blocks 0 to 2"),
        ({"exit_blocks": [-1]}, "blocks 0 to 2"),
        ({"exit_heads": [nn.Linear(WIDTH, CLASSES)]}, "3 stages and 2 heads"),
        ({"exit_heads": [nn.Linear(WIDTH, 3)] * 2}, "must agree"),
        ({"criterion": 2.0}, "no probabilities"),
        ({"vit": nn.Identity()}, "no timm VisionTransformer"),
        ({"vit": small_vit(global_pool="avg", class_token=False)}, "no CLS token"),
    ],
)
def test_bad_input(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(**settings)
