"""Attacks on inputs of several parts: the one that the threat names changes, as in its domain."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from toys import LinearSaver, grey_images

from effattack import evaluate
from effattack.attacks import build
from effattack.attacks.searches.parts import OnePart
from effattack.domains import Parts, PartsBatch, Pixels, Tokens
from effattack.errors import NotApplicable
from effattack.tasks import Classes
from effattack.threats import parse_threat, usual_threat
from effattack.victim import Trace, Victim

LEVELS_OF_CHANGE = 8
THREAT = f"first:linf:{LEVELS_OF_CHANGE}/255"


class Pair(Victim):
    """The toy whose worst case is known, of the mean of two images."""

    def __init__(self) -> None:
        toy = LinearSaver()
        domain = Parts(first=Pixels(toy.input_shape), second=Pixels(toy.input_shape))
        super().__init__(
            name="pair",
            family="cascade",
            domain=domain,
            task=Classes(2),
            max_macs=toy.max_macs,
            dense_macs=toy.dense_macs,
        )
        self.toy = toy

    def forward(self, batch: PartsBatch) -> Tensor:
        return self.toy((batch["first"] + batch["second"]) / 2)

    def trace(self, batch: PartsBatch) -> Trace:
        return self.toy.trace((batch["first"] + batch["second"]) / 2)


def shut(victim: Pair, count: int = 64) -> PartsBatch:
    """Pairs whose gate is shut."""
    images = victim.domain.snap(
        PartsBatch({"first": grey_images(count, seed=1), "second": grey_images(count, seed=2)})
    )
    return images[~victim.trace(images).gates[0].active[:, 0]]


@pytest.mark.parametrize("name", ["Slowdown(steps=10)", "AutoSlow()"])
def test_gates_open_exactly_where_one_part_reaches_that_far(name: str) -> None:
    victim = Pair()
    pairs = shut(victim)
    found = build(name, victim, parse_threat(THREAT))(pairs)
    missing = victim.toy.missing((pairs["first"] + pairs["second"]) / 2)
    expected = missing < victim.toy.reach(LEVELS_OF_CHANGE) / 2
    assert 0 < expected.sum() < len(pairs), "else this tells nothing"
    assert torch.equal(victim.trace(found).gates[0].active[:, 0], expected)
    assert torch.equal(found["second"], pairs["second"])
    assert ((found["first"] - pairs["first"]).abs() <= LEVELS_OF_CHANGE / 255 + 1e-6).all()


def test_queries_change_the_named_part() -> None:
    victim = Pair()
    pairs = shut(victim)
    found = build("QueryAttack(queries=60)", victim, parse_threat("second:linf:8/255"))(pairs)
    assert torch.equal(found["first"], pairs["first"])
    assert (found["second"] != pairs["second"]).any()
    assert victim.trace(found).macs.sum() > victim.trace(pairs).macs.sum()


def test_they_are_scored_as_any_input() -> None:
    victim = Pair()
    pairs = shut(victim, 32)
    lineup = [build(name, victim, parse_threat(THREAT)) for name in ("Slowdown(steps=5)", "noise")]
    scores = evaluate(victim, pairs, victim(pairs).argmax(1), lineup, timed=0).scores()
    retained = scores.set_index("attack").savings_retained
    assert retained["clean"] == retained["noise"] == 1
    assert retained["Slowdown(steps=5)"] < 1


def test_slow_and_right() -> None:
    victim = Pair()
    pairs = shut(victim)
    found = build("Slowdown(steps=10, keep_prediction=True)", victim)(pairs)
    assert torch.equal(victim(found).argmax(1), victim(pairs).argmax(1))
    assert victim.trace(found).macs.sum() > victim.trace(pairs).macs.sum()


def test_the_usual_threat_is_that_of_the_first_part() -> None:
    assert str(usual_threat(Pair().domain)) == "first:linf:8/255"
    words_first = Parts(question=Tokens(9, 5), image=Pixels((1, 2, 2)))
    assert str(usual_threat(words_first)) == "question:suffix:10"


def test_a_part_alone_is_the_whole_with_the_rest_as_it_was() -> None:
    victim = Pair()
    pairs = shut(victim, 8)
    alone = OnePart(victim, "second", pairs)
    other = pairs["second"].flip(0)
    assert torch.equal(alone(other), victim(pairs.replaced(second=other)))
    assert torch.equal(alone.trace(other).macs, victim.trace(pairs.replaced(second=other)).macs)


@pytest.mark.parametrize(
    ("threat", "message"),
    [
        ("first:linf:.1+second:linf:.1", "changes 2 parts: searches change one"),
        ("none", "changes 0 parts: searches change one"),
    ],
)
def test_other_budgets_are_refused_with_a_remedy(threat: str, message: str) -> None:
    with pytest.raises(NotApplicable, match=message):
        build("Slowdown", Pair(), parse_threat(threat))


def test_a_part_of_words_is_refused() -> None:
    victim = Pair()
    victim.domain = Parts(first=victim.domain.parts["first"], second=Tokens(9, 5))
    with pytest.raises(NotApplicable, match="changes prompts: searches change a part of arrays"):
        build("QueryAttack", victim, parse_threat("second:suffix:2"))
