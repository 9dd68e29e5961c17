"""The rules behind a layer of LightGlue, and what is told of how near they are, in closed form."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from drawn import generators, reproducible
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

from effattack.models_zoo.matching.layers import (
    SAFE,
    SCALE,
    SPARE,
    Layer,
    candidates,
    deciding,
    depth_margin,
    depth_slack,
)

MATCHER = SimpleNamespace(conf=SimpleNamespace(depth_confidence=0.95))


def behind(doubts: Tensor) -> Layer:
    sides: Any = (SimpleNamespace(rows=doubts),)
    return Layer(sides, doubts=(doubts[:1], doubts[1:]))


def goes_on(doubts: Tensor, total: int) -> bool:
    """The package's rule, with points left behind counting as sure."""
    return not (1.0 - (doubts > 0).float().sum() / total > MATCHER.conf.depth_confidence)


@pytest.mark.parametrize("total", [20, 40, 41, 60, 128, 512])
def test_as_many_decide_as_the_rule_counts(total: int) -> None:
    doubts = -torch.ones(total)
    for _ in range(deciding(MATCHER, total)):
        assert not goes_on(doubts, total)
        doubts[doubts.argmin()] = 1
    assert goes_on(doubts, total)


@reproducible
@given(generators(), st.integers(1, 60), st.floats(-3, 3))
def test_where_the_push_for_another_layer_is_done_there_is_one(
    generator: Generator, left: int, shift: float
) -> None:
    doubts = torch.randn(left, generator=generator) * 2 + shift
    margin = depth_margin(MATCHER, behind(doubts), 60).item()
    assert -1 <= margin <= SAFE + 1e-6
    if margin > SAFE / SPARE + 1e-6:
        assert goes_on(doubts, 60)


def test_the_push_is_on_the_most_doubtful_that_are_not_safe() -> None:
    """3 of 60 decide, so that 12 are pushed; one of them is safe."""
    doubts = torch.cat([torch.tensor([5.0]), -torch.arange(1.0, 20.0)]).requires_grad_()
    margin = depth_margin(MATCHER, behind(doubts), 60)
    expected = (SAFE - sum(k / (SCALE + k) for k in range(1, 12))) / 12
    assert margin.item() == pytest.approx(expected)
    (slope,) = torch.autograd.grad(margin, doubts)
    assert slope.nonzero()[:, 0].tolist() == list(range(1, 12))


def test_the_last_of_those_that_decide_tells_the_slack() -> None:
    doubts = torch.tensor([3.0, 2.0, -0.5, -4.0])
    assert depth_slack(MATCHER, behind(doubts), 60).item() == pytest.approx(0.5 / (SCALE + 0.5))
    assert depth_slack(MATCHER, behind(doubts[:2]), 60).item() == 1
    assert depth_slack(MATCHER, behind(doubts)._replace(doubts=()), 60).item() == 1


def test_candidates_are_the_best_partners_of_too_low_a_score() -> None:
    shares = torch.tensor([[0.6, 0.05, 0.02], [0.2, 0.01, 0.08]])
    first, second, found = candidates(shares.log(), 0.1)
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == [(0, 1), (1, 2)]
    assert found.tolist() == pytest.approx([0.05, 0.08])
