"""Controls of series against closed forms; what applies where."""

from __future__ import annotations

import pytest
import torch
from toys import LinearSaver, embedded

from effattack.attacks import build
from effattack.attacks.by_name import usual_controls
from effattack.attacks.disturbances import Drift, Gaps
from effattack.errors import NotApplicable, UsageError
from effattack.threats import Box, Linf, usual_threat
from effattack.victim import Victim

LENGTH = 128


@pytest.fixture(scope="module")
def victim() -> Victim:
    return embedded("cbf_cnn_exit")


@pytest.fixture(scope="module")
def ramps() -> torch.Tensor:
    """Series that say at every time how late it is, from 1 on."""
    return ((torch.arange(LENGTH) + 1) / 128).repeat(20, 1, 1)


def test_gaps_hold_the_last_sample(victim: Victim, ramps: torch.Tensor) -> None:
    found = Gaps(victim, threat=Box(), share=0.2, length=4)(ramps)
    missing = (found != ramps)[:, 0]
    assert (missing.sum(1) <= 0.2 * LENGTH).all()
    assert (missing.sum(1) > 0.1 * LENGTH).all()
    steps = (found[:, 0, 1:] - found[:, 0, :-1]) * 128
    assert set(steps.unique().tolist()) <= set(range(40)), "it stands still, then catches up"
    assert (steps.cumsum(1) + found[:, 0, :1] * 128)[:, -1].max() == LENGTH


def test_gaps_may_be_zero(victim: Victim, ramps: torch.Tensor) -> None:
    found = Gaps(victim, threat=Box(), fill="zero", share=0.5, length=8)(ramps)
    assert set((found - ramps)[found != ramps].neg().tolist()) <= set(ramps[0, 0].tolist())
    assert (found[found != ramps] == 0).all()


def test_drift_is_even_and_ends_at_the_budget(victim: Victim, ramps: torch.Tensor) -> None:
    found = Drift(victim, 0.25)(ramps)
    change = (found - ramps)[:, 0]
    assert set(change[:, -1].tolist()) == {0.25, -0.25}, "up or down, each by its own draw"
    expected = torch.linspace(0, 0.25, LENGTH)
    assert ((change.abs() - expected).abs() <= 1 / 256 + 1e-6).all(), "to half a step of the grid"


@pytest.mark.parametrize("name", ["gaps", "gaps(fill='zero')", "drift"])
@pytest.mark.parametrize("threat", [None, "l2:1.0", "window:16", "linf:.01"])
def test_disturbances_keep_to_the_budget(
    name: str, threat: str | None, victim: Victim, ramps: torch.Tensor
) -> None:
    option = "" if threat is None else f"threat={threat!r}"
    text = name.replace(")", f", {option})") if "(" in name and option else name
    text = f"{name}({option})" if option and "(" not in name else text
    attack = build(text, victim, seed=1)
    assert attack.kind == "control"
    assert not torch.equal(attack(ramps), ramps)  # which checks the budget


def test_series_have_their_controls_and_images_theirs(victim: Victim) -> None:
    assert [a.label for a in usual_controls(victim, usual_threat(victim.domain), 0)] == [
        *("noise", "gaps", "drift")
    ]
    assert [a.label for a in usual_controls(LinearSaver(), Linf(8 / 255), 0)] == [
        *("noise", "uniform")
    ]
    for name in ("gaps", "drift"):
        with pytest.raises(NotApplicable, match=r"changes series, toy takes images; .* apply"):
            build(name, LinearSaver())
    with pytest.raises(NotApplicable, match=r"corruption changes pixels, .* takes series"):
        build("corruption", victim)


@pytest.mark.parametrize("options", ["share=0.0", "length=0", "fill='nan'"])
def test_gaps_that_are_none(options: str, victim: Victim) -> None:
    with pytest.raises(UsageError, match="share in"):
        build(f"gaps({options})", victim)
