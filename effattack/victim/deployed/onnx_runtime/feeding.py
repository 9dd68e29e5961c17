"""What a graph takes and says: its one input of numbers, and how a batch is fed to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray
from torch import Tensor

from effattack.domains import Domain, Pixels
from effattack.errors import UsageError
from effattack.victim.deployed.onnx_runtime.graph import bodies
from effattack.victim.deployed.onnx_runtime.session import NEEDED

FLOATS = {1: np.float32, 10: np.float16, 11: np.float64}
"""``onnx.TensorProto``'s numbers of types -> what arrays are cast to."""
COUPLING = {"If", "Loop", "DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"}
"""Operators that decide, or choose a scale, for a whole batch at once."""


class Slot(NamedTuple):
    """The input of a graph."""

    name: str
    dtype: Any
    axes: tuple[int | str, ...]
    """Sizes, the batch's first; the name of one that is free."""
    alone: bool
    """Whether inputs are fed one by one: the graph takes no more, or would decide for all."""

    def feeds(self, batch: Tensor) -> list[dict[str, ndarray]]:
        """What the runtime is given, run by run."""
        array = batch.detach().cpu().numpy().astype(self.dtype, copy=False)
        parts = np.split(array, len(array)) if self.alone else [array]
        return [{self.name: part} for part in parts]

    @property
    def free(self) -> list[str]:
        """Names of its free axes but the batch's."""
        return [axis for axis in self.axes[1:] if isinstance(axis, str)]


def slot_of(path: Path, model: Any) -> Slot:
    """The one input of an ``onnx.ModelProto``.

    Raises:
        UsageError: for several inputs, one that is no float, or a batch of a fixed size above one.
    """
    kept = {tensor.name for tensor in model.graph.initializer}
    inputs = [given for given in model.graph.input if given.name not in kept]
    if len(inputs) != 1:
        names = ", ".join(given.name for given in inputs) or "none"
        raise UsageError(
            f"{path} takes {len(inputs)} inputs ({names}): export it with one, {NEEDED}"
        )
    (given,) = inputs
    tensor = given.type.tensor_type
    if tensor.elem_type not in FLOATS:
        raise UsageError(
            f"{path}: its input {given.name!r} holds no floats: leave the conversion from "
            f"floats inside the model, {NEEDED}"
        )
    dims = tensor.shape.dim
    axes = tuple(dim.dim_value or dim.dim_param or f"axis {n}" for n, dim in enumerate(dims))
    if len(axes) < 2:
        raise UsageError(
            f"{path}: the shape of its input {given.name!r} has {len(axes)} axes: export it with "
            "the batch in axis 0 and the sizes of one input behind it"
        )
    if isinstance(axes[0], int) and axes[0] > 1:
        raise UsageError(
            f"{path}: axis 0 of its input {given.name!r}, the batch, is fixed at {axes[0]}: export "
            "it with an example of one input, or with that axis dynamic"
        )
    return Slot(given.name, FLOATS[tensor.elem_type], axes, axes[0] == 1 or _couples(model.graph))


def _couples(graph: Any) -> bool:
    """Whether inputs of one batch would share a decision or a scale."""
    return any(
        node.op_type in COUPLING or any(_couples(body) for _, body in bodies(node))
        for node in graph.node
    )


def pixels(path: Path, slot: Slot) -> Domain:
    """The images that a graph takes, where nobody has said so.

    Raises:
        UsageError: where its input does not look like images.
    """
    sizes = slot.axes[1:]
    if len(sizes) != 3 or not isinstance(sizes[0], int):
        shape = ", ".join(map(str, slot.axes))
        raise UsageError(
            f"{path}: its input {slot.name!r} of shape ({shape}) does not say what it holds: give "
            "a twin, or domain=, as in Pixels((3, 224, 224)) or Series(1, 128, low=-1, high=1)"
        )
    return Pixels(tuple(size if isinstance(size, int) else None for size in sizes))
