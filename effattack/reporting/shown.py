"""How examples are shown, by the kind of their domain: pictures, lines, tokens, and parts of them.

Where answers have a place in their input, such as boxes, or an input is heard, more is drawn.
Everything is made from what the frame stores and what ``meta`` says of the domain and of answers. A
new kind of domain is one line in ``KINDS``, one of answers in ``RICHER``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from effattack.reporting import (
    boxes,
    lines,
    matches,
    neighbourhoods,
    pictures,
    sound,
    stored,
    tokens,
)
from effattack.reporting.stored import Description
from effattack.reporting.strips import Pair, Shown, Strips
from effattack.reporting.verdict import Row


class Kind(NamedTuple):
    """What the report does with inputs of one kind."""

    can: Callable[[Description], bool]
    """Whether inputs of such a domain can be shown."""
    read: Callable[[bytes, Description], Any]
    """One stored input; None where the bytes are none of the domain."""
    size: Callable[[Description], float]
    """Bytes of the page that one example takes, about."""
    show: Callable[[Sequence[Pair], Description], Strips]
    how: str
    """How to read what is shown."""
    css: str = ""


RICHER = (
    Kind(boxes.can, stored.pixels, boxes.size, boxes.show, boxes.HOW, "overlaid"),
    Kind(matches.can, matches.read, matches.size, matches.show, matches.HOW, "overlaid"),
    Kind(sound.can, stored.series, sound.size, sound.show, sound.HOW, "wide"),
)
"""What shows more than a kind of domain by itself: answers in their places, and sound. The first
that can is taken."""
KINDS = {
    "pixels": Kind(pictures.can, stored.pixels, pictures.size, pictures.show, pictures.HOW),
    "series": Kind(lines.can, stored.series, lines.size, lines.show, lines.HOW, "wide"),
    "tokens": Kind(tokens.can, stored.tokens, tokens.size, tokens.show, tokens.HOW, "wide"),
    "graph": Kind(
        neighbourhoods.can,
        stored.tokens,
        neighbourhoods.size,
        neighbourhoods.show,
        neighbourhoods.HOW,
        "overlaid",
    ),
}


def kind_of(domain: Description) -> Kind | None:
    """How inputs of a domain are shown; None where they cannot be."""
    for kind in RICHER:
        if kind.can(domain):
            return kind
    if domain["kind"] == "parts":
        return _together({name: dict(part) for name, part in domain["parts"].items()})
    usual = KINDS.get(domain["kind"])
    return usual if usual and usual.can(domain) else None


def _together(parts: dict[str, Description]) -> Kind | None:
    """Every part that can be shown, one behind the other."""
    kinds = {name: kind for name, part in parts.items() if (kind := kind_of(part))}
    if not kinds:
        return None
    widths = {kind.css for kind in kinds.values()}
    css = widths.pop() if len(widths) == 1 else "overlaid"

    def read(raw: bytes, domain: Description) -> dict[str, Any] | None:
        if (rows := stored.parts(raw, len(parts))) is None:
            return None
        pieces = dict(zip(parts, rows, strict=True))
        found = {name: kind.read(pieces[name], parts[name]) for name, kind in kinds.items()}
        return None if any(value is None for value in found.values()) else found

    def show(pairs: Sequence[Pair], domain: Description) -> Strips:
        strips = {
            name: kind.show([_part(pair, name, [*parts]) for pair in pairs], parts[name])
            for name, kind in kinds.items()
        }
        examples = [
            [
                one._replace(caption=f"{name}: {one.caption}", css=_room(one, kinds[name], css))
                for name, strip in strips.items()
                for one in strip.examples[at]
            ]
            for at in range(len(pairs))
        ]
        details = [f"{name}: {strip.detail}" for name, strip in strips.items() if strip.detail]
        return Strips(examples, "; ".join(details))

    return Kind(
        can=lambda domain: True,
        read=read,
        size=lambda domain: sum(kind.size(parts[name]) for name, kind in kinds.items()),
        show=show,
        how=" ".join(dict.fromkeys(kind.how for kind in kinds.values())),
        css=css,
    )


def _room(one: Shown, kind: Kind, css: str) -> str:
    """How much of a row a part takes where the others are not as wide."""
    return one.css or ("whole" if kind.css == "wide" != css else "")


def _part(pair: Pair, name: str, parts: Sequence[str]) -> Pair:
    """A part of an input, with the decisions about it: a gate's name may begin with a part's."""
    others = tuple(f"{other}." for other in parts if other != name)

    def about(row: Row) -> Row:
        told = row.get("decisions")
        if not isinstance(told, str):
            return row
        gates = json.loads(told).items()
        own = {gate: units for gate, units in gates if not gate.startswith(others)}
        return {**row, "decisions": json.dumps(own)}

    return Pair(pair.clean[name], pair.attacked[name], about(pair.before), about(pair.row))
