"""Graphs before they run: their nodes by unique names, the shapes of their weights, their branches.

A runtime's record names each node that ran and leaves out the weights that it has packed away, so
both are looked up here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from effattack.errors import MeasurementError
from effattack.victim.deployed.onnx_runtime.costs import COSTS, FREE, expect_known
from effattack.victim.deployed.onnx_runtime.node import Executed, Shape


class Planned(NamedTuple):
    """A node that may run."""

    operator: str
    given: tuple[bool, ...]
    """By position: whether the input is there, or left out."""
    weights: tuple[Shape | None, ...]
    """By position: the shape of an input that is stored; None where it is computed."""
    attributes: Mapping[str, Any]

    def as_ran(self, name: str, inputs: list[Shape], outputs: list[Shape]) -> Executed:
        """This node with the shapes that a record gives, in which packed weights are missing.

        Raises:
            MeasurementError: where a computed one is missing, too.
        """
        if self.operator in FREE:
            return Executed(name, self.operator, tuple(inputs), tuple(outputs), self.attributes)
        left = sum(given and kept is None for given, kept in self._by_position())
        waiting, found = list(inputs), list[Shape | None]()
        for given, kept in self._by_position():
            if not given:
                found.append(None)
            elif kept is not None and not (len(waiting) > left and waiting[0] == kept):
                found.append(kept)
            elif waiting:
                left -= kept is None
                found.append(waiting.pop(0))
            else:
                raise MeasurementError(
                    f"the runtime's record of {self.operator} {name!r} leaves out the shape of "
                    f"input {len(found)}: its multiplications cannot be counted"
                )
        return Executed(name, self.operator, tuple(found), tuple(outputs), self.attributes)

    def _by_position(self) -> Iterator[tuple[bool, Shape | None]]:
        return zip(self.given, self.weights, strict=True)


def plan(model: Any) -> dict[str, Planned]:
    """Give all nodes of an ``onnx.ModelProto`` names of their own; name -> node, in their order.

    A node in the body of another is called after it: ``"If_3/else_branch/Gemm_1"``.

    Raises:
        UnknownOperator: for operators whose cost nobody knows.
    """
    nodes: dict[str, Planned] = {}
    _part(model.graph, {output for node in model.graph.node for output in node.output}, {})
    _name(model.graph, "", {}, nodes)
    expect_known(node.operator for node in nodes.values())
    return nodes


def _part(graph: Any, taken: set[str], renamed: Mapping[str, str]) -> None:
    """Give values inside bodies names that no other value has.

    The runtime's optimiser names what it puts in by body, and then does not load what it wrote.

    Args:
        graph: whose nodes are looked at.
        taken: all names so far.
        renamed: of the values that this graph can see, old -> new.
    """
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        for _, body in bodies(node):
            own = dict(renamed)
            for inner in body.node:
                for index, name in enumerate(inner.output):
                    own[name] = f"{name}_{len(taken)}" if name and name in taken else name
                    inner.output[index] = own[name]
                    taken.add(own[name])
            for told in (*body.output, *body.value_info):
                told.name = own.get(told.name, told.name)
            _part(body, taken, own)


def _name(graph: Any, prefix: str, around: Mapping[str, Shape], nodes: dict[str, Planned]) -> None:
    """Name the nodes of a graph and of the bodies in it; ``around``: weights that they can see."""
    from onnx.helper import get_attribute_value

    weights = {**around, **{kept.name: tuple(kept.dims) for kept in graph.initializer}}
    for index, node in enumerate(graph.node):
        name = prefix + (node.name or f"{node.op_type}_{index}")
        node.name = f"{name}_{index}" if name in nodes else name
        nodes[node.name] = Planned(
            operator=operator_of(node),
            given=tuple(map(bool, node.input)),
            weights=tuple(map(weights.get, node.input)),
            attributes={each.name: get_attribute_value(each) for each in node.attribute},
        )
        for where, body in bodies(node):
            _name(body, f"{node.name}/{where}/", weights, nodes)


def operator_of(node: Any) -> str:
    """With its domain, where that is not ONNX's own."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def bodies(node: Any) -> Iterator[tuple[str, Any]]:
    """The graphs that a node may run: branches of ``If``, the body of ``Loop`` or ``Scan``."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.name, attribute.g
        yield from ((f"{attribute.name}{i}", body) for i, body in enumerate(attribute.graphs))


def choices(nodes: Mapping[str, Planned]) -> list[str] | None:
    """Of each ``If``, in their order, what the names of nodes in its computing branch begin with.

    None where that cannot be told of one, as both of its branches multiply, or none, or as a loop
    may come by more than once.
    """
    found = []
    for name, node in nodes.items():
        if node.operator in ("Loop", "Scan"):
            return None
        if node.operator != "If":
            continue
        computing = [
            branch
            for branch in (f"{name}/then_branch/", f"{name}/else_branch/")
            if any(n.startswith(branch) and nodes[n].operator in COSTS for n in nodes)
        ]
        if len(computing) != 1:
            return None
        found += computing
    return found
