"""Early readers of series from the UCR archive."""

from __future__ import annotations

import pytest
import torch

from effattack.attacks import Slowdown
from effattack.errors import UsageError
from effattack.models_zoo.series import archive
from effattack.victim import audit

SETS = {
    "italy_power_demand": (1029, 24, 2),
    "gun_point": (150, 150, 2),
    "osu_leaf": (242, 427, 6),
}
"""Factory -> test series, steps and classes, as the archive lists them."""


@pytest.mark.usefixtures("aeon")
@pytest.mark.parametrize("name", SETS)
def test_the_archive_is_read_as_it_lists_itself(name: str) -> None:
    series, labels = getattr(archive, f"{name}_test")()
    count, length, classes = SETS[name]
    assert series.shape == (count, 1, length)
    assert labels.unique().tolist() == list(range(classes))
    assert torch.allclose(series.mean(2), torch.zeros(count, 1), atol=1e-3)
    archive.DOMAIN(length).check(series)


@pytest.mark.usefixtures("aeon")
@pytest.mark.parametrize(
    ("name", "accuracy"),
    [
        ("italy_power_demand", 0.85),
        pytest.param("gun_point", 0.85, marks=pytest.mark.slow),
        pytest.param("osu_leaf", 0.5, marks=pytest.mark.slow),
    ],
)
def test_trained_once_and_reads_a_part(name: str, accuracy: float) -> None:
    """How accurate differs by some per cent from machine to machine: each trains its own."""
    victim, again = (getattr(archive, name)() for _ in range(2))
    series, labels = getattr(archive, f"{name}_test")()
    with torch.no_grad():
        trace = victim.trace(series)
        assert torch.equal(again.trace(series).logits, trace.logits)
    assert (trace.logits.argmax(1) == labels).double().mean() >= accuracy
    assert trace.macs.mean() < 0.9 * victim.max_macs
    assert torch.equal(audit(victim, series[:8]).macs, trace.macs[:8])


@pytest.mark.usefixtures("aeon")
def test_an_attacker_takes_steps_back() -> None:
    victim, (series, labels) = archive.italy_power_demand(), archive.italy_power_demand_test()
    attacked = Slowdown(victim, threat="linf:.1sd", keep_prediction=True)(series, labels)
    with torch.no_grad():
        clean, slow = victim.trace(series), victim.trace(attacked)
    assert clean.also["samples"].mean() < 20
    assert slow.also["samples"].mean() > clean.also["samples"].mean() + 2
    assert torch.equal(slow.logits.argmax(1), clean.logits.argmax(1))


def test_without_aeon_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install --no-deps aeon"):
        archive.italy_power_demand_test()
