"""What holds of threats on images holds on series of any range, grid and length."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from effattack.budgets import at_budget, budget_text, size_text
from effattack.domains import Pixels, Series, Tokens
from effattack.errors import MeasurementError, NotApplicable, UsageError
from effattack.threats import L0, L1, L2, Box, Linf, Threat, Window, parse_threat, usual_threat

COUNT, LENGTH = 4, 9
Z_SCORED = Series(2, None, -4.0, 4.0, deviation=0.9)
SENSOR = Series(2, LENGTH, -32768.0, 32767.0, step=1.0, deviation=1200.0)
COARSE = Series(2, LENGTH, -1.0, 2.0, step=0.1)
DOMAINS = (Z_SCORED, SENSOR, COARSE)


@st.composite
def bound(draw: st.DrawFn) -> Threat:
    """A threat on series, of a size that fits their range."""
    domain = draw(st.sampled_from(DOMAINS))
    least = domain.step or 0.01
    share = draw(st.floats(0.0, 1.0))
    eps = least + share * (domain.high - domain.low - least)
    threats: list[Threat] = [Linf(eps), L2(2 * eps), L1(9 * eps), Box()]
    threats += [L0(draw(st.integers(1, 12))), Window(draw(st.integers(1, LENGTH)))]
    threats += [Window(3, (draw(st.integers(0, LENGTH - 3)),))]
    if domain.deviation is not None:
        threats.append(Linf(0.1, unit="sd"))
    return draw(st.sampled_from(threats)).on(domain)


def series(domain: Series, seed: int) -> Tensor:
    """A third of the samples at an end of the range."""
    generator = Generator().manual_seed(seed)
    drawn = torch.rand(COUNT, 2, LENGTH, generator=generator)
    ends = torch.rand(drawn.shape, generator=generator) < 1 / 3
    drawn = torch.where(ends, drawn.round(), drawn)
    return domain.snap(domain.low + (domain.high - domain.low) * drawn)


def spent(threat: Threat, inputs: Tensor, clean: Tensor) -> Tensor:
    """(B,) what the series take of a budget, in its unit."""
    change = (inputs - clean).double()
    times = (change != 0).any(1)
    if isinstance(threat, L0):
        return times.sum(1).double()
    if isinstance(threat, Window):
        places = [row.nonzero()[:, 0] for row in times]
        return torch.tensor([int(p.max() - p.min()) + 1.0 if len(p) else 0.0 for p in places])
    norm = {Linf: math.inf, L2: 2, L1: 1}[type(threat)]
    size = torch.linalg.vector_norm(change.flatten(1), ord=norm, dim=1)
    return size / (threat.domain.deviation if threat.name.endswith("@sd") else 1)


@given(threat=bound(), seed=st.integers(0, 2**31))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_whatever_moves_stays_inside(threat: Threat, seed: int) -> None:
    clean, generator = series(threat.domain, seed), Generator().manual_seed(seed)
    placed = threat.placed(clean, generator)
    start = placed.start(clean, generator)
    far = clean + 3 * placed.span * torch.randn(clean.shape, generator=generator)
    climbed = placed.ascend(start, torch.randn(clean.shape, generator=generator), 1.0)
    for inputs in (start, far, climbed, clean):
        found = placed.on_grid(inputs, clean)
        threat.check(found, clean)
        assert torch.equal(threat.domain.snap(found), found), "valid to the last bit"
        if not isinstance(threat, Box):
            room = threat.eps * (1 + 1e-5) + 2e-5 * (threat.domain.step is None)
            assert (spent(threat, found, clean) <= room).all()
        again = placed.on_grid(found, clean)
        torch.testing.assert_close(again, found, msg="idempotent")
    assert torch.equal(placed.on_grid(clean, clean), clean)
    assert not torch.equal(placed.on_grid(far, clean), clean), "there is something to change"


def test_deviations_are_those_of_the_training_data() -> None:
    threat = parse_threat("linf:.1sd").on(SENSOR)
    assert threat.radius == pytest.approx(120)
    clean = torch.zeros(1, 2, LENGTH)
    moved = threat.on_grid(clean + 1e4, clean)
    assert (moved - clean).unique().tolist() == [120.0]
    assert str(threat) == "linf:0.1sd"
    assert str(parse_threat(str(threat))) == "linf:0.1sd"
    assert (threat.name, threat.eps) == ("linf@sd", 0.1), "tables say what was asked for"
    assert size_text(threat.name, threat.eps) == budget_text(threat.name, threat.eps) == "0.1sd"
    assert at_budget(threat.name, threat.eps) == "eps 0.1sd"
    assert budget_text(parse_threat("l2:.5sd").name, 0.5) == "l2 0.5sd"


@pytest.mark.parametrize("domain", [COARSE, Pixels((1, 4, 4))])
def test_deviations_must_be_declared(domain: Series | Pixels) -> None:
    with pytest.raises(UsageError, match=r"no declared deviation: give the domain the deviation="):
        parse_threat("linf:.1sd").on(domain)


@pytest.mark.parametrize(("text", "domain"), [("linf:.05", COARSE), ("linf:4", COARSE)])
def test_sizes_that_a_range_has_not(text: str, domain: Series) -> None:
    parse_threat(text)
    with pytest.raises(UsageError, match=r"no value can change|range of series"):
        parse_threat(text).on(domain)


def test_threats_of_another_kind_say_which_apply() -> None:
    with pytest.raises(NotApplicable, match=r"window:16"):
        parse_threat("patch:2").on(COARSE)
    with pytest.raises(NotApplicable, match=r"patch:16"):
        parse_threat("window:2").on(Pixels((1, 4, 4)))
    with pytest.raises(NotApplicable, match=r"suffix:10"):
        parse_threat("linf:8/255").on(Tokens(10, 8))


def test_usual_threats() -> None:
    assert str(usual_threat(Pixels((1, 4, 4)))) == "linf:8/255"
    assert str(usual_threat(SENSOR)) == "linf:0.1sd"
    assert usual_threat(Series(1, 8, -1.0, 2.0)).radius == pytest.approx(3 * 8 / 255)
    assert usual_threat(COARSE).radius == 0.1, "one step at least"


def test_what_is_outside_is_refused() -> None:
    clean = series(COARSE, 0)
    for text in ("linf:.1", "window:2", "pixels:1"):
        threat = parse_threat(text).on(COARSE)
        with pytest.raises(MeasurementError, match="are too much"):
            threat.check(COARSE.snap(1 - clean), clean)
        with pytest.raises(MeasurementError, match="off the grid"):
            threat.check((clean + 0.03).clamp(-1, 2), clean)
        with pytest.raises(MeasurementError, match=r"shape \(4, 2, 8\)"):
            threat.check(clean[:, :, 1:], clean)
        with pytest.raises(MeasurementError, match="NaN"):
            threat.check(clean * math.nan, clean)
