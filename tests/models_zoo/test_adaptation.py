"""Domain adaptation: what is reversed, what is consistent, and what the detector learns from."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from effattack.models_zoo.detection.adaptation import DomainClassifiers, inconsistency, reverse
from effattack.models_zoo.detection.networks import faster_rcnn
from effattack.models_zoo.detection.scenes import SHIFTS, scenes
from effattack.models_zoo.recipes import adaptation as recipe
from effattack.models_zoo.recipes.detection import regions_loss

IMAGE = torch.tensor([0, 1, 1])
TARGET = torch.tensor([False, True])


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classifiers() -> DomainClassifiers:
    torch.manual_seed(0)
    return DomainClassifiers(2, 5, width=4).double()


def test_reversal_changes_nothing_but_the_sign_of_the_gradient() -> None:
    """Of log(1 + exp(-v u x)): by v as it is, by u, which lies before the reversal, negated."""
    u, v, x = (torch.tensor(value, requires_grad=True) for value in (0.7, -1.3, 2.0))
    value = torch.log1p(torch.exp(-v * reverse(u * x)))
    assert value.item() == pytest.approx(math.log1p(math.exp(1.3 * 0.7 * 2)))
    value.backward()
    slope = -1 / (1 + math.exp(-1.3 * 0.7 * 2))
    assert v.grad is not None
    assert u.grad is not None
    assert v.grad.item() == pytest.approx(slope * 0.7 * 2)
    assert u.grad.item() == pytest.approx(-slope * -1.3 * 2)


def test_reversing_twice_reverses_nothing() -> None:
    x = drawn(3).requires_grad_()
    reverse(reverse(x)).square().sum().backward()
    torch.testing.assert_close(x.grad, 2 * x.detach())


def test_inconsistency_by_hand() -> None:
    """Means of the cells .3 and .8; three proposals .2, 0 and .6 away."""
    cells = torch.tensor([[0.2, 0.4], [0.6, 1.0]])
    proposals = torch.tensor([0.5, 0.8, 0.2])
    assert inconsistency(cells, proposals, IMAGE).item() == pytest.approx(0.8 / 3)


def test_classifiers_that_know_nothing_lose_a_bit_each() -> None:
    both = classifiers()
    for parameter in both.parameters():
        torch.nn.init.zeros_(parameter)
    loss = both(drawn(2, 2, 3, 3), drawn(3, 5), IMAGE, TARGET)
    assert loss.item() == pytest.approx(2 * math.log(2))


def test_features_hide_the_domain_and_lower_the_inconsistency() -> None:
    """Their gradient is that of the inconsistency less that of the two losses, written out."""
    both = classifiers()
    maps, proposals = (drawn(*shape).requires_grad_() for shape in ((2, 2, 3, 3), (3, 5)))
    features, weights = (maps, proposals), tuple(both.parameters())
    logits = both.cells(maps), both.proposals(proposals)
    right = (logits[0] * torch.tensor([[-1.0], [1.0]]), logits[1] * torch.tensor([-1.0, 1, 1]))
    told = sum(torch.log1p(torch.exp(-each)).mean() for each in right)
    means = logits[0].sigmoid().mean(1)
    apart = (means[IMAGE] - logits[1].sigmoid()).abs().mean()
    by_told = torch.autograd.grad(told, features + weights, retain_graph=True)
    by_apart = torch.autograd.grad(apart, features + weights, allow_unused=True)
    loss = both(maps, proposals, IMAGE, TARGET)
    torch.testing.assert_close(loss, told + apart)
    found = torch.autograd.grad(loss, features + weights)
    signs = [-1] * len(features) + [1] * len(weights)
    for gradient, a, b, sign in zip(found, by_told, by_apart, signs, strict=True):
        torch.testing.assert_close(gradient, sign * a + b)


def test_targets_are_shifted_scenes_of_other_plans() -> None:
    source, truth = scenes("heldout")
    pairs, labels = recipe.with_shifted("heldout")
    assert torch.equal(pairs[:, 0], source)
    assert torch.equal(labels, truth)
    half = len(source) // 2
    for index, shift in enumerate(sorted(SHIFTS.keys() - {"none"})):
        shifted = scenes("heldout", shift)[0]
        assert torch.equal(pairs[half + index, 1], shifted[index])
        assert torch.equal(pairs[index, 1], shifted[half + index])


def test_without_its_domain_terms_the_loss_is_that_of_the_source(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Statistics fixed, so that the target cannot reach the source through them, and no box left to
    chance."""
    monkeypatch.setattr(recipe, "WEIGHT", 0.0)
    torch.manual_seed(0)
    network = faster_rcnn(10, 64)
    network.backbone.eval()
    for part in (network.rpn, network.roi_heads):
        part.fg_bg_sampler.batch_size_per_image = 10_000
    (source, truth), (target, _) = scenes("heldout"), scenes("heldout", "style")
    pairs = torch.stack([source, target], 1)[:3]
    loss = recipe.adapting_loss(network, DomainClassifiers(32, 128))
    expected = regions_loss(network)(source[:3], truth[:3])
    torch.testing.assert_close(loss(pairs, truth[:3]), expected)


def test_the_target_moves_the_backbone_through_the_domain_terms_alone() -> None:
    torch.manual_seed(0)
    network = faster_rcnn(10, 64)
    network.backbone.eval()
    (source, truth), (target, _) = scenes("heldout"), scenes("heldout", "style")
    pairs = torch.stack([source, target], 1)[:2].requires_grad_()
    classifiers = DomainClassifiers(32, 128)
    recipe.adapting_loss(network, classifiers)(pairs, truth[:2]).backward()
    assert pairs.grad is not None
    assert pairs.grad[:, 1].abs().amax() > 0
    assert all(p.grad is not None and p.grad.abs().amax() > 0 for p in classifiers.parameters())
