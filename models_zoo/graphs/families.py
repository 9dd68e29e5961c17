"""Families that a formula makes, and who is what to whom in them: every answer is known by rule.

Two couples have children; a child of one marries a child of the other, and somebody marries in;
both couples have children too. Names, sexes and sizes are drawn; relations follow from father,
mother and marriage (:func:`related`). Asked is for what nobody has two of: parents, grandparents,
the one who somebody is married to.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations
from random import Random
from typing import NamedTuple

from torch import Tensor

from effattack.domains.graph import Graph
from effattack.models_zoo.graphs.knowledge import Knowledge, Named, Question

FEMALE = ("Ada", "Bea", "Cleo", "Dora", "Edda", "Fee", "Gerda", "Hanna", "Ida", "Jule", "Kaya")
MALE = ("Adam", "Ben", "Carl", "Dirk", "Emil", "Finn", "Gero", "Hans", "Ivo", "Jan", "Kai")
SURNAMES = (
    *("Adler", "Berg", "Conrad", "Dorn", "Ebert", "Frank", "Graf", "Horn"),
    *("Iversen", "Jung", "Kern", "Lang", "Moor", "Nagel", "Otto", "Pohl"),
    *("Quast", "Roth", "Sommer", "Thiel", "Ulrich", "Vogt", "Wolf", "Zander"),
)
CAP = 16
"""Edges that are at hand for one question, at most."""
HELD_OUT = 0.1
"""Share of such facts that the graph does not know: once for choices, once more for scores."""
SINGLE = (
    *("father", "mother", "married to", "paternal grandfather", "paternal grandmother"),
    *("maternal grandfather", "maternal grandmother"),
)
"""Relations to one person at most; marriage also against its direction."""


class Person(NamedTuple):
    """Who somebody is; parents are None where nobody knows them."""

    name: str
    female: bool
    father: str | None = None
    mother: str | None = None


def family(surname: str, chance: Random) -> tuple[list[Person], list[tuple[str, str]]]:
    """Persons of three generations, and who is married to whom."""
    names = {sex: chance.sample(pool, len(pool)) for sex, pool in ((True, FEMALE), (False, MALE))}
    persons: list[Person] = []
    couples: list[tuple[str, str]] = []

    def born(female: bool, parents: tuple[str, str] | None = None) -> Person:
        father, mother = parents or (None, None)
        persons.append(Person(f"{names[female].pop()} {surname}", female, father, mother))
        return persons[-1]

    def married(one: Person, other: Person) -> tuple[str, str]:
        wife, husband = (one, other) if one.female else (other, one)
        couples.append((husband.name, wife.name))
        return couples[-1]

    def children(parents: tuple[str, str], sexes: list[bool]) -> list[Person]:
        return [born(sex, parents) for sex in sexes]

    old = [married(born(True), born(False)) for _ in range(2)]
    sexes = chance.sample((True, False), 2)
    first = children(old[0], [sexes[0], chance.random() < 0.5])
    second = children(old[1], [sexes[1]] + [chance.random() < 0.5] * chance.randint(0, 1))
    middle = [married(first[0], second[0]), married(first[1], born(not first[1].female))]
    for parents in middle:
        children(parents, [chance.random() < 0.5 for _ in range(chance.randint(1, 3))])
    return persons, couples


def related(persons: list[Person], couples: list[tuple[str, str]]) -> list[Named]:
    """All facts that follow; a relation that goes both ways stands once."""
    known = {person.name: person for person in persons}
    facts: list[Named] = []
    for person in persons:
        for side, parent in (("paternal", person.father), ("maternal", person.mother)):
            if parent is None:
                continue
            facts.append((person.name, "father" if side == "paternal" else "mother", parent))
            for which in ("father", "mother"):
                if (old := getattr(known[parent], which)) is not None:
                    facts.append((person.name, f"{side} grand{which}", old))
            for other in persons:
                if siblings(known[parent], other):
                    facts.append((person.name, "aunt" if other.female else "uncle", other.name))
    facts += [(husband, "married to", wife) for husband, wife in couples]
    for one, other in combinations(persons, 2):
        if siblings(one, other):
            facts.append((one.name, "sibling", other.name))
        elif any(
            siblings(known[mine], known[its])
            for mine in (one.father, one.mother)
            for its in (other.father, other.mother)
            if mine is not None and its is not None
        ):
            facts.append((one.name, "cousin", other.name))
    return facts


def siblings(one: Person, other: Person) -> bool:
    """Whether they are two children of one father."""
    return one is not other and one.father is not None and one.father == other.father


class Split(NamedTuple):
    """Facts that the graph knows, and questions whose answers it does not."""

    known: tuple[Named, ...]
    heldout: tuple[Named, ...]
    test: tuple[Named, ...]
    people: tuple[str, ...]


@cache
def split() -> Split:
    """All families, drawn once; facts in the order in which they were learned."""
    chance = Random(0)
    drawn = [family(surname, chance) for surname in SURNAMES]
    facts = [fact for persons, couples in drawn for fact in related(persons, couples)]
    chance.shuffle(facts)
    single = [fact for fact in facts if fact[1] in SINGLE]
    count = round(HELD_OUT * len(single))
    heldout, test = single[:count], single[count : 2 * count]
    known = [fact for fact in facts if fact not in {*heldout, *test}]
    people = (person.name for persons, _ in drawn for person in persons)
    return Split(tuple(known), tuple(heldout), tuple(test), tuple(people))


@cache
def knowledge() -> Knowledge:
    """What the graph knows."""
    found = split()
    return Knowledge(Graph(found.known, CAP, entities=found.people))


def questions(which: str) -> list[Question]:
    """Of the facts ``known``, ``heldout`` or ``test``: along the relation, marriages both ways."""
    graph, found = knowledge(), []
    facts: tuple[Named, ...] = getattr(split(), which)
    for fact in facts:
        along, against = graph.asked(graph.domain.numbered(fact))
        if fact[1] in SINGLE:
            found += [along, against] if fact[1] == "married to" else [along]
    return found


def scored_questions() -> tuple[Tensor, Tensor]:
    """Test questions (B, L) and the persons (B,) that answer them."""
    return knowledge().queries(questions("test"))
