"""MACs of the attention operators of ONNX and ONNX Runtime.

Scores and weighted values of every query with every key count, masked ones too, as they do in
:mod:`effattack.counting`. With Q of B·n·h·d and an output of B·n·h·e elements, m keys cost
m (B·n·h·d + B·n·h·e).
"""

from __future__ import annotations

from math import prod

from effattack.victim.deployed.onnx_runtime.node import Executed, Formula, untold


def _past(node: Executed, position: int) -> int:
    """Positions in a cache of earlier keys (..., positions, width)."""
    if node.attributes.get("past_present_share_buffer"):
        raise untold(node, "a cache of fixed size")
    past = node.shape(position)
    return 0 if past is None else past[-2]


def projected_attention(past: int) -> Formula:
    """Tokens (B, n, width) by W (width, q + k + v), then Q Kᵀ and A V over n + past keys."""

    def formula(node: Executed) -> int:
        tokens, weight, out = node.needed(0), node.needed(1), prod(node.outputs[0])
        queries = (prod(tokens[:-1]) * weight[1] - out) // 2
        keys = tokens[1] + _past(node, past)
        return prod(tokens) * weight[1] + keys * (queries + out)

    return formula


def multihead_attention(node: Executed) -> int:
    """Q (B, n, h·d), K (B, m, h·d) or (B, h, m, d); or packed: (B, n, h, 3, d), (B, m, h, 2, d)."""
    queries, keys = node.needed(0), node.shape(1)
    packed = len(queries) == 5
    held = queries if keys is None else keys
    many = held[2] if len(held) == 4 else held[1]
    return (many + _past(node, 6)) * (prod(queries) // (3 if packed else 1) + prod(node.outputs[0]))


def grouped_attention(node: Executed) -> int:
    """``GroupQueryAttention``: queries of the output's shape meet all keys of the new cache."""
    cache, past = node.outputs[1], node.shape(3)
    if past is not None and past[-2] == cache[-2]:
        raise untold(node, "a cache of fixed size")
    return cache[-2] * 2 * prod(node.outputs[0])


def attention(node: Executed) -> int:
    """ONNX's own ``Attention``: Q (B, h, n, d) or (B, n, h·d), and K likewise."""
    keys = node.needed(1)
    if node.shape(6) is not None:
        raise untold(node, "its input nonpad_kv_seqlen")
    return (keys[-2] + _past(node, 4)) * (prod(node.needed(0)) + prod(node.outputs[0]))
