"""The cure: victims that keep more of their savings under attack, and what that cost."""

from __future__ import annotations

from effattack.hardening.card import Card, Figures
from effattack.hardening.engine import Hardened, harden
from effattack.hardening.learning import Schedule
from effattack.hardening.methods import METHODS, Method, method_of
from effattack.hardening.stored import load, read_card, save
from effattack.hardening.terms import Terms

__all__ = [
    "METHODS",
    "Card",
    "Figures",
    "Hardened",
    "Method",
    "Schedule",
    "Terms",
    "harden",
    "load",
    "method_of",
    "read_card",
    "save",
]
