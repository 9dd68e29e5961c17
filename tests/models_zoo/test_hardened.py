"""The hardened victims: what changed in them, what they keep, and how their recipes train."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points

import pytest
import torch
from torch import nn
from toys import embedded_or_skip as load

from effattack.attacks import build
from effattack.hardening.inner import Noise
from effattack.hardening.losses import Attacked, Lesson
from effattack.models_zoo import hardened
from effattack.models_zoo.digits import digits
from effattack.models_zoo.embedded import digits_skipnet
from effattack.models_zoo.files import WEIGHTS, read_card
from effattack.models_zoo.hardened import digits_cnn_early_exit_hardened, digits_skipnet_hardened
from effattack.models_zoo.recipes.hardened import SETTINGS, InBfloat16
from effattack.threats import Linf, parse_threat
from effattack.threats.arrays import on_arrays
from effattack.victim import Victim

NAMES = sorted(SETTINGS)
REGISTERED = {"digits_cnn_early_exit", "digits_tinysaver_cascade"}
"""The rest is loaded by its path."""
EPS = 4 / 255


def hardened_victim(name: str) -> Victim:
    factory: Callable[[], Victim] = getattr(hardened, f"{name}_hardened")
    return factory()


def test_those_that_are_registered() -> None:
    entries = {entry.name for entry in entry_points(group="effattack.victims")}
    assert {n for n in entries if n.endswith("_hardened")} == {f"{n}_hardened" for n in REGISTERED}
    assert entries >= set(NAMES)


def test_all_their_weights_are_small() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.glob("*_hardened.safetensors")) <= 3_000_000


@pytest.mark.parametrize("name", NAMES)
def test_accuracy_and_clean_work_are_about_those_of_what_it_was(name: str) -> None:
    """Within a point, or what the setting says was allowed, which the docs tell."""
    before, after = read_card(name), read_card(f"{name}_hardened")
    assert after["max_macs"] == before["max_macs"]
    assert after["clean_macs"] <= before["clean_macs"]
    assert after["accuracy"] >= before["accuracy"] - SETTINGS[name].allowed - 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_it_loses_less_than_half_of_what_it_lost(name: str) -> None:
    images, labels = (part[:12] for part in digits("test"))
    threat = SETTINGS[name].threat
    before = lost(load(name), threat, images, labels)
    assert lost(hardened_victim(name), threat, images, labels) < before / 2


def lost(victim: Victim, threat: str, images: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of its savings that few gradients take."""
    found = build("Slowdown(steps=20)", victim, parse_threat(threat))(images, labels)
    with torch.no_grad():
        clean, attacked = (victim.trace(x).macs.mean().item() for x in (images, found))
    return (attacked - clean) / (victim.max_macs - clean)


def test_of_a_cascade_the_saver_alone_is_another() -> None:
    before, after = load("digits_tinysaver_cascade"), load("digits_tinysaver_cascade_hardened")
    for mine, its in zip(states(before.models[1]), states(after.models[1]), strict=True):
        assert torch.equal(mine, its)
    assert any(
        not torch.equal(mine, its)
        for mine, its in zip(states(before.models[0]), states(after.models[0]), strict=True)
    )


def test_of_a_skipnet_the_gates_are_the_same() -> None:
    before, after = (maker(True) for maker in (digits_skipnet, digits_skipnet_hardened))
    for mine, its in zip(states(before.gates), states(after.gates), strict=True):
        assert torch.equal(mine, its)
    assert not torch.equal(before.head[-1].weight, after.head[-1].weight)


def states(module: nn.Module) -> list[torch.Tensor]:
    return list(module.state_dict().values())


def test_a_hardened_cascade_still_escalates() -> None:
    """At least two in a hundred clean held-out images: else it would be a static model."""
    victim = load("digits_tinysaver_cascade_hardened")
    with torch.no_grad():
        gate = victim.trace(digits("heldout")[0]).gates[0]
    assert gate.active.double().mean().item() >= 0.02


def test_mixed_precision_is_near_to_floats_and_its_gradients_are_floats() -> None:
    victim = digits_cnn_early_exit_hardened(trained=False)
    images, labels = (part[:8] for part in digits("train"))
    threat = on_arrays(Linf(EPS).on(victim.domain))
    found = []
    for wrap in (Attacked, in_bfloat16):
        losses = wrap(Noise(0.1))
        lesson = Lesson(victim, images, labels, threat, torch.Generator().manual_seed(0), 0.0)
        victim.zero_grad()
        loss = losses(lesson)
        loss.mean().backward()
        assert loss.dtype == torch.float32
        found.append(loss.detach())
    torch.testing.assert_close(*found, rtol=0.1, atol=0.05)
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in victim.parameters())


def in_bfloat16(inner: Noise) -> InBfloat16:
    return InBfloat16(Attacked(inner))
