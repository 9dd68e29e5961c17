"""ONNX graphs made by hand, small enough that what they multiply is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from toys import import_or_skip

onnx = import_or_skip("onnx")
import_or_skip("onnxruntime")

helper, TYPES = onnx.helper, onnx.TensorProto
node = helper.make_node
MICROSOFT = {"domain": "com.microsoft"}


def value(name: str, *shape: int | str | None, type: int = TYPES.FLOAT) -> Any:
    """An input or output of a graph."""
    return helper.make_tensor_value_info(name, type, shape)


def weight(name: str, *shape: int, seed: int = 0) -> Any:
    """Random numbers that a graph stores."""
    drawn = np.random.default_rng(seed).standard_normal(shape)
    return onnx.numpy_helper.from_array(drawn.astype(np.float32), name)


def stored(name: str, values: Any, dtype: Any) -> Any:
    """Given numbers that a graph stores."""
    return onnx.numpy_helper.from_array(np.array(values, dtype), name)


def body(nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
    """A graph inside a node."""
    return helper.make_graph(nodes, "body", inputs, outputs)


def save(
    path: Path,
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    weights: Sequence[Any] = (),
    opset: int = 20,
    **saving: Any,
) -> Path:
    """Write a model of ONNX's and ONNX Runtime's own operators."""
    graph = helper.make_graph(nodes, "graph", inputs, outputs, weights)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path, **saving)
    return path


def early_exit(path: Path, threshold: float = 2.0) -> Path:
    """Where the largest of eight numbers exceeds it, 8 · 4 MACs; else 8 · 64 + 64 · 4."""
    done = body([node("MatMul", ["x", "W1"], ["a"])], [], [value("a", 1, 4)])
    go = [node("MatMul", ["x", "W2"], ["h"]), node("MatMul", ["h", "W3"], ["b"])]
    return save(
        path,
        [
            node("ReduceMax", ["x"], ["m"], keepdims=0),
            node("Greater", ["m", "t"], ["sure"]),
            node(
                "If",
                ["sure"],
                ["y"],
                then_branch=done,
                else_branch=body(go, [], [value("b", 1, 4)]),
            ),
        ],
        [value("x", 1, 8)],
        [value("y", 1, 4)],
        [
            weight("W1", 8, 4),
            weight("W2", 8, 64),
            weight("W3", 64, 4),
            stored("t", threshold, np.float32),
        ],
    )
