"""Attacks on inputs of several parts: the one that the threat names changes, as in its domain."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Generator, Tensor, nn
from toys import LinearSaver, grey_images

from effattack import evaluate
from effattack.attacks import build, defaults
from effattack.attacks.searches.parts import OnePart
from effattack.domains import Parts, PartsBatch, Pixels, Tokens
from effattack.domains.tokens import PAD
from effattack.errors import GradientError, NotApplicable
from effattack.tasks import Classes
from effattack.threats import parse_threat, usual_threat
from effattack.victim import Trace, Victim
from effattack.victim.checks.gradients import check_gradients
from effattack.victim.leaf import Leaf

LEVELS_OF_CHANGE, WORDS = 8, 9
GREY = torch.full((1, 1, 4, 4), 0.5)
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


def test_by_default_only_what_takes_parts_is_asked() -> None:
    victim = Pair()
    assert [build(name, victim).name for name in defaults(victim)] == ["Slowdown"]
    victim.sees = "answers"
    assert defaults(victim) == ["QueryAttack"]


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


class Captioned(Victim):
    """The toy beside words, each of which moves its g(x) by what it says, wherever it stands."""

    def __init__(self) -> None:
        toy = LinearSaver()
        super().__init__(
            name="captioned",
            family="cascade",
            domain=Parts(image=Pixels(toy.input_shape), words=Tokens(WORDS, 3)),
            task=Classes(2),
            max_macs=toy.max_macs,
            dense_macs=toy.dense_macs,
        )
        self.toy, self.says = toy, nn.Embedding(WORDS, 1)
        with torch.no_grad():
            self.says.weight.copy_(torch.linspace(-3, 3, WORDS)[:, None])

    def lift(self, batch: Tensor, places: Tensor) -> Leaf:
        return Leaf(self.says(batch.gather(1, places).clamp_min(0)), places)

    def forward(self, batch: PartsBatch) -> Tensor:
        return self.toy(self.moved(batch, None))

    def trace(self, batch: PartsBatch, leaf: Leaf | None = None) -> Trace:
        return self.toy.trace(self.moved(batch, leaf))

    def moved(self, batch: PartsBatch, leaf: Leaf | None) -> Tensor:
        """Images that g sees as those of the batch, and what their words say."""
        ids = batch["words"]
        rows = self.says(ids.clamp_min(0))
        if leaf is not None:
            rows = rows.scatter(1, leaf.places[:, :, None], leaf.rows)
        said = (rows * (ids != PAD)[:, :, None]).sum(1)
        weight = self.toy.saver.weight[0] - self.toy.saver.weight[1]
        step = weight.sign() / weight.abs().sum()
        return batch["image"] + (said * step).view(-1, *self.toy.input_shape)

    def away(self, batch: PartsBatch, word: int | None, place: int) -> Tensor:
        """(B,): how far from its gate an input lies with one word replaced; None: as it is."""
        words = batch["words"].clone()
        if word is not None:
            words[:, place] = word
        return self.toy.missing(self.moved(batch.replaced(words=words), None))


def asked(count: int = 48) -> tuple[Captioned, PartsBatch]:
    """Images of two words each, whose gate is shut."""
    victim = Captioned()
    words = torch.randint(0, WORDS, (count, 2), generator=Generator().manual_seed(3))
    batch = PartsBatch(
        {"image": victim.domain.parts["image"].snap(grey_images(count)), "words": words}
    )
    return victim, batch[victim.away(batch, None, 0) > 0]


def nearest(victim: Captioned, batch: PartsBatch) -> Tensor:
    """(B,): how far from its gate the nearest input with at most one other word lies."""
    everything = [
        victim.away(batch, word, place) for word, place in product(range(WORDS), range(2))
    ]
    return torch.stack([victim.away(batch, None, 0), *everything]).amin(0)


@pytest.mark.parametrize("name", ["AutoSlow()", "QueryAttack(queries=200)", "Slowdown(steps=20)"])
def test_a_part_of_words_is_searched_as_words_are(name: str) -> None:
    victim, batch = asked()
    found = build(name, victim, parse_threat("words:swap:1"))(batch)
    expected = nearest(victim, batch) < 0
    assert 0 < expected.sum() < len(batch), "else this tells nothing"
    assert torch.equal(victim.trace(found).gates[0].active[:, 0], expected)
    assert torch.equal(found["image"], batch["image"])


@pytest.mark.parametrize("name", ["AutoSlow()", "Slowdown(steps=40)"])
def test_a_joint_budget_reaches_what_both_parts_reach_together(name: str) -> None:
    victim, batch = asked()
    reach = victim.toy.reach(4)
    joint = build(name, victim, parse_threat("image:linf:4/255+words:swap:1"))(batch)
    opened = victim.trace(joint).gates[0].active[:, 0]
    alone = (nearest(victim, batch) < 0) | (victim.away(batch, None, 0) < reach)
    assert torch.equal(opened, nearest(victim, batch) < reach)
    assert (opened & ~alone).any(), "else one part would do"
    assert ((joint["words"] != batch["words"]).sum(1) <= 1).all()


def test_queries_spend_a_joint_budget_in_turn() -> None:
    victim, batch = asked()
    attack = build("QueryAttack(queries=80)", victim, parse_threat("image:linf:4/255+words:swap:1"))
    assert [search.queries for search in attack.search.searches.values()] == [20, 20]
    assert victim.trace(attack(batch)).macs.sum() > victim.trace(batch).macs.sum()


def test_the_worst_of_so_many_random_words_is_the_worst_of_all() -> None:
    victim, batch = asked()
    found = build("BestOfRandom(draws=400)", victim, parse_threat("words:swap:1"))(batch)
    opened = victim.trace(found).gates[0].active[:, 0]
    assert torch.equal(opened, nearest(victim, batch) < 0)
    assert torch.equal(found["image"], batch["image"])


def test_random_points_of_a_joint_budget_change_both_parts() -> None:
    victim, batch = asked()
    threat = parse_threat("image:linf:4/255+words:swap:1").on(victim.domain)
    found = build("BestOfRandom(draws=40)", victim, threat)(batch)
    opened = victim.trace(found).gates[0].active[:, 0]
    assert opened.any()
    assert threat.contains(found, batch).all()
    words, images = ((found[n] != batch[n]).flatten(1).any(1) for n in ("words", "image"))
    assert (words & images)[opened].any(), "a word may be drawn as it was"
    assert images[opened].all()


class OfWordsAlone(Captioned):
    """The same, whose decision is of an image that nobody sends."""

    def moved(self, batch: PartsBatch, leaf: Leaf | None) -> Tensor:
        grey = GREY.expand(len(batch), -1, -1, -1)
        return super().moved(batch.replaced(image=grey), leaf)


def test_a_part_that_decides_nothing_is_left_to_the_others() -> None:
    victim, batch = OfWordsAlone(), asked()[1]
    alone, joint = (
        build("Slowdown(steps=40)", victim, parse_threat(threat))(batch)
        for threat in ("words:swap:1", "image:linf:8/255+words:swap:1")
    )
    opened, together = (victim.trace(found).gates[0].active[:, 0] for found in (alone, joint))
    assert opened.any()
    assert torch.equal(opened, together)


def test_no_gradient_in_the_only_part_is_said_with_the_part() -> None:
    told = "captioned: no gradient of its decisions reaches image: if they hang on other parts"
    attack = build("Slowdown(steps=5)", OfWordsAlone(), parse_threat("image:linf:8/255"))
    with pytest.raises(GradientError, match=told):
        attack(asked()[1])


def test_a_budget_in_no_part_is_refused_with_a_remedy() -> None:
    with pytest.raises(NotApplicable, match="none changes no part: name one, such as image:linf"):
        build("Slowdown", Pair(), parse_threat("none"))


def test_words_that_are_not_lifted_are_refused_and_queried() -> None:
    victim, _ = asked()
    victim.__class__ = type("Mute", (Captioned,), {"lift": Victim.lift})
    with pytest.raises(NotApplicable, match=r"captioned lifts no words \(Victim.lift\); Query"):
        build("Slowdown", victim, parse_threat("words:suffix:1"))
    assert build("Slowdown", victim, parse_threat("image:linf:4/255"))
    assert build("QueryAttack", victim, parse_threat("words:suffix:1"))


def test_the_contract_asks_for_gradients_of_words_too() -> None:
    victim, batch = asked(8)
    assert check_gradients(victim, batch) == []
    honest = Captioned.lift

    def detached(self: Captioned, ids: Tensor, places: Tensor) -> Leaf:
        return honest(self, ids, places)._replace(rows=torch.zeros(*places.shape, 1))

    victim.__class__ = type("Wrong", (Captioned,), {"lift": detached})
    with pytest.raises(GradientError, match="with lift\\(\\) and without, trace\\(\\) states diff"):
        check_gradients(victim, asked(48)[1])


def test_gates_of_other_parts_have_no_gradient_and_are_no_fault() -> None:
    victim, batch = asked(8)
    both = victim.trace(batch).gates[0]

    class TwoGates(Captioned):
        def trace(self, batch: PartsBatch, leaf: Leaf | None = None) -> Trace:
            trace = super().trace(batch, leaf)
            grey = batch.replaced(image=GREY.expand(len(batch), -1, -1, -1))
            said = self.toy.trace(self.moved(grey, leaf))
            return trace._replace(gates=(*trace.gates, said.gates[0]._replace(name="words")))

    victim.__class__ = TwoGates
    found = build("Slowdown(steps=5)", victim, parse_threat("image:linf:8/255"))(batch)
    assert victim.trace(found).gates[0].margin.sum() > both.margin.sum()
