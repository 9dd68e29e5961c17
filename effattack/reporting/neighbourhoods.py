"""Neighbourhoods as drawings: the entity asked about, edges around it, and those that are new."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import cos, pi, sin
from typing import Any, NamedTuple

from markupsafe import Markup

from effattack.reporting import svg
from effattack.reporting.stored import Description
from effattack.reporting.strips import Pair, Shown, Strips

WIDTH, HEIGHT = 480.0, 320.0
RINGS = ((0.0, 0.0), (96.0, 72.0), (162.0, 138.0))
"""Half the width and the height of the ellipse at each distance from the entity."""
LONGEST = 15
"""Letters of a name that are shown."""
HOW = (
    "In the middle of each drawing is the entity that is asked about, around it what its edges "
    "lead to, and outside what is one edge farther; dark edges were read, light ones were at hand "
    "and not read. Edges that the attack added are in its colour, with their relation; those that "
    "made room for them are dashed."
)


class Edge(NamedTuple):
    """An edge from its nearer end, as numbers of entities and of the step between them."""

    near: int
    step: int
    far: int


def can(domain: Description) -> bool:
    """Graphs that tell their names."""
    return bool(domain.get("entities")) and bool(domain.get("relations"))


def size(domain: Description) -> float:
    """Bytes of two drawings."""
    return 2 * 260.0 * float(domain["cap"])


def show(pairs: Sequence[Pair], domain: Description) -> Strips:
    """Both neighbourhoods of each query, every entity in the same place."""
    return Strips([_both(pair, domain) for pair in pairs], "")


def _both(pair: Pair, domain: Description) -> list[Shown]:
    clean, attacked = (edges(row.tolist(), domain) for row in (pair.clean, pair.attacked))
    head, step = divmod(int(pair.clean[0]), 2 * len(domain["relations"]))
    places = laid_out(head, [*clean, *attacked])
    asked = f"{domain['entities'][head]}, {told(step, domain)}"
    return [
        _drawn(name, asked, head, mine, other, row.get("edges"), places, domain)
        for name, mine, other, row in (
            ("clean", clean, attacked, pair.before),
            ("attacked", attacked, clean, pair.row),
        )
    ]


def edges(ids: Sequence[int], domain: Description) -> list[Edge]:
    """Those of a stored query, in the order in which they are read."""
    entities, steps = len(domain["entities"]), 2 * len(domain["relations"])
    head = ids[0] // steps
    found = [Edge(i // entities // steps, i // entities % steps, i % entities) for i in ids[1:]]
    own = [edge for edge in found if edge.near == head]
    around = {edge.far for edge in own}
    return own + [edge for edge in found if edge.near != head and edge.near in around]


def laid_out(head: int, found: Iterable[Edge]) -> dict[int, tuple[float, float]]:
    """Where entities are drawn: what is behind a neighbour shares its part of the circle."""
    rays: dict[int, list[int]] = {}
    seen, behind = {head}, []
    for edge in found:
        if edge.near != head:
            behind.append(edge)
        elif edge.far not in seen:
            seen.add(edge.far)
            rays[edge.far] = []
    for edge in behind:
        if edge.far not in seen and edge.near in rays:
            seen.add(edge.far)
            rays[edge.near].append(edge.far)
    slots = sum(max(1, len(outer)) for outer in rays.values())
    places, first = {head: _at(0, 0.0)}, 0
    for inner, outer in rays.items():
        width = max(1, len(outer))
        places[inner] = _at(1, 2 * pi * (first + (width - 1) / 2) / slots)
        for number, entity in enumerate(outer):
            places[entity] = _at(2, 2 * pi * (first + number) / slots)
        first += width
    return places


def told(step: int, domain: Description) -> str:
    """A step in words: the relation, or the relation backwards."""
    relations = domain["relations"]
    name = str(relations[step % len(relations)])
    return f"{name}, backwards" if step >= len(relations) else name


def _at(ring: int, angle: float) -> tuple[float, float]:
    across, down = RINGS[ring]
    return WIDTH / 2 + across * sin(angle), HEIGHT / 2 - down * cos(angle)


def _drawn(
    name: str,
    asked: str,
    head: int,
    mine: list[Edge],
    other: list[Edge],
    read: Any,
    places: dict[int, tuple[float, float]],
    domain: Description,
) -> Shown:
    apart = {*mine} - {*other}
    count = int(read) if isinstance(read, int | float) and read == read else len(mine)
    marks = [
        _line(edge, places, name if edge in apart else "", at < count)
        for at, edge in enumerate(mine)
    ]
    shown = {head, *(end for edge in mine for end in (edge.near, edge.far))}
    marks += [_entity(entity, places, domain, entity == head) for entity in shown]
    if name == "attacked":
        marks += [_relation(edge, places, domain) for edge in mine if edge in apart]
    words = f"{name}: {min(count, len(mine))} of {len(mine)} edges read"
    if apart:
        words += f", {len(apart)} {'added' if name == 'attacked' else 'made room'}"
    return Shown(words, svg.draw(WIDTH, HEIGHT, f"{asked}; {words}", *marks), "whole")


def _line(edge: Edge, places: dict[int, tuple[float, float]], apart: str, read: bool) -> Markup:
    usual = "rule base" if read else "grid"
    css = {"attacked": "curve attacked", "clean": "stop"}.get(apart, usual)
    return svg.path(css, [places[edge.near], places[edge.far]])


def _entity(
    entity: int, places: dict[int, tuple[float, float]], domain: Description, asked: bool
) -> Markup:
    x, y = places[entity]
    css, radius = ("ring", 5.0) if asked else ("dot", 2.5)
    dot = svg.element("circle", class_=css, cx=x, cy=y, r=radius)
    label = svg.clip(str(domain["entities"][entity]), LONGEST)
    across = x - WIDTH / 2
    if abs(across) <= RINGS[1][0]:
        return dot + svg.text(label, "small middle", x, y - 7)
    side = "small end" if across < 0 else "small"
    return dot + svg.text(label, side, x + (6 if across > 0 else -6), y + 3)


def _relation(edge: Edge, places: dict[int, tuple[float, float]], domain: Description) -> Markup:
    (x, y), (a, b) = places[edge.near], places[edge.far]
    return svg.text(told(edge.step, domain), "mark attacked middle", (x + a) / 2, (y + b) / 2 - 3)
