"""What the gates of one image decided, as the stored frame keeps it; no torch is needed to read it.

Of every image, how many units of each gate were computed; of the images that a report shows, which.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


def opened(decisions: dict[str, Tensor]) -> NDArray[np.int32]:
    """(gates,) computed units per gate: exits passed, tokens kept, blocks run."""
    return np.array([int(units.sum()) for units in decisions.values()], dtype=np.int32)


def to_text(decisions: dict[str, Tensor]) -> str:
    """``{"blocks.3.tokens": "1101", "exits.0": "1"}``."""
    return json.dumps(
        {gate: "".join("01"[unit] for unit in units.tolist()) for gate, units in decisions.items()}
    )


def from_text(text: str) -> dict[str, NDArray[np.bool_]]:
    """Gate name -> (units,) bool: the inverse of :func:`to_text`."""
    return {
        gate: np.array([unit == "1" for unit in units]) for gate, units in json.loads(text).items()
    }
