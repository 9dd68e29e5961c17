"""What an attacker may change: where to look, and how far."""

from __future__ import annotations

from effattack.threats.arrays import ArrayThreat
from effattack.threats.balls import L1, L2, Linf
from effattack.threats.base import Threat
from effattack.threats.by_name import parse_threat, usual_threat
from effattack.threats.sparse import L0, Patch, Window
from effattack.threats.whole import Box, Nothing

__all__ = [
    "L0",
    "L1",
    "L2",
    "ArrayThreat",
    "Box",
    "Linf",
    "Nothing",
    "Patch",
    "Threat",
    "Window",
    "parse_threat",
    "usual_threat",
]
