"""One node of an ONNX graph, as it ran."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from effattack.errors import MeasurementError

Shape = tuple[int, ...]


class Executed(NamedTuple):
    """One node of a graph, as it ran."""

    name: str
    """Its own; in the body of another node after that one's: ``"If_3/else_branch/Gemm_1"``."""
    operator: str
    inputs: tuple[Shape | None, ...]
    """By position; None where an optional input is left out."""
    outputs: tuple[Shape, ...]
    attributes: Mapping[str, Any]

    def shape(self, position: int) -> Shape | None:
        """Of an input; None where it is left out."""
        return self.inputs[position] if position < len(self.inputs) else None

    def needed(self, position: int) -> Shape:
        """Of an input that this operator cannot do without."""
        if (shape := self.shape(position)) is None:
            raise untold(self, f"input {position}")
        return shape


def untold(node: Executed, what: str) -> MeasurementError:
    """The error where the shapes of a node do not say how much was multiplied."""
    return MeasurementError(
        f"{node.operator} {node.name!r} ran, and {what} does not tell how much it multiplied: "
        "export the model without it, or give its cost with "
        f"effattack.victim.deployed.onnx_runtime.costs.register({node.operator!r}, formula)"
    )


Formula = Callable[[Executed], int]
