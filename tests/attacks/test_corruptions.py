"""Common corruptions: natural shift, scored like any control."""

from __future__ import annotations

from math import prod

import pytest
import torch
from torch import nn
from toys import LinearSaver, grey_images, noise_images

from effattack import evaluate
from effattack.attacks import Corruption, build
from effattack.attacks.corruptions import STRENGTHS
from effattack.domains.pixels import to_grid
from effattack.errors import NotApplicable, UsageError
from effattack.victim import Opaque, Victim

every_kind = pytest.mark.parametrize("kind", list(STRENGTHS))


def of_shape(*shape: int) -> Victim:
    model = nn.Sequential(nn.Flatten(), nn.Linear(prod(shape), 2))
    return Opaque(model, shape, name="any")


@every_kind
def test_a_higher_severity_changes_more(kind: str) -> None:
    victim, clean = of_shape(3, 16, 16), noise_images(6, 0, (3, 16, 16))
    moved = [
        (Corruption(victim, kind=kind, severity=level)(clean) - clean).abs().mean().item()
        for level in range(1, 6)
    ]
    assert moved == sorted(moved)
    assert 0 < moved[0] < moved[-1]


@every_kind
@pytest.mark.parametrize("channels", [1, 3])
def test_deterministic_and_on_the_grid(kind: str, channels: int) -> None:
    victim, clean = of_shape(channels, 8, 8), grey_images(3, shape=(channels, 8, 8))
    found = Corruption(victim, kind=kind, seed=3)(clean)
    torch.rand(3)
    assert torch.equal(found, Corruption(victim, kind=kind, seed=3)(clean))
    assert torch.equal(found, to_grid(found))
    other = Corruption(victim, kind=kind, seed=4)(clean)
    assert torch.equal(found, other) == (kind != "noise"), "only noise is drawn"


@every_kind
def test_an_image_does_not_depend_on_those_after_it(kind: str) -> None:
    victim, clean = of_shape(3, 8, 8), grey_images(4, shape=(3, 8, 8))
    attack = Corruption(victim, kind=kind)
    assert torch.equal(attack(clean[:1]), attack(clean)[:1])


def test_brightness_keeps_the_hue() -> None:
    clean = torch.tensor([0.2, 0.4, 0.0]).mul(255).round().div(255).view(1, 3, 1, 1)
    clean = clean.expand(1, 3, 4, 4).clone()
    found = Corruption(of_shape(3, 4, 4), kind="brightness", severity=4)(clean)
    torch.testing.assert_close(found[0, :, 0, 0], torch.tensor([0.3, 0.6, 0.0]), atol=3e-3, rtol=0)


def test_large_images_have_the_strengths_of_imagenet() -> None:
    assert Corruption(of_shape(3, 64, 64), kind="blur", severity=5).strength == 6
    assert Corruption(of_shape(3, 63, 63), kind="blur", severity=5).strength == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "snow"}, "unknown corruption 'snow'"),
        ({"severity": 0}, "severity = 0: give a whole number"),
        ({"severity": 2.5}, "severity = 2.5"),
    ],
)
def test_what_is_none(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Corruption(LinearSaver(), **options)


def test_jpeg_needs_grey_or_colour() -> None:
    with pytest.raises(NotApplicable, match="1 or 3 channels"):
        Corruption(of_shape(2, 4, 4), kind="jpeg")


def test_scored_as_a_control() -> None:
    victim, images = LinearSaver(), grey_images(6)
    name = "corruption(kind='blur', severity=2)"
    found = evaluate(victim, images, torch.zeros(6).long(), [name], timed=0)
    row = found.scores().set_index("attack").loc[name]
    assert (found.kinds[name], row.threat, row.eps) == ("control", "box", 1.0)
    with torch.no_grad():
        expected = victim.trace(build(name, victim)(images)).macs.mean().item()
    assert row.macs == expected
