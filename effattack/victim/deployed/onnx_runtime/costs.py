"""What the operators of ONNX graphs cost: MACs from the shapes that a runtime says it ran with.

Every operator stands in one of two tables, as torch's do in :mod:`effattack.counting`: ``COSTS`` (a
formula) or ``FREE`` (moves, compares, normalises or works element by element). Any other is
refused. Operators are named as in a graph, with their domain where it is not ONNX's own:
``Conv``, ``com.microsoft.FusedConv``. What they mean stands in
https://onnx.ai/onnx/operators and in ONNX Runtime's docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from effattack.errors import UnknownOperator
from effattack.victim.deployed.onnx_runtime.attention import (
    attention,
    grouped_attention,
    multihead_attention,
    projected_attention,
)
from effattack.victim.deployed.onnx_runtime.free import FREE
from effattack.victim.deployed.onnx_runtime.node import Executed, Formula, untold


def macs_of(node: Executed) -> int:
    """MACs of one node that ran.

    Raises:
        UnknownOperator: for an operator in neither table.
        MeasurementError: where its shapes do not tell.
    """
    expect_known([node.operator])
    return 0 if node.operator in FREE else int(COSTS[node.operator](node))


def register(operator: str, formula: Formula | None) -> None:
    """Give an operator a cost.

    Args:
        operator: as in the graph, ``"domain.Name"``, or ``"Name"`` in ONNX's own domain.
        formula: MACs from an :class:`Executed`; ``None`` declares that it multiplies no matrices.
    """
    FREE.discard(operator)
    COSTS.pop(operator, None)
    if formula is None:
        FREE.add(operator)
    else:
        COSTS[operator] = formula


def expect_known(operators: Iterable[str]) -> None:
    """Refuse operators that may multiply, and nobody has said how much.

    Raises:
        UnknownOperator: with their names.
    """
    if unknown := sorted(set(operators) - FREE - COSTS.keys()):
        raise UnknownOperator(
            f"no cost is known for the ONNX operator {', '.join(unknown)}: teach it with "
            f"effattack.victim.deployed.onnx_runtime.costs.register({unknown[0]!r}, formula), or "
            "formula=None if it multiplies no matrices"
        )


def _product(node: Executed) -> int:
    """(..., n, k) by (..., k, m): each output element meets k; ``transA``: (..., k, n)."""
    a = node.needed(0)
    rows = a[0] if node.attributes.get("transBatchA") else a[-2] if len(a) > 1 else 1
    return prod(node.outputs[0]) * (rows if node.attributes.get("transA") else a[-1])


def _convolution(weight: int) -> Formula:
    """Each output element meets one filter."""
    return lambda node: prod(node.outputs[0]) * prod(node.needed(weight)[1:])


def _transposed_convolution(node: Executed) -> int:
    """Each input element meets one filter."""
    return prod(node.needed(0)) * prod(node.needed(1)[1:])


def _recurrent(node: Executed) -> int:
    """Each step (seq, batch, ·) meets the input and the recurrent weights of all directions."""
    if node.shape(4) is not None:
        raise untold(node, "its input sequence_lens")
    return prod(node.needed(0)[:-1]) * (prod(node.needed(1)) + prod(node.needed(2)))


def _distances(node: Executed) -> int:
    return prod(node.outputs[0]) * node.needed(0)[-1]


def _einsum(node: Executed) -> int:
    """Operands from left to right: each product over all indices that are still alive in it.

    An index in one operand alone is summed before; where nothing is left to sum, operands are
    multiplied element by element, which is free, as torch's is.
    """
    equation = node.attributes["equation"].decode().replace(" ", "")
    if "." in equation:
        raise untold(node, "an equation with ...")
    given, arrow, result = equation.partition("->")
    if not arrow:
        result = "".join(index for index in given if given.count(index) == 1)
    terms = given.split(",")
    shapes = (node.needed(position) for position in range(len(terms)))
    sizes = dict(zip("".join(terms), (size for shape in shapes for size in shape), strict=True))
    left, total = set(terms[0]), 0
    for position, term in enumerate(terms[1:], 1):
        later = set(result).union(*terms[position + 1 :])
        right = set(term)
        left, right = left & (right | later), right & (left | later)
        if (left & right) - later:
            total += prod(sizes[index] for index in left | right)
        left = (left | right) & later
    return total


_MICROSOFT_PRODUCTS = """
    DynamicQuantizeMatMul FusedGemm FusedMatMul FusedMatMulActivation GemmFastGelu GemmFloat8
    MatMulBnb4 MatMulFpQ4 MatMulInteger16 MatMulIntegerToFloat MatMulNBits QGemm QOrderedMatMul
    TransposeMatMul
    """.split()  # noqa: SIM905

COSTS: dict[str, Formula] = {
    **dict.fromkeys(("MatMul", "Gemm", "MatMulInteger", "QLinearMatMul"), _product),
    **dict.fromkeys((f"com.microsoft.{name}" for name in _MICROSOFT_PRODUCTS), _product),
    "Conv": _convolution(1),
    "ConvInteger": _convolution(1),
    "QLinearConv": _convolution(3),
    "com.microsoft.FusedConv": _convolution(1),
    "com.microsoft.NhwcConv": _convolution(1),
    "com.microsoft.NhwcFusedConv": _convolution(1),
    "com.microsoft.QLinearConv": _convolution(3),
    "com.microsoft.nchwc.Conv": _convolution(1),
    "com.ms.internal.nhwc.Conv": _convolution(1),
    "com.ms.internal.nhwc.QLinearConv": _convolution(3),
    "ConvTranspose": _transposed_convolution,
    "com.microsoft.ConvTransposeWithDynamicPads": _transposed_convolution,
    "com.ms.internal.nhwc.ConvTranspose": _transposed_convolution,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "com.microsoft.DynamicQuantizeLSTM": _recurrent,
    "Einsum": _einsum,
    "AffineGrid": lambda node: prod(node.outputs[0]) * node.needed(0)[-1],
    "com.microsoft.CDist": _distances,
    "Attention": attention,
    "com.microsoft.Attention": projected_attention(past=4),
    "com.microsoft.QAttention": projected_attention(past=8),
    "com.microsoft.MultiHeadAttention": multihead_attention,
    "com.microsoft.GroupQueryAttention": grouped_attention,
}
"""Operator -> formula. Add to it with :func:`register`."""
