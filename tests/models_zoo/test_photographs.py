"""The victims trained on CIFAR-10 are shipped whole: weights and card of each registered name."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest
from toys import embedded_or_skip as load

from effattack.models_zoo.files import read_card

NAMES = sorted(
    entry.name
    for entry in entry_points(group="effattack.victims")
    if entry.value.startswith("effattack.models_zoo.photographs:")
)


def test_the_rung_is_registered() -> None:
    assert set(NAMES) >= {"cifar10_sdn", "cifar10_tinysaver_cascade", "cifar10_vit_ats"}


@pytest.mark.parametrize("name", NAMES)
def test_the_card_is_that_of_the_victim(name: str) -> None:
    victim, card = load(name), read_card(name)
    assert victim.name == name
    assert card["max_macs"] == round(victim.max_macs)
    assert card["dense_macs"] == round(victim.dense_macs)
    assert card["accuracy"] > card["dense_accuracy"] - 0.02
    assert victim.constant or card["clean_macs"] <= 0.75 * victim.max_macs


@pytest.mark.parametrize(("name", "floor"), [("cifar10_sdn", 0.85), ("cifar10_vit_ats", 0.65)])
def test_the_dense_base_is_good_enough(name: str, floor: float) -> None:
    assert read_card(name)["dense_accuracy"] >= floor
