"""Exits that an export folded away: graphs that compute both sides of a decision and choose then.

``torch.where(sure, exit, deep(x))`` exports to a ``Where`` that both sides feed, and a Python
``if`` to the one side that the traced example took. Either file runs, and saves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from effattack.victim.deployed.onnx_runtime.costs import COSTS
from effattack.victim.deployed.onnx_runtime.graph import bodies, operator_of

DECIDING = {"If", "Loop", "NonZero", "Compress", "NonMaxSuppression", "Unique"}
"""Operators through which the work of a graph can depend on the values of its input."""


class Merged(NamedTuple):
    """A ``Where`` that chooses between two results, both of which were multiplied out."""

    where: str
    sides: tuple[str, ...]
    """Nodes that multiply for one of the two results only, in their order."""


def decides(graph: Any) -> bool:
    """Whether the work of a graph can depend on the values of its input."""
    return any(
        node.op_type in DECIDING or any(decides(body) for _, body in bodies(node))
        for node in graph.node
    )


def merged(graph: Any) -> list[Merged]:
    """Where a graph chooses by what it multiplied between two things that it multiplied.

    A mask over tokens or scores is none: one of its sides is a constant. Only the graph itself is
    looked at, not the branches of an ``If``.
    """
    multiplying: list[str] = []
    behind: dict[str, int] = {}  # value -> bits of the multiplying nodes that it comes from
    found = []
    for index, node in enumerate(graph.node):
        sources = [behind.get(name, 0) for name in _read(node)]
        if node.op_type == "Where":
            chosen, one, other = sources
            if chosen and one and other and one != other:
                sides = [name for bit, name in enumerate(multiplying) if (one ^ other) >> bit & 1]
                found.append(Merged(_called(node, index), tuple(sides)))
        bits = 0
        for source in sources:
            bits |= source
        if operator_of(node) in COSTS:
            bits |= 1 << len(multiplying)
            multiplying.append(_called(node, index))
        behind.update(dict.fromkeys(node.output, bits))
    return found


def _called(node: Any, index: int) -> str:
    return node.name or f"{node.op_type}_{index}"


def _read(node: Any) -> Iterator[str]:
    """The values that a node reads, in its bodies, too."""
    yield from node.input
    for _, body in bodies(node):
        for inner in body.node:
            yield from _read(inner)
