"""The four ways to fuse, of drawn weights: contract, closed forms, and what moves their work."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from effattack.attacks import build
from effattack.domains import PartsBatch
from effattack.domains.tokens import lengths
from effattack.models_zoo.multimodal import questions
from effattack.models_zoo.multimodal.fusion import (
    SEEN,
    SIZE,
    Best,
    CrossAttended,
    GatedFusion,
    OneSequence,
    Outliers,
    SelectedTokens,
    WritesAnswers,
)
from effattack.threats import parse_threat
from effattack.victim import Victim, audit
from effattack.victim.checks import held_to


def drawn(make: Callable[[], Victim]) -> Victim:
    """One of weights that are larger than fresh ones, so that inputs are told apart."""
    torch.manual_seed(3)
    victim = make()
    with torch.no_grad():
        for name, parameter in victim.named_parameters():
            if parameter.dim() > 1 and "trunk" not in name:
                parameter.mul_(20 if "looking" in name else 2)
    return victim.eval()


WAYS = {
    "A": lambda: CrossAttended(0.35),
    "B": GatedFusion,
    "C": lambda: SelectedTokens(Outliers()),
    "C, a fixed ratio": lambda: SelectedTokens(Best(SEEN // 4)),
    "D": lambda: WritesAnswers(OneSequence()),
}


def some(count: int = 12) -> PartsBatch:
    return questions.asked("heldout")[0][:count]


@pytest.mark.slow
@pytest.mark.parametrize("way", sorted(WAYS))
def test_they_keep_the_contract(way: str) -> None:
    victim = drawn(WAYS[way])
    for check, on in held_to(victim):
        check(on, some())


@pytest.mark.parametrize("way", sorted(WAYS))
def test_declared_macs_are_counted_ones(way: str) -> None:
    victim, batch = drawn(WAYS[way]), some(6)
    assert torch.equal(audit(victim, batch).macs, victim.trace(batch).macs)
    assert (victim.trace(batch).macs <= victim.max_macs).all()


@pytest.mark.parametrize("way", ["A", "B", "C", "D"])
def test_work_moves_with_the_input(way: str) -> None:
    victim = drawn(WAYS[way])
    with torch.no_grad():
        spent = victim.spent(victim.trace(some(60)))
    assert len(spent.unique()) > 1


def test_a_fixed_ratio_keeps_as_many_of_every_image() -> None:
    victim = drawn(WAYS["C, a fixed ratio"])
    assert victim.constant
    assert (victim.trace(some()).macs == victim.max_macs).all()


def test_outliers_are_those_of_the_quartiles() -> None:
    attention = torch.rand(5, SEEN, generator=Generator().manual_seed(0))
    attention[:, :3] += torch.tensor([0.0, 1.0, 9.0])
    for row, excess in zip(attention, Outliers().excess(attention), strict=True):
        ordered = row.sort().values
        low, high = (ordered[int(at)].lerp(ordered[int(at) + 1], at % 1) for at in (15.75, 47.25))
        assert torch.allclose(excess, row - (high + 1.5 * (high - low)), atol=1e-6)


def test_no_more_than_a_quarter_are_outliers() -> None:
    attention = torch.zeros(1, SEEN)
    attention[0, : Outliers.most] = 1 + torch.arange(Outliers.most)
    assert (Outliers().excess(attention) > 0).sum() == Outliers.most
    attention[0, Outliers.most] = 1
    assert (Outliers().excess(attention) > 0).sum() < Outliers.most


def test_what_is_left_out_is_not_read() -> None:
    victim = drawn(WAYS["C"])
    text, seen = victim.read(some(4))
    kept = victim.rule.excess(victim.attention(seen)) > 0
    other = torch.where(kept[:, :, None], seen, torch.randn(seen.shape))
    assert torch.allclose(victim.said(text, other, kept), victim.said(text, seen, kept), atol=1e-5)


def test_a_skipped_layer_is_the_identity() -> None:
    victim = drawn(WAYS["B"])
    with torch.no_grad():
        for gate in victim.fusion.gates:
            gate.weight.zero_()
            gate.bias.fill_(-1.0)
    dark = some().replaced(image=torch.zeros_like(some()["image"]))
    assert torch.equal(victim(some()), victim(dark)), "nobody looked"
    assert (victim.trace(some()).macs == victim.least).all()


def test_the_length_of_a_question_moves_no_work() -> None:
    victim = drawn(lambda: CrossAttended(1.0))
    assert (lengths(some()["question"]).unique() > 0).sum() > 1
    assert (victim.trace(some()).macs == victim.max_macs).all()


def test_blanks_are_read_where_a_question_ends() -> None:
    victim = drawn(WAYS["A"])
    ids = some()["question"]
    wide = torch.nn.functional.pad(ids, (0, questions.LONGEST - ids.shape[1]), value=-1)
    rows = victim.questions(wide)
    blank = victim.questions.words.weight[SIZE.vocabulary - 1] + victim.questions.places
    behind = torch.arange(questions.LONGEST) >= lengths(wide)[:, None]
    assert torch.equal(rows[behind], blank.expand(len(wide), -1, -1)[behind])


@pytest.mark.parametrize("way", sorted(WAYS))
@pytest.mark.parametrize("grey", [0.0, 0.5, 1.0])
def test_an_image_with_no_digit_is_answered_within_the_ceiling(way: str, grey: float) -> None:
    victim = drawn(WAYS[way])
    nothing = some(6).replaced(image=torch.full_like(some(6)["image"], grey))
    trace = victim.trace(nothing)
    assert victim.task.valid(trace.logits).all()
    assert (victim.spent(trace) <= victim.ceiling(nothing, victim.currency)).all()


@pytest.mark.parametrize(
    ("way", "threat"),
    [("A", "image:linf:8/255"), ("A", "question:swap:1"), ("B", "question:swap:1")],
)
def test_attacks_raise_the_work_of_either_part(way: str, threat: str) -> None:
    victim, batch = drawn(WAYS[way]), some(16)
    found: PartsBatch = build("Slowdown(steps=10)", victim, parse_threat(threat))(batch)
    before, after = (total(victim, each) for each in (batch, found))
    assert after > before


def total(victim: Victim, batch: PartsBatch) -> Tensor:
    with torch.no_grad():
        return victim.spent(victim.trace(batch)).sum()
