"""What the parity tests share: the vectors of the official implementations, and how to compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load_file
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"


class Golden(NamedTuple):
    """One mechanism's vectors."""

    facts: dict[str, Any]
    """``from_official`` of the JSON: keyword arguments per variant, where the logits stand."""
    vectors: dict[str, Tensor]
    weights: dict[str, Tensor]
    """The official state dict."""


def golden(mechanism: str) -> Golden:
    """The vectors of ``tests/golden/<mechanism>``."""
    facts = json.loads((GOLDEN / f"{mechanism}.json").read_text())["from_official"]
    vectors = load_file(GOLDEN / f"{mechanism}.safetensors")
    weights = _under("weights/", vectors)
    scales = _under("weights_scale/", vectors)  # of weights that are stored in int8
    weights |= {key: weights[key].float() * scale for key, scale in scales.items()}
    return Golden(facts, vectors, weights)


def _under(prefix: str, vectors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in vectors.items() if k.startswith(prefix)}


def relative(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected value."""
    return ((found - expected).abs().max() / expected.abs().max()).item()
