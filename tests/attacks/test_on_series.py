"""Attacks on series: the searches of images, in one dimension, in any range."""

from __future__ import annotations

import pytest
import torch
from toys import embedded

from effattack.attacks import MinimalBudget, build
from effattack.attacks.foreign.adapters import TracedLogits
from effattack.errors import NotApplicable
from effattack.inputs.source import load_data
from effattack.victim import Victim


@pytest.fixture(scope="module")
def victim() -> Victim:
    return embedded("cbf_cnn_exit")


@pytest.fixture(scope="module")
def data(victim: Victim) -> tuple[torch.Tensor, torch.Tensor]:
    series, labels = load_data(victim.data, victim)
    return series[:8], labels[:8]


@pytest.mark.parametrize(
    "name",
    [
        *("Slowdown(steps=10)", "Slowdown(steps=10, threat='window:32')", "ILFO(steps=10)"),
        *("Slowdown(steps=10, threat='pixels:20')", "DeepSloth(steps=10)"),
        "QueryAttack(queries=60, threat='linf:.5sd')",
        "MinimalBudget(attack='Slowdown(steps=5)')",
    ],
)
def test_they_raise_the_work(
    name: str, victim: Victim, data: tuple[torch.Tensor, torch.Tensor]
) -> None:
    found = build(name, victim, seed=1)(*data)
    spent = victim.trace(found).macs - victim.trace(data[0]).macs
    assert (spent >= 0).all()
    assert spent.sum() > 0
    assert torch.equal(victim.domain.snap(found), found)


def test_slow_and_right(victim: Victim, data: tuple[torch.Tensor, torch.Tensor]) -> None:
    found = build("Slowdown(steps=10, keep_prediction=True)", victim)(*data)
    assert torch.equal(victim(found).argmax(1), victim(data[0]).argmax(1))
    assert victim.trace(found).macs.sum() > victim.trace(data[0]).macs.sum()


def test_smallest_budgets_are_in_deviations(
    victim: Victim, data: tuple[torch.Tensor, torch.Tensor]
) -> None:
    attack = MinimalBudget(victim, threat="linf:.3sd", attack="Slowdown(steps=5)")
    attack(*data)
    rungs = torch.tensor([0.0, *(0.3 * k / 64 for k in range(1, 65)), torch.inf])
    assert all(torch.isclose(rungs, size).any() for size in attack.budgets)


@pytest.mark.parametrize(
    "name",
    [
        *("torchattacks.PGD(steps=4)", "foolbox.LinfPGD(steps=4)"),
        *("torchattacks.CW(threat='l2:1.0', steps=4)", "foolbox.L2PGD(threat='l2:.3sd', steps=4)"),
    ],
)
def test_library_attacks_in_the_mapped_range(
    name: str, victim: Victim, data: tuple[torch.Tensor, torch.Tensor]
) -> None:
    pytest.importorskip(name.partition(".")[0])
    attack = build(name, victim)
    found = attack(*data)
    assert not torch.equal(found, data[0])
    model = TracedLogits(victim)
    images = model.as_images(data[0])
    assert images.shape == (8, 1, 1, 128)
    assert (images.min() >= 0) & (images.max() <= 1)
    torch.testing.assert_close(model.from_images(images), data[0])
    assert attack.size == pytest.approx(attack.threat.radius / 32)


@pytest.mark.parametrize("name", ["torchattacks.DIFGSM", "torchattacks.Pixle(threat='pixels:5')"])
def test_library_attacks_that_want_squares(name: str, victim: Victim) -> None:
    pytest.importorskip("torchattacks")
    with pytest.raises(NotApplicable, match="several rows for granted"):
        build(name, victim)
